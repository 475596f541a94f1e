"""The rules decide as their file says, rule by rule, and a file that cannot be used is refused naming the fault."""

from __future__ import annotations

import gzip
import hashlib
import json
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import Transaction, examples, transaction

from consumer.contracts.transaction import columns_from_dicts, transaction_batch
from consumer.errors import ArtifactError, InvalidRecord
from consumer.scoring.rules import DECISIONS, RISK_FLAGS, Decisions, RuleSet
from consumer.settings import PROJECT

SHIPPED = PROJECT / "artifacts" / "rules" / "rules_v1.json"
SHARED_DATA = PROJECT.parent / "shared" / "data" / "transactions-2026-summer.jsonl.gz"
FILE: dict[str, Any] = json.loads(SHIPPED.read_text())


def rule_set(document: dict[str, Any]) -> RuleSet:
    return RuleSet(json.dumps(document).encode())


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(SHIPPED.read_text())
    change(document)
    return document


def with_condition(**condition: Any) -> dict[str, Any]:
    """One rule with one condition, no examples."""
    rule = {"code": "ONLY", "description": "", "decision": "decline", "risk_flag": "high", "when": [condition]}
    return FILE | {"rules": [rule], "examples": []}


def rows(decisions: Decisions) -> list[tuple[str, str, float, list[str]]]:
    columns = (decisions.decision, decisions.risk_flag, decisions.risk_score, decisions.reason_codes)
    return list(zip(*(column.to_pylist() for column in columns), strict=True))


# an interpreter of rule files, one transaction at a time

COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    ">": operator.gt,
    "in": lambda value, values: value in values,
}


def interpret(document: dict[str, Any], event: Transaction) -> tuple[str, str, float, list[str]]:
    def holds(condition: dict[str, Any]) -> bool:
        left = event.get(condition["field"])
        right = event.get(condition["other_field"]) if "other_field" in condition else condition["value"]
        return left is not None and right is not None and COMPARE[condition["op"]](left, right)

    fired = [rule for rule in document["rules"] if all(map(holds, rule["when"]))]
    return (
        max((rule["decision"] for rule in fired), key=DECISIONS.index, default="approve"),
        max((rule["risk_flag"] for rule in fired), key=RISK_FLAGS.index, default="low"),
        event["risk_score"],
        [rule["code"] for rule in fired],
    )


numbers = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
words = st.sampled_from(["poor", "good", "verified", "unverified", ""])
ORDERINGS = st.sampled_from(["<", "<=", "==", "!=", ">=", ">"])
conditions = st.one_of(
    st.fixed_dictionaries(
        {"field": st.sampled_from(["amount", "risk_score", "installment_count"]), "op": ORDERINGS, "value": numbers}
    ),
    st.fixed_dictionaries(
        {
            "field": st.just("amount"),
            "op": ORDERINGS,
            "other_field": st.sampled_from(["risk_score", "installment_count"]),
        }
    ),
    st.fixed_dictionaries(
        {"field": st.sampled_from(["risk_level", "business_decision"]), "op": ORDERINGS, "value": words}
    ),
    st.fixed_dictionaries({"field": st.just("risk_level"), "op": st.just("in"), "value": st.lists(words, max_size=3)}),
    st.fixed_dictionaries(
        {"field": st.just("device_is_trusted"), "op": st.sampled_from(["==", "!="]), "value": st.booleans()}
    ),
)
rules = st.lists(
    st.fixed_dictionaries(
        {
            "description": st.just(""),
            "decision": st.sampled_from(DECISIONS),
            "risk_flag": st.sampled_from(RISK_FLAGS),
            "when": st.lists(conditions, min_size=1, max_size=3),
        }
    ),
    min_size=1,
    max_size=5,
).map(lambda drawn: [{"code": f"R{at}", **rule} for at, rule in enumerate(drawn)])
events = st.builds(
    transaction,
    amount=numbers,
    risk_score=numbers,
    installment_count=st.integers(1, 2),
    risk_level=words,
    business_decision=st.one_of(st.none(), words),
    device_is_trusted=st.booleans(),
)


@given(rules=rules, batch=st.lists(events, max_size=8))
@examples(200)
def test_a_batch_is_decided_as_an_interpreter_decides_each_transaction(
    rules: list[dict[str, Any]], batch: list[Transaction]
) -> None:
    document = FILE | {"rules": rules, "examples": []}
    decisions = rule_set(document).decide(transaction_batch(batch))
    assert rows(decisions) == [interpret(document, event) for event in batch]


def test_a_slice_of_a_batch_is_decided_as_it_is_in_the_whole() -> None:
    batch = transaction_batch([transaction(risk_score=at / 20, amount=200.0 * at) for at in range(20)])
    shipped = RuleSet.load(SHIPPED)
    assert rows(shipped.decide(batch.slice(7, 9))) == rows(shipped.decide(batch))[7:16]


# the shipped file


def test_the_shipped_rules_are_proved_by_their_own_examples() -> None:
    shipped = RuleSet.load(SHIPPED)
    assert shipped.version == "rules_v1"
    assert shipped.sha256 == hashlib.sha256(SHIPPED.read_bytes()).hexdigest()
    assert len(FILE["examples"]) >= len(FILE["rules"])


