"""A transaction: which of its fields scoring reads, how a dict becomes columns, and which values can be used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
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


@dataclass(frozen=True)
class Limits:
    """What a transaction may look like to be let in; None does not ask when it happened."""

    max_future_seconds: int | None = None
    max_age_days: int | None = None
    max_text_bytes: int = 256

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        return cls(settings.event_max_future_seconds, settings.event_max_age_days, settings.string_max_bytes)


def refuse_impossible(decoded: Decoded, limits: Limits, now: datetime | None = None) -> Decoded:
    """Keep the rows whose values can be scored; the others are added to `rejected` with their first fault.

    `decoded.batch` has the columns of SCHEMA. An unknown category is not a fault.
    """
    batch = decoded.batch
    keep = np.ones(batch.num_rows, bool)
    rejected = list(decoded.rejected)
    for error, message, good in _checks(batch, limits, now or utc_now()):
        if not good.all():
            bad = keep & ~good
            reason = InvalidRecord(error, message)
            rejected.extend(Rejected(int(position), reason, "validate") for position in decoded.positions[bad])
            keep &= good
    if keep.all():
        return Decoded(batch, decoded.positions, rejected)
    return Decoded(batch.filter(pa.array(keep)), decoded.positions[keep], rejected)


def _checks(batch: pa.RecordBatch, limits: Limits, now: datetime) -> Iterator[tuple[str, str, npt.NDArray[np.bool_]]]:
    """(error, message, mask of the good rows)"""
    for name in ("amount", "risk_score", "payment_credit_limit"):
        numbers = batch.column(name).to_numpy()
        yield "not_finite", f"{name} is not a finite number", np.isfinite(numbers)
        yield "negative", f"{name} is negative", ~(numbers < 0)
    for name in ("customer_tenure_days", "price_comparison_time"):
        yield "negative", f"{name} is negative", batch.column(name).to_numpy() >= 0
    yield "out_of_range", "risk_score is above 1", ~(batch.column("risk_score").to_numpy() > 1)
    yield "out_of_range", "installment_count is below 1", batch.column("installment_count").to_numpy() >= 1
    timestamps = batch.column("transaction_timestamp").to_numpy()
    today = int(now.timestamp() * 1000)
    if limits.max_future_seconds is not None:
        newest = today + limits.max_future_seconds * 1000
        yield "in_the_future", "transaction_timestamp lies in the future", timestamps <= newest
    if limits.max_age_days is not None:
        oldest = today - limits.max_age_days * _MILLISECONDS_A_DAY
        yield "too_old", f"transaction_timestamp is over {limits.max_age_days} days old", timestamps >= oldest
    for name in (*_TEXT, "business_decision"):
        good = _lengths(batch.column(name)) <= limits.max_text_bytes
        yield "oversized", f"{name} is longer than {limits.max_text_bytes} bytes", good
    propensity = batch.column("approval_propensity").fill_null(0.0).to_numpy()
    yield "not_finite", "approval_propensity is not a finite number", np.isfinite(propensity)
    yield "out_of_range", "approval_propensity is not within 0 and 1", ~((propensity < 0) | (propensity > 1))
    for name in ("transaction_id", "customer_id"):
        yield "empty_id", f"{name} is empty", _lengths(batch.column(name)) > 0


def _lengths(texts: pa.Array) -> npt.NDArray[np.int32]:
    lengths: npt.NDArray[np.int32] = pc.binary_length(texts).fill_null(0).to_numpy()
    return lengths


def columns_from_dicts(transactions: Sequence[Mapping[str, Any]], schema: pa.Schema = SCHEMA) -> pa.RecordBatch:
    """JSON-like dicts as columns of `schema` (SCHEMA or EVENT_SCHEMA); fields it does not name are ignored.

    `transaction_timestamp` may be ISO 8601 text (UTC when it names no zone), a datetime or milliseconds since 1970.
    Raises InvalidRecord when a required field is missing or a value has the wrong type.
    """
    columns = []
    for each in schema:
        values = [transaction.get(each.name) for transaction in transactions]
        if each.name == "transaction_timestamp":
            values = [_milliseconds(value) for value in values]
        types = {type(value) for value in values}
        if type(None) in types:
            types.remove(type(None))
            if not each.nullable:
                raise InvalidRecord("missing_field", f"field {each.name} is missing")
        if not types <= _PYTHON_TYPES[each.type]:
            raise InvalidRecord("wrong_type", f"field {each.name} is not a {each.type}")
        if each.name in _INTS and not all(value is None or -(2**31) <= value < 2**31 for value in values):
            raise InvalidRecord("out_of_range", f"field {each.name} does not fit an int")
        try:
            columns.append(pa.array(values, each.type))
        except (pa.ArrowException, ValueError, OverflowError):
            raise InvalidRecord("out_of_range", f"field {each.name} does not fit a {each.type}") from None
    return pa.RecordBatch.from_arrays(columns, schema=schema)


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
