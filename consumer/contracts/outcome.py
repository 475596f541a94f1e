"""An outcome: what became of a transaction within one label horizon, and which of them can be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from consumer.clock import utc_now
from consumer.contracts.avro import Decoded, arrow_schema
from consumer.contracts.checks import (
    Fault,
    Range,
    found,
    not_negative,
    numbers_out_of_range,
    texts_of_wrong_length,
    times_out_of_range,
    without,
)
from consumer.contracts.dicts import Dicts
from consumer.contracts.horizons import Horizons
from consumer.contracts.schemas import latest
from consumer.contracts.transaction import Limits

FIELDS = tuple(latest("outcome").schema["fields"])
SCHEMA = arrow_schema(latest("outcome").schema)
"""An outcome's columns. Times are int64 milliseconds since 1970 UTC."""

RANGES = (
    Range("days_to_resolution", 0.0, ("before_transaction", "days_to_resolution lies before the transaction")),
    not_negative("loss_amount"),
    not_negative("version"),
)
_TEXT = ("transaction_id", "label", "source")
IDS = ("transaction_id", "source")
"""Texts that must not be empty."""
_DICTS = Dicts(SCHEMA, latest("outcome").schema)


def refuse_impossible(decoded: Decoded, horizons: Horizons, limits: Limits, now: datetime | None = None) -> Decoded:
    """Keep the rows that can be stored; the others are added to `rejected` with their first fault.

    `decoded.batch` has the columns of SCHEMA.
    """
    batch = decoded.batch
    if not batch.num_rows:
        return decoded
    faults = [
        *_unknown_horizons(batch, horizons),
        *numbers_out_of_range(batch, RANGES),
        *times_out_of_range(batch, "observed_at", limits.max_future_seconds, limits.max_age_days, now or utc_now()),
        *_known_too_early(batch),
        *texts_of_wrong_length(batch, _TEXT, IDS, limits.max_text_bytes),
    ]
    return without(decoded, faults)


def columns_from_dicts(outcomes: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    """JSON-like dicts as columns of SCHEMA; fields it does not name are ignored.

    A time may be ISO 8601 text (UTC when it names no zone), a datetime or milliseconds since 1970. Raises InvalidRecord
    when a required field is missing or a value has the wrong type.
    """
    return _DICTS.columns(outcomes)


def _unknown_horizons(batch: pa.RecordBatch, horizons: Horizons) -> list[Fault]:
    known = pc.is_in(batch.column("label"), value_set=pa.array(horizons.labels))
    message = f"label is none of the horizons of {horizons.version}: {', '.join(horizons.labels)}"
    return found([("label", ("unknown_horizon", message), ~known.to_numpy(zero_copy_only=False))])


def _known_too_early(batch: pa.RecordBatch) -> list[Fault]:
    early = pc.less(batch.column("observed_at"), batch.column("transaction_timestamp")).fill_null(False)
    message = "observed_at lies before the transaction"
    return found([("observed_at", ("before_transaction", message), early.to_numpy(zero_copy_only=False))])