@pytest.mark.parametrize(
    ("change", "decision", "flag", "codes"),
    [
        ({}, "approve", "low", []),
        ({"risk_score": 0.29}, "approve", "low", []),
        ({"risk_score": 0.3}, "approve", "medium", ["RISK_SCORE_ELEVATED"]),
        ({"risk_score": 0.52}, "approve", "high", ["RISK_SCORE_HIGH", "RISK_SCORE_ELEVATED"]),
        ({"risk_score": 0.62}, "decline", "high", ["RISK_SCORE_TOO_HIGH", "RISK_SCORE_HIGH", "RISK_SCORE_ELEVATED"]),
        ({"amount": 2000.0}, "approve", "low", []),
        ({"amount": 2000.01}, "decline", "medium", ["OVER_CREDIT_LIMIT"]),
        ({"customer_verification_level": "unverified"}, "approve", "low", []),
        ({"risk_level": "never seen", "device_type": ""}, "approve", "low", []),
    ],
    ids=repr,
)
def test_the_shipped_rules_decide_at_their_edges(
    change: Transaction, decision: str, flag: str, codes: list[str]
) -> None:
    event = transaction(**change)
    assert RuleSet.load(SHIPPED).decide_single(event) == {
        "decision": decision,
        "risk_flag": flag,
        "risk_score": event["risk_score"],
        "reason_codes": codes,
    }


def test_a_transaction_that_cannot_be_used_is_told_to_checkout() -> None:
    with pytest.raises(InvalidRecord, match="amount"):
        RuleSet.load(SHIPPED).decide_single(transaction(amount=float("nan")))


@pytest.mark.skipif(not SHARED_DATA.exists(), reason=f"{SHARED_DATA.name} is not on this machine")
def test_on_the_shared_data_the_shipped_rules_flag_decline_and_discriminate_as_promised() -> None:
    with gzip.open(SHARED_DATA) as lines:
        events = [orjson.loads(line) for line in lines]
    decisions = RuleSet.load(SHIPPED).decide(columns_from_dicts(events))
    defaulted = np.array([event["will_default"] for event in events])
    flags = decisions.risk_flag.to_numpy(zero_copy_only=False)
    high, low = flags == "high", flags == "low"
    assert 0.03 <= high.mean() <= 0.10
    assert pc.mean(pc.equal(decisions.decision, "decline")).as_py() < 0.06
    assert 2.2 <= defaulted[high].mean() / defaulted[low].mean() <= 3.5


# files that cannot be used


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        (changed(lambda file: file.pop("version")), "version: Field required"),
        (changed(lambda file: file.update(version="")), "version"),
        (changed(lambda file: file.update(effective_from="soon")), "effective_from"),
        (changed(lambda file: file.update(surprise=1)), "surprise"),
        (changed(lambda file: file.update(rules=[])), "rules"),
        (changed(lambda file: file.update(risk_score_field="amount")), "risk_score_field"),
        (changed(lambda file: file["rules"].append(file["rules"][0])), "codes are used twice: RISK_SCORE_TOO_HIGH"),
        (changed(lambda file: file["rules"][0].update(code="lower case")), "rules.0.code"),
        (changed(lambda file: file["rules"][1].update(decision="maybe")), "rules.1.decision"),
        (changed(lambda file: file["rules"][2].update(when=[])), "rules.2.when"),
        (with_condition(field="nope", op=">", value=1), "nope is not a field of a transaction"),
        (with_condition(field="amount", op=">", other_field="nope"), "nope is not a field of a transaction"),
        (with_condition(field="amount", op="~", value=1), "rules.0.when.0.op"),
        (with_condition(field="amount", op=">"), "exactly one of value and other_field"),
        (with_condition(field="amount", op=">", value=1, other_field="risk_score"), "exactly one of"),
        (with_condition(field="amount", op="in", value=1), "takes a list"),
        (with_condition(field="risk_level", op="==", value=["low"]), "takes a list"),
        (with_condition(field="amount", op=">", value="12"), "amount cannot be compared with the value '12' by >"),
        (with_condition(field="amount", op="==", value=True), "amount cannot be compared"),
        (with_condition(field="amount", op="in", value=["12"]), "amount cannot be compared"),
        (with_condition(field="risk_level", op=">", value=3), "risk_level cannot be compared"),
        (with_condition(field="risk_level", op="<", other_field="amount"), "cannot be compared with amount"),
        (with_condition(field="device_is_trusted", op="==", value=1), "device_is_trusted cannot be compared"),
        (with_condition(field="amount", op=">", value=float("nan")), "finite"),
        (with_condition(field="amount", op=">", value=float("inf")), "finite"),
        (changed(lambda file: file["examples"][0].update(decision="decline")), "example 1 gives"),
        (changed(lambda file: file["examples"][1].update(reason_codes=[])), "example 2 gives"),
        (changed(lambda file: file["examples"][0]["transaction"].pop("amount")), "example 1 lacks amount"),
        (changed(lambda file: file["examples"][0]["transaction"].update(nope=1)), "example 1: nope is not a field"),
        (changed(lambda file: file["examples"][0]["transaction"].update(amount="1")), "example 1: field amount"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_cannot_be_used_is_refused_naming_the_fault(document: dict[str, Any], fault: str) -> None:
    with pytest.raises(ArtifactError) as refused:
        rule_set(document)
    assert fault in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"], ids=repr)
def test_what_is_no_rule_file_at_all_is_refused_with_its_path(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rules.json"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"rules\.json: the rule set cannot be used"):
        RuleSet.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"gone\.json cannot be read: No such file"):
        RuleSet.load(tmp_path / "gone.json")


def test_no_transactions_give_no_decisions() -> None:
    nothing = RuleSet.load(SHIPPED).decide(transaction_batch([]))
    assert rows(nothing) == []
    assert nothing.reason_codes.type == pa.list_(pa.string())
