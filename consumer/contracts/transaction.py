"""A transaction: which of its fields scoring reads, how a dict becomes columns, and which values can be used."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from consumer.clock import utc_now
from consumer.contracts.avro import Decoded, arrow_schema
from consumer.contracts.checks import (
    Range,
    not_negative,
    numbers_out_of_range,
    texts_of_wrong_length,
    times_out_of_range,
    without,
)
from consumer.contracts.dicts import Dicts, milliseconds
from consumer.contracts.schemas import latest
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


@dataclass(frozen=True)
class Limits:
    """What a record may look like to be let in; None does not ask when it happened."""

    max_future_seconds: int | None = None
    max_age_days: int | None = None
    max_text_bytes: int = 256

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        return cls(settings.event_max_future_seconds, settings.event_max_age_days, settings.string_max_bytes)


_WHENEVER = Limits()

RANGES = (
    not_negative("amount"),
    replace(not_negative("risk_score"), high=1.0, above=("out_of_range", "risk_score is above 1")),
    not_negative("payment_credit_limit"),
    not_negative("customer_tenure_days"),
    not_negative("price_comparison_time"),
    Range("installment_count", 1.0, ("out_of_range", "installment_count is below 1")),
)
OPTIONAL_RANGES = (
    Range(
        "approval_propensity",
        0.0,
        ("out_of_range", "approval_propensity is not within 0 and 1"),
        1.0,
        ("out_of_range", "approval_propensity is not within 0 and 1"),
    ),
)
_CHECKED_TEXT = (*_TEXT, "business_decision")
IDS = ("transaction_id", "customer_id")
"""Texts that must not be empty."""


def refuse_impossible(decoded: Decoded, limits: Limits, now: datetime | None = None) -> Decoded:
    """Keep the rows whose values can be scored; the others are added to `rejected` with their first fault.

    `decoded.batch` has the columns of SCHEMA. An unknown category is not a fault.
    """
    batch = decoded.batch
    if not batch.num_rows:
        return decoded
    faults = [
        *numbers_out_of_range(batch, RANGES),
        *numbers_out_of_range(batch, OPTIONAL_RANGES),
        *times_out_of_range(
            batch, "transaction_timestamp", limits.max_future_seconds, limits.max_age_days, now or utc_now()
        ),
        *texts_of_wrong_length(batch, _CHECKED_TEXT, IDS, limits.max_text_bytes),
    ]
    return without(decoded, faults)


def columns_from_dicts(transactions: Sequence[Mapping[str, Any]], schema: pa.Schema = SCHEMA) -> pa.RecordBatch:
    """JSON-like dicts as columns of `schema` (SCHEMA or EVENT_SCHEMA); fields it does not name are ignored.

    `transaction_timestamp` may be ISO 8601 text (UTC when it names no zone), a datetime or milliseconds since 1970.
    Raises InvalidRecord when a required field is missing or a value has the wrong type.
    """
    reader = _SCHEMA_DICTS if schema is SCHEMA else _dicts(schema)
    return reader.columns(transactions)


@lru_cache(maxsize=16)
def _dicts(schema: pa.Schema) -> Dicts:
    return Dicts(schema, latest("transaction").schema)


_SCHEMA_DICTS = _dicts(SCHEMA)


def transaction_batch(transactions: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    """Dicts as columns of SCHEMA, ready to score, whenever they happened.

    Raises InvalidRecord for the first transaction that cannot be used.
    """
    batch = columns_from_dicts(transactions)
    checked = refuse_impossible(Decoded(batch, np.arange(batch.num_rows)), _WHENEVER)
    if checked.rejected:
        raise min(checked.rejected, key=lambda bad: bad.position).reason
    return batch


def plain_values(transaction: Mapping[str, Any], limits: Limits = _WHENEVER) -> list[Any] | None:
    """The values of SCHEMA's fields where they are beyond doubt usable, in a tenth of the time that columns take.

    None for anything less usual, also for what cannot be used: columns then decide (`refuse_impossible`), and say why.
    """
    values: list[Any] = [transaction.get(name) for name in _SCHEMA_DICTS.names]
    values[_TIMESTAMP] = milliseconds("transaction_timestamp", values[_TIMESTAMP])
    if tuple(map(type, values)) not in _SCHEMA_DICTS.good:
        return None
    if limits is not _WHENEVER and not _beyond_doubt(values[_TIMESTAMP], limits):
        return None
    for at, low, high in _PLAIN_NUMBERS:
        if values[at] is not None and not low <= values[at] <= high:
            return None
    for at in _PLAIN_TEXTS:
        if values[at] is not None and not (0 < len(values[at]) <= _PLAIN_TEXT_LENGTH and values[at].isascii()):
            return None
    return values


def _beyond_doubt(timestamp: int, limits: Limits) -> bool:
    """Whether a time is well within the limits, and they let in every text that `plain_values` does."""
    since = time.time() - timestamp / 1000
    newest = -math.inf if limits.max_future_seconds is None else 1 - limits.max_future_seconds
    oldest = math.inf if limits.max_age_days is None else limits.max_age_days * 86_400 - 1
    return limits.max_text_bytes >= _PLAIN_TEXT_LENGTH and newest < since < oldest


_TIMESTAMP = SCHEMA.names.index("transaction_timestamp")
_PLAIN_NUMBERS = [
    (SCHEMA.names.index(each.name), each.low, min(each.high, 2.0**31 - 1)) for each in (*RANGES, *OPTIONAL_RANGES)
] + [(_TIMESTAMP, -(2**53), 2**53)]
_PLAIN_TEXTS = [at for at, each in enumerate(SCHEMA) if each.type == pa.string()]
_PLAIN_TEXT_LENGTH = 64
