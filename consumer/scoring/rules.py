"""The business rules: a pure function from transactions to decisions, risk flags and reason codes.

Checkout may call it in process. It imports no model code and no I/O beyond reading the rule file, so nothing that a
model does can reach a decision.
"""

from __future__ import annotations

import hashlib
import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from consumer.contracts.transaction import SCHEMA, columns_from_dicts, plain_values, transaction_batch
from consumer.errors import ArtifactError, InvalidRecord

Mask = npt.NDArray[np.bool_]

DECISIONS = ("approve", "decline")
"""From the mildest to the strictest."""
RISK_FLAGS = ("low", "medium", "high")

_COMPARE = {
    "<": pc.less, "<=": pc.less_equal, "==": pc.equal, "!=": pc.not_equal, ">=": pc.greater_equal, ">": pc.greater,
}  # fmt: skip
_COMPARE_PLAIN: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, "==": operator.eq, "!=": operator.ne, ">=": operator.ge, ">": operator.gt,
}  # fmt: skip
Values = Sequence[Any]
"""One transaction as `contracts.transaction.plain_values` gives it."""


_NO_TRANSACTIONS = pa.RecordBatch.from_pylist([], SCHEMA)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Condition(_Strict):
    """`field op value`, `field op other_field`, or `field in [values]`."""

    field: str
    op: Literal["<", "<=", "==", "!=", ">=", ">", "in"]
    value: float | str | bool | list[str] | None = None
    other_field: str | None = None

    @model_validator(mode="after")
    def _comparable(self) -> Condition:
        if (self.value is None) == (self.other_field is None):
            raise ValueError("needs exactly one of value and other_field")
        if (self.op == "in") != isinstance(self.value, list):
            raise ValueError("`in` takes a list of values, and nothing else does")
        for name in self.reads:
            if name not in SCHEMA.names:
                raise ValueError(f"{name} is not a field of a transaction")
        try:
            self.holds(_NO_TRANSACTIONS)
        except (pa.ArrowException, TypeError):
            right = self.other_field or f"the value {self.value!r}"
            raise ValueError(f"{self.field} cannot be compared with {right} by {self.op}") from None
        return self

    @property
    def reads(self) -> set[str]:
        return {name for name in (self.field, self.other_field) if name is not None}

    def holds(self, transactions: pa.RecordBatch) -> pa.Array:
        """Boolean column; null where an optional field is not there."""
        column = transactions.column(self.field)
        if self.op == "in":
            return pc.is_in(column, value_set=pa.array(self.value, column.type))
        if self.other_field is not None:
            return _COMPARE[self.op](column, transactions.column(self.other_field))
        return _COMPARE[self.op](column, pa.scalar(self.value))

    def of_plain(self) -> Callable[[Values], bool]:
        """The same of one transaction; a field that is not there does not hold."""
        at = SCHEMA.names.index(self.field)
        if self.op == "in":
            among = self.value if isinstance(self.value, list) else []
            return lambda values: values[at] in among
        compare = _COMPARE_PLAIN[self.op]
        if self.other_field is None:
            wanted = self.value
            return lambda values: values[at] is not None and compare(values[at], wanted)
        other = SCHEMA.names.index(self.other_field)
        return lambda values: None not in (values[at], values[other]) and compare(values[at], values[other])


class Rule(_Strict):
    """Fires when all its conditions hold. A condition on an optional field that is not there does not hold."""

    code: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]
    description: str
    decision: Literal["approve", "decline"]
    risk_flag: Literal["low", "medium", "high"]
    when: Annotated[list[Condition], Field(min_length=1)]


class Example(_Strict):
    """A transaction (only the fields that the rules read) and what must come out."""

    transaction: dict[str, Any]
    decision: Literal["approve", "decline"]
    risk_flag: Literal["low", "medium", "high"]
    reason_codes: list[str]


class _RuleFile(_Strict):
    version: Annotated[str, Field(min_length=1)]
    effective_from: date
    description: str
    risk_score_field: Literal["risk_score"]
    rules: Annotated[list[Rule], Field(min_length=1)]
    examples: list[Example]

    @model_validator(mode="after")
    def _distinct_codes(self) -> _RuleFile:
        repeated = [code for code, times in Counter(rule.code for rule in self.rules).items() if times > 1]
        if repeated:
            raise ValueError(f"codes are used twice: {', '.join(repeated)}")
        return self


@dataclass(frozen=True)
class Decisions:
    """What the rules say of n transactions, as columns."""

    decision: pa.Array
    """string: approve or decline"""
    risk_flag: pa.Array
    """string: low, medium or high, apart from the decision"""
    risk_score: pa.Array
    """double, 0 to 1: the score the rules go by"""
    reason_codes: pa.Array
    """list<string>: codes of the rules that fired, in the rule set's order"""

    def plain(self, row: int) -> dict[str, Any]:
        """What they say of one transaction."""
        return {each.name: getattr(self, each.name)[row].as_py() for each in fields(self)}


