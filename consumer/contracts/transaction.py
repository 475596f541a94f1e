"""A transaction: which of its fields scoring reads, how a dict becomes columns, and which values can be used."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from consumer.clock import utc_now
from consumer.contracts.avro import Decoded, Rejected, arrow_schema, scalar
from consumer.contracts.schemas import latest
from consumer.errors import InvalidRecord
from consumer.settings import Settings

_ALL_FIELDS = {each["name"]: each for each in latest("transaction").schema["fields"]}
REQUIRED = tuple(name for name, each in _ALL_FIELDS.items() if "default" not in each)
PASSED_ON = ("business_decision", "approval_propensity")
"""Optional fields that the shadow event repeats, because evaluation needs them."""
FIELDS = tuple(_ALL_FIELDS[name] for name in (*REQUIRED, *PASSED_ON))
"""What scoring reads of a transaction, as Avro fields; everything else a writer sends is left alone."""
SCHEMA = arrow_schema({**latest("transaction").schema, "fields": FIELDS})
"""The same as columns. `transaction_timestamp` is int64 milliseconds since 1970 UTC."""
EVENT_SCHEMA = arrow_schema(latest("transaction").schema)
"""Every field of a transaction event as columns: what a producer sends."""

_TEXT = tuple(name for name in REQUIRED if SCHEMA.field(name).type == pa.string())
_INTS = {name for name, each in _ALL_FIELDS.items() if (scalar(each["type"]) or "")[:1] == ("int",)}
_MILLISECONDS_A_DAY = 86_400_000
_PYTHON_TYPES: dict[pa.DataType, set[type]] = {
    pa.string(): {str},
    pa.bool_(): {bool},
    pa.int64(): {int},
    pa.float64(): {int, float},
}

_GOOD_TYPES_KEPT = 1000
_Fault = tuple[tuple[str, str], npt.NDArray[np.bool_]]
"""(error, message), and a mask of the rows that have it."""


@dataclass(frozen=True)
class Limits:
    """What a transaction may look like to be let in; None does not ask when it happened."""

    max_future_seconds: int | None = None
    max_age_days: int | None = None
    max_text_bytes: int = 256

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        return cls(settings.event_max_future_seconds, settings.event_max_age_days, settings.string_max_bytes)


@dataclass(frozen=True)
class _Range:
    """What a number may be, and the (error, message) of one that is below or above; not finite is never allowed."""

    name: str
    low: float
    below: tuple[str, str]
    high: float = sys.float_info.max
    above: tuple[str, str] = ("", "")


def _not_negative(name: str) -> _Range:
    return _Range(name, 0.0, ("negative", f"{name} is negative"))


_RANGES = (
    _not_negative("amount"),
    replace(_not_negative("risk_score"), high=1.0, above=("out_of_range", "risk_score is above 1")),
    _not_negative("payment_credit_limit"),
    _not_negative("customer_tenure_days"),
    _not_negative("price_comparison_time"),
    _Range("installment_count", 1.0, ("out_of_range", "installment_count is below 1")),
)
_OPTIONAL_RANGES = (
    _Range(
        "approval_propensity",
        0.0,
        ("out_of_range", "approval_propensity is not within 0 and 1"),
        1.0,
        ("out_of_range", "approval_propensity is not within 0 and 1"),
    ),
)
_CHECKED_TEXT = (*_TEXT, "business_decision")


def refuse_impossible(decoded: Decoded, limits: Limits, now: datetime | None = None) -> Decoded:
    """Keep the rows whose values can be scored; the others are added to `rejected` with their first fault.

    `decoded.batch` has the columns of SCHEMA. An unknown category is not a fault.
    """
    batch = decoded.batch
    if not batch.num_rows:
        return decoded
    faults = [
        *_numbers_out_of_range(batch, _RANGES),
        *_optional_out_of_range(batch),
        *_times_out_of_range(batch, limits, now or utc_now()),
        *_texts_of_wrong_length(batch, limits),
    ]
    if not faults:
        return decoded
    keep = np.ones(batch.num_rows, bool)
    rejected = list(decoded.rejected)
    for (error, message), bad in faults:
        reason = InvalidRecord(error, message)
        rejected.extend(Rejected(int(at), reason, "validate") for at in decoded.positions[keep & bad])
        keep &= ~bad
    return Decoded(batch.filter(pa.array(keep)), decoded.positions[keep], rejected)


def matrix(batch: pa.RecordBatch, names: Sequence[str]) -> npt.NDArray[np.float64]:
    """N×len(names) of number columns, by column; a null is NaN. Much less work than a column at a time."""
    positions = [batch.schema.get_field_index(name) for name in names]
    numbers = batch.select(positions).to_tensor(null_to_nan=True, row_major=False).to_numpy()
    result: npt.NDArray[np.float64] = numbers.astype(np.float64, copy=False)
    return result


def _numbers_out_of_range(batch: pa.RecordBatch, ranges: Sequence[_Range]) -> list[_Fault]:
    numbers = matrix(batch, [each.name for each in ranges])
    low, high = np.array([(each.low, each.high) for each in ranges]).T
    if ((numbers >= low) & (numbers <= high)).all():
        return []
    faults: list[_Fault] = []
    for each, values in zip(ranges, numbers.T, strict=True):
        given = batch.column(each.name).is_valid().to_numpy(zero_copy_only=False)
        faults += [
            (("not_finite", f"{each.name} is not a finite number"), ~np.isfinite(values) & given),
            (each.below, values < each.low),
            (each.above, values > each.high),
        ]
    return [(reason, bad) for reason, bad in faults if bad.any()]


def _optional_out_of_range(batch: pa.RecordBatch) -> list[_Fault]:
    given = [each for each in _OPTIONAL_RANGES if batch.column(each.name).null_count < batch.num_rows]
    return _numbers_out_of_range(batch, given) if given else []


def _times_out_of_range(batch: pa.RecordBatch, limits: Limits, now: datetime) -> list[_Fault]:
    if limits.max_future_seconds is None and limits.max_age_days is None:
        return []
    timestamps, today = batch.column("transaction_timestamp").to_numpy(), int(now.timestamp() * 1000)
    faults: list[_Fault] = []
    if limits.max_future_seconds is not None:
        newest = today + limits.max_future_seconds * 1000
        faults.append((("in_the_future", "transaction_timestamp lies in the future"), timestamps > newest))
    if limits.max_age_days is not None:
        oldest = today - limits.max_age_days * _MILLISECONDS_A_DAY
        too_old = ("too_old", f"transaction_timestamp is over {limits.max_age_days} days old")
        faults.append((too_old, timestamps < oldest))
    return [(reason, bad) for reason, bad in faults if bad.any()]


def _texts_of_wrong_length(batch: pa.RecordBatch, limits: Limits) -> list[_Fault]:
    texts = pa.chunked_array([batch.column(name) for name in _CHECKED_TEXT])
    lengths = pc.call_function("binary_length", [texts]).drop_null().to_numpy()
    if lengths.min() > 0 and lengths.max() <= limits.max_text_bytes:
        return []
    faults: list[_Fault] = []
    for name in _CHECKED_TEXT:
        bytes_long = pc.binary_length(batch.column(name)).fill_null(1).to_numpy()
        too_long = ("oversized", f"{name} is longer than {limits.max_text_bytes} bytes")
        faults.append((too_long, bytes_long > limits.max_text_bytes))
        if name in ("transaction_id", "customer_id"):
            faults.append((("empty_id", f"{name} is empty"), bytes_long == 0))
    return [(reason, bad) for reason, bad in faults if bad.any()]


def columns_from_dicts(transactions: Sequence[Mapping[str, Any]], schema: pa.Schema = SCHEMA) -> pa.RecordBatch:
    """JSON-like dicts as columns of `schema` (SCHEMA or EVENT_SCHEMA); fields it does not name are ignored.

    `transaction_timestamp` may be ISO 8601 text (UTC when it names no zone), a datetime or milliseconds since 1970.
    Raises InvalidRecord when a required field is missing or a value has the wrong type.
    """
    reader = _SCHEMA_DICTS if schema is SCHEMA else _dicts(schema)
    if "transaction_timestamp" in reader.names:
        transactions = [
            {**each, "transaction_timestamp": _milliseconds(each.get("transaction_timestamp"))} for each in transactions
        ]
    return reader.columns(transactions)


class _Dicts:
    """Turns dicts into columns of one schema, strictly: Arrow alone would take 1 for "1" or True for 1."""

    def __init__(self, schema: pa.Schema) -> None:
        self.names = schema.names
        self._schema = schema
        self._row = pa.struct(list(schema))
        self._ints = [at for at, name in enumerate(schema.names) if name in _INTS]
        self._types = [_PYTHON_TYPES[each.type] | ({type(None)} if each.nullable else set()) for each in schema]
        self.good: set[tuple[type, ...]] = set()
        """Types of whole rows that were found right: most rows are like others, and need one look."""

    def columns(self, transactions: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
        """Raises InvalidRecord for the first value that is missing, of the wrong type or too large."""
        rows = [tuple([transaction.get(name) for name in self.names]) for transaction in transactions]
        for row in rows:
            types = tuple(map(type, row))
            if types not in self.good:
                self._check(types)
            for at in self._ints:
                number = row[at]
                if number is not None and not -(2**31) <= number < 2**31:
                    raise InvalidRecord("out_of_range", f"field {self.names[at]} does not fit an int")
        try:
            return pa.RecordBatch.from_struct_array(pa.array(rows, self._row))
        except (pa.ArrowException, ValueError, OverflowError):
            raise InvalidRecord("out_of_range", self._what_does_not_fit(rows)) from None

    def _check(self, types: tuple[type, ...]) -> None:
        for field, found, allowed in zip(self._schema, types, self._types, strict=True):
            if found not in allowed and found is type(None):
                raise InvalidRecord("missing_field", f"field {field.name} is missing")
            if found not in allowed:
                raise InvalidRecord("wrong_type", f"field {field.name} is not a {field.type}")
        if len(self.good) < _GOOD_TYPES_KEPT:
            self.good.add(types)

    def _what_does_not_fit(self, rows: list[tuple[Any, ...]]) -> str:
        for at, each in enumerate(self._schema):
            try:
                pa.array([row[at] for row in rows], each.type)
            except (pa.ArrowException, ValueError, OverflowError):
                return f"field {each.name} does not fit a {each.type}"
        return "a field does not fit its type"


_dicts = lru_cache(maxsize=16)(_Dicts)
_SCHEMA_DICTS = _dicts(SCHEMA)


def transaction_batch(transactions: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    """Dicts as columns of SCHEMA, ready to score, whenever they happened.

    Raises InvalidRecord for the first transaction that cannot be used.
    """
    batch = columns_from_dicts(transactions)
    checked = refuse_impossible(Decoded(batch, np.arange(batch.num_rows)), Limits())
    if checked.rejected:
        raise min(checked.rejected, key=lambda bad: bad.position).reason
    return batch


def plain_values(transaction: Mapping[str, Any]) -> list[Any] | None:
    """The values of SCHEMA's fields where they are beyond doubt usable, in a tenth of the time that columns take.

    None for anything less usual, also for what cannot be used: `transaction_batch` then decides, and says why.
    """
    values: list[Any] = [transaction.get(name) for name in _SCHEMA_DICTS.names]
    values[_TIMESTAMP] = _milliseconds(values[_TIMESTAMP])
    if tuple(map(type, values)) not in _SCHEMA_DICTS.good:
        return None
    for at, low, high in _PLAIN_NUMBERS:
        if values[at] is not None and not low <= values[at] <= high:
            return None
    for at in _PLAIN_TEXTS:
        if values[at] is not None and not (0 < len(values[at]) <= _PLAIN_TEXT_LENGTH and values[at].isascii()):
            return None
    return values


_TIMESTAMP = SCHEMA.names.index("transaction_timestamp")
_PLAIN_NUMBERS = [
    (SCHEMA.names.index(each.name), each.low, min(each.high, 2.0**31 - 1)) for each in (*_RANGES, *_OPTIONAL_RANGES)
] + [(_TIMESTAMP, -(2**53), 2**53)]
_PLAIN_TEXTS = [at for at, each in enumerate(SCHEMA) if each.type == pa.string()]
_PLAIN_TEXT_LENGTH = 64


def _milliseconds(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise InvalidRecord("wrong_type", "field transaction_timestamp is not an ISO 8601 time") from None
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        try:
            return round(aware.timestamp() * 1000)
        except ValueError:  # pandas' NaT is a datetime
            raise InvalidRecord("wrong_type", "field transaction_timestamp is not a time") from None
    return value
