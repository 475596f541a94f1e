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
    _Range(
        "approval_propensity",
        0.0,
        ("out_of_range", "approval_propensity is not within 0 and 1"),
        1.0,
        ("out_of_range", "approval_propensity is not within 0 and 1"),
    ),
)
_LOWEST, _HIGHEST = np.array([(each.low, each.high) for each in _RANGES]).T[..., None]
_CHECKED_TEXT = (*_TEXT, "business_decision")


def refuse_impossible(decoded: Decoded, limits: Limits, now: datetime | None = None) -> Decoded:
    """Keep the rows whose values can be scored; the others are added to `rejected` with their first fault.

    `decoded.batch` has the columns of SCHEMA. An unknown category is not a fault.
    """
    batch = decoded.batch
    if not batch.num_rows:
        return decoded
    faults = [
        *_numbers_out_of_range(batch),
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


def _numbers_out_of_range(batch: pa.RecordBatch) -> list[_Fault]:
    numbers = np.empty((len(_RANGES), batch.num_rows))
    for row, each in enumerate(_RANGES):
        column = batch.column(each.name)
        numbers[row] = (column.fill_null(0.0) if column.null_count else column).to_numpy()
    if ((numbers >= _LOWEST) & (numbers <= _HIGHEST)).all():
        return []
    faults: list[_Fault] = []
    for each, values in zip(_RANGES, numbers, strict=True):
        faults += [
            (("not_finite", f"{each.name} is not a finite number"), ~np.isfinite(values)),
            (each.below, values < each.low),
            (each.above, values > each.high),
        ]
    return [(reason, bad) for reason, bad in faults if bad.any()]


def _times_out_of_range(batch: pa.RecordBatch, limits: Limits, now: datetime) -> list[_Fault]:
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
    extremes = pc.min_max(pc.binary_length(pa.chunked_array([batch.column(name) for name in _CHECKED_TEXT])))
    if extremes["min"].as_py() > 0 and extremes["max"].as_py() <= limits.max_text_bytes:
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
    shape, fields = _SHAPE if schema is SCHEMA else _shape(schema)
    if "transaction_timestamp" in schema.names:
        transactions = [
            {**each, "transaction_timestamp": _milliseconds(each.get("transaction_timestamp"))} for each in transactions
        ]
    for name, kind, types, is_int in fields:
        values = [transaction.get(name) for transaction in transactions]
        found = set(map(type, values))
        if not found <= types:
            if type(None) in found and type(None) not in types:
                raise InvalidRecord("missing_field", f"field {name} is missing")
            raise InvalidRecord("wrong_type", f"field {name} is not a {kind}")
        if is_int and not all(value is None or -(2**31) <= value < 2**31 for value in values):
            raise InvalidRecord("out_of_range", f"field {name} does not fit an int")
    try:
        return pa.RecordBatch.from_struct_array(pa.array(transactions, shape))
    except (pa.ArrowException, ValueError, OverflowError):
        raise InvalidRecord("out_of_range", _what_does_not_fit(transactions, schema)) from None


@lru_cache(maxsize=16)
def _shape(schema: pa.Schema) -> tuple[pa.DataType, list[tuple[str, str, set[type], bool]]]:
    """A row as one struct; and of each field: name, type as text, Python types, whether it is an Avro int."""
    return pa.struct(list(schema)), [
        (
            each.name,
            str(each.type),
            _PYTHON_TYPES[each.type] | ({type(None)} if each.nullable else set()),
            each.name in _INTS,
        )
        for each in schema
    ]


_SHAPE = _shape(SCHEMA)


def _what_does_not_fit(transactions: Sequence[Mapping[str, Any]], schema: pa.Schema) -> str:
    for each in schema:
        try:
            pa.array([transaction.get(each.name) for transaction in transactions], each.type)
        except (pa.ArrowException, ValueError, OverflowError):
            return f"field {each.name} does not fit a {each.type}"
    return "a field does not fit its type"


def transaction_batch(transactions: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    """Dicts as columns of SCHEMA, ready to score, whenever they happened.

    Raises InvalidRecord for the first transaction that cannot be used.
    """
    batch = columns_from_dicts(transactions)
    checked = refuse_impossible(Decoded(batch, np.arange(batch.num_rows)), Limits())
    if checked.rejected:
        raise min(checked.rejected, key=lambda bad: bad.position).reason
    return batch


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