class RuleSet:
    """A versioned rule file: `version` and the file's `sha256` go onto every decision."""

    def __init__(self, content: bytes) -> None:
        """Raises ArtifactError when the file is malformed, or its own examples do not come out as it says."""
        try:
            rules = _RuleFile.model_validate_json(content)
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, fault['loc'])) or 'the file'}: {fault['msg']}" for fault in error.errors()
            )
            raise ArtifactError(f"the rule set cannot be used: {faults}") from None
        self.version = rules.version
        self.sha256 = hashlib.sha256(content).hexdigest()
        self._rules = tuple(rules.rules)
        self._risk_score_field = rules.risk_score_field
        conditions = [condition for rule in self._rules for condition in rule.when]
        self._reads = {self._risk_score_field}.union(*(condition.reads for condition in conditions))
        self._codes = pa.array([rule.code for rule in self._rules], pa.string())
        self._declines = np.array([DECISIONS.index(rule.decision) for rule in self._rules], np.int8)
        self._flags = np.array([RISK_FLAGS.index(rule.risk_flag) for rule in self._rules], np.int8)
        self._plain = [(rule, [condition.of_plain() for condition in rule.when]) for rule in self._rules]
        self._risk_score_at = SCHEMA.names.index(self._risk_score_field)
        for number, example in enumerate(rules.examples, 1):
            self._prove(number, example)

    @classmethod
    def load(cls, path: Path) -> RuleSet:
        """Read a rule file. Raises ArtifactError naming it when it is missing or cannot be used."""
        try:
            return cls(path.read_bytes())
        except OSError as error:
            raise ArtifactError(f"the rule set {path} cannot be read: {error.strerror}") from error
        except ArtifactError as error:
            raise ArtifactError(f"{path}: {error}") from None

    def decide(self, transactions: pa.RecordBatch) -> Decisions:
        """Decide a batch of valid transactions (columns of `contracts.transaction.SCHEMA`)."""
        n = transactions.num_rows
        fired = np.empty((n, len(self._rules)), bool)
        decision, flag = np.zeros(n, np.int8), np.zeros(n, np.int8)
        for at, rule in enumerate(self._rules):
            holds: Mask = _all_hold(rule.when, transactions)
            fired[:, at] = holds
            np.maximum(decision, holds * self._declines[at], out=decision)
            np.maximum(flag, holds * self._flags[at], out=flag)
        ends = np.zeros(n + 1, np.int32)
        np.cumsum(fired.sum(axis=1, dtype=np.int32), out=ends[1:])
        codes = self._codes.take(pa.array(np.nonzero(fired)[1]))
        return Decisions(
            pa.array(DECISIONS).take(pa.array(decision)),
            pa.array(RISK_FLAGS).take(pa.array(flag)),
            transactions.column(self._risk_score_field),
            pa.ListArray.from_arrays(pa.array(ends), codes),
        )

    def decide_single(self, transaction: Mapping[str, Any]) -> dict[str, Any]:
        """Decide one transaction given as a dict: what checkout calls in process.

        Raises InvalidRecord when the transaction cannot be used.
        """
        values = plain_values(transaction)
        return self.decide_plain(values) if values else self.decide(transaction_batch([transaction])).plain(0)

    def decide_plain(self, values: Values) -> dict[str, Any]:
        """The same of one transaction that is beyond doubt usable, in a fiftieth of the time that columns take."""
        fired = [rule for rule, conditions in self._plain if all(holds(values) for holds in conditions)]
        return {
            "decision": max((rule.decision for rule in fired), key=DECISIONS.index, default=DECISIONS[0]),
            "risk_flag": max((rule.risk_flag for rule in fired), key=RISK_FLAGS.index, default=RISK_FLAGS[0]),
            "risk_score": float(values[self._risk_score_at]),
            "reason_codes": [rule.code for rule in fired],
        }

    def _prove(self, number: int, example: Example) -> None:
        given = example.transaction
        if unknown := [name for name in given if name not in SCHEMA.names]:
            raise ArtifactError(f"example {number}: {', '.join(unknown)} is not a field of a transaction")
        if lacking := sorted(self._reads - given.keys()):
            raise ArtifactError(f"example {number} lacks {', '.join(lacking)}, which the rules read")
        try:
            transactions = columns_from_dicts([given], pa.schema([SCHEMA.field(name) for name in given]))
        except InvalidRecord as reason:
            raise ArtifactError(f"example {number}: {reason}") from None
        came = self.decide(transactions).plain(0)
        wanted = example.model_dump(exclude={"transaction"})
        if {name: came[name] for name in wanted} != wanted:
            raise ArtifactError(f"example {number} gives {came}, and the file says {wanted}")


def _all_hold(conditions: list[Condition], transactions: pa.RecordBatch) -> Mask:
    holds = conditions[0].holds(transactions)
    for condition in conditions[1:]:
        holds = pc.and_(holds, condition.holds(transactions))
    result: Mask = holds.fill_null(False).to_numpy(zero_copy_only=False)
    return result
