"""Which outcomes are let in: every impossible one is refused by name, and its neighbours stay."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from consumer.contracts.avro import Decoded
from consumer.contracts.events import EventReader, EventWriter
from consumer.contracts.horizons import Horizons
from consumer.contracts.outcome import FIELDS, SCHEMA, columns_from_dicts, refuse_impossible
from consumer.contracts.schemas import WriterSchemas, latest
from consumer.contracts.transaction import Limits
from consumer.errors import InvalidRecord
from consumer.settings import Settings

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
DAY = 86_400_000
LIMITS = Limits(max_future_seconds=300, max_age_days=1825, max_text_bytes=256)
HORIZONS = Horizons.load(Settings().horizons_file)


def outcome(**changes: Any) -> dict[str, Any]:
    """A valid outcome, with fields changed; `...` removes a field."""
    told = {
        "transaction_id": "t-1",
        "label": "d28",
        "defaulted": True,
        "days_to_resolution": 14,
        "loss_amount": 90.5,
        "observed_at": NOW_MS,
        "source": "ledger",
        "version": 1,
        "transaction_timestamp": NOW_MS - 30 * DAY,
        **changes,
    }
    return {name: value for name, value in told.items() if value is not ...}


def checked(*changes: dict[str, Any]) -> Decoded:
    """Whatever the values: not as a producer's dicts would be held to."""
    batch = pa.RecordBatch.from_pylist([outcome() | change for change in changes], SCHEMA)
    return refuse_impossible(Decoded(batch, np.arange(len(changes)) * 10), HORIZONS, LIMITS, NOW)


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"label": "d30"}, "unknown_horizon", "first_payment, d28, d42, full_term"),
        ({"label": ""}, "unknown_horizon", "label"),
        ({"days_to_resolution": -1}, "before_transaction", "days_to_resolution"),
        ({"observed_at": NOW_MS - 30 * DAY - 1}, "before_transaction", "observed_at"),
        ({"loss_amount": -0.01}, "negative", "loss_amount"),
        ({"loss_amount": math.nan}, "not_finite", "loss_amount"),
        ({"loss_amount": math.inf}, "not_finite", "loss_amount"),
        ({"version": -1}, "negative", "version"),
        ({"observed_at": NOW_MS + 300_001}, "in_the_future", "observed_at"),
        ({"observed_at": NOW_MS - 1825 * DAY - 1, "transaction_timestamp": None}, "too_old", "observed_at"),
        ({"transaction_id": ""}, "empty_id", "transaction_id"),
        ({"source": ""}, "empty_id", "source"),
        ({"transaction_id": "é" * 129}, "oversized", "transaction_id"),
        ({"source": "é" * 129}, "oversized", "source"),
    ],
    ids=repr,
)
def test_an_impossible_outcome_is_refused_by_name_and_its_neighbours_stay(
    change: dict[str, Any], error: str, told: str
) -> None:
    result = checked({"transaction_id": "a"}, change, {"transaction_id": "b"})
    assert result.batch.column("transaction_id").to_pylist() == ["a", "b"]
    assert result.positions.tolist() == [0, 20]
    (bad,) = result.rejected
    assert (bad.position, bad.reason.error, bad.stage) == (10, error, "validate")
    assert told in str(bad.reason)


@pytest.mark.parametrize(
    "change",
    [
        {"days_to_resolution": 0, "loss_amount": 0.0, "version": 0},
        {"days_to_resolution": None, "loss_amount": None, "transaction_timestamp": None},
        {"observed_at": NOW_MS + 300_000},
        {"observed_at": NOW_MS - 30 * DAY},
        {"observed_at": NOW_MS - 1825 * DAY, "transaction_timestamp": None},
        {"transaction_id": "é" * 128},
        {"defaulted": False, "label": "full_term"},
    ],
    ids=repr,
)
def test_the_edge_of_what_is_possible_is_let_in(change: dict[str, Any]) -> None:
    assert checked(change).rejected == []


def test_an_outcome_with_several_faults_is_refused_once_for_the_first() -> None:
    (bad,) = checked({"label": "never", "loss_amount": -1.0, "transaction_id": ""}).rejected
    assert bad.reason.error == "unknown_horizon"


def test_nothing_is_refused_of_nothing() -> None:
    nothing = Decoded(pa.RecordBatch.from_pylist([], SCHEMA), np.empty(0, np.int64))
    assert refuse_impossible(nothing, HORIZONS, LIMITS, NOW) is nothing


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"defaulted": 1}, "wrong_type"),
        ({"defaulted": "true"}, "wrong_type"),
        ({"defaulted": None}, "missing_field"),
        ({"defaulted": ...}, "missing_field"),
        ({"days_to_resolution": 14.5}, "wrong_type"),
        ({"days_to_resolution": 2**31}, "out_of_range"),
        ({"version": 2**63}, "out_of_range"),
        ({"version": True}, "wrong_type"),
        ({"observed_at": "yesterday"}, "wrong_type"),
        ({"observed_at": ...}, "missing_field"),
        ({"transaction_timestamp": "yesterday"}, "wrong_type"),
        ({"source": 7}, "wrong_type"),
    ],
    ids=repr,
)
def test_a_dict_of_another_shape_is_no_outcome(change: dict[str, Any], error: str) -> None:
    (field,) = change
    with pytest.raises(InvalidRecord, match=field) as refused:
        columns_from_dicts([outcome(), outcome(**change)])
    assert refused.value.error == error


def test_times_may_be_told_as_text_and_what_may_be_absent_may_be_left_out() -> None:
    told = outcome(observed_at="2026-06-15T14:00:00+02:00", transaction_timestamp="2026-06-01T00:00:00.5")
    bare = outcome(days_to_resolution=..., loss_amount=..., transaction_timestamp=...)
    rows = columns_from_dicts([told, bare]).to_pylist()
    assert rows[0]["observed_at"] == NOW_MS
    assert rows[0]["transaction_timestamp"] == int(datetime(2026, 6, 1, tzinfo=UTC).timestamp() * 1000) + 500
    assert [rows[1][name] for name in ("days_to_resolution", "loss_amount", "transaction_timestamp")] == [None] * 3


def test_what_is_written_is_read_again() -> None:
    batch = columns_from_dicts([outcome(), outcome(defaulted=False, loss_amount=None, days_to_resolution=None)])
    values = EventWriter("outcome", latest("outcome").header).write(batch)
    read = EventReader(WriterSchemas("outcome"), FIELDS).read([*values, b"rubbish"])
    assert read.batch.to_pylist() == batch.to_pylist()
    assert [bad.reason.error for bad in read.rejected] == ["unknown_framing"]
