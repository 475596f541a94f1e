"""What is let in: every impossible value is refused by name, its neighbours stay, and no message holds a value."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import examples, transaction

from consumer.clock import utc_now
from consumer.contracts.avro import Decoded
from consumer.contracts.transaction import (
    EVENT_SCHEMA,
    REQUIRED,
    SCHEMA,
    Limits,
    columns_from_dicts,
    refuse_impossible,
    transaction_batch,
)
from consumer.errors import InvalidRecord
from consumer.settings import PROJECT, Settings

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
LIMITS = Limits(max_future_seconds=300, max_age_days=1825, max_text_bytes=256)
NOW_MS = int(NOW.timestamp() * 1000)
DAY = 86_400_000
TEXTS = [each.name for each in SCHEMA if each.type == pa.string() and not each.nullable]


def ms(when: datetime) -> int:
    return round(when.timestamp() * 1000)


def batch(*changes: dict[str, Any]) -> pa.RecordBatch:
    """Columns of transactions at NOW, with values changed whatever they are."""
    rows = [transaction(transaction_timestamp=NOW_MS) | change for change in changes]
    return pa.RecordBatch.from_pylist(rows, SCHEMA)


def checked(rows: pa.RecordBatch, limits: Limits = LIMITS) -> Decoded:
    return refuse_impossible(Decoded(rows, np.arange(rows.num_rows) * 10), limits, NOW)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"amount": math.nan}, "not_finite"),
        ({"amount": math.inf}, "not_finite"),
        ({"amount": -math.inf}, "not_finite"),
        ({"amount": -0.01}, "negative"),
        ({"risk_score": math.nan}, "not_finite"),
        ({"risk_score": -0.1}, "negative"),
        ({"risk_score": 1.0000001}, "out_of_range"),
        ({"payment_credit_limit": math.inf}, "not_finite"),
        ({"payment_credit_limit": -1.0}, "negative"),
        ({"customer_tenure_days": -1}, "negative"),
        ({"price_comparison_time": -1}, "negative"),
        ({"installment_count": 0}, "out_of_range"),
        ({"transaction_timestamp": NOW_MS + 300_001}, "in_the_future"),
        ({"transaction_timestamp": 2**63 - 1}, "in_the_future"),
        ({"transaction_timestamp": NOW_MS - 1825 * DAY - 1}, "too_old"),
        ({"transaction_timestamp": -(2**63)}, "too_old"),
        ({"transaction_timestamp": 0}, "too_old"),
        ({"transaction_id": ""}, "empty_id"),
        ({"customer_id": ""}, "empty_id"),
        ({"business_decision": "x" * 257}, "oversized"),
        ({"approval_propensity": math.nan}, "not_finite"),
        ({"approval_propensity": 1.5}, "out_of_range"),
        ({"approval_propensity": -0.5}, "out_of_range"),
        *[({name: "é" * 129}, "oversized") for name in TEXTS],
    ],
    ids=repr,
)
def test_an_impossible_value_is_refused_by_name_and_its_neighbours_stay(change: dict[str, Any], error: str) -> None:
    result = checked(batch({"transaction_id": "a"}, change, {"transaction_id": "b"}))
    assert result.batch.column("transaction_id").to_pylist() == ["a", "b"]
    assert result.positions.tolist() == [0, 20]
    (bad,) = result.rejected
    assert (bad.position, bad.reason.error, bad.stage) == (10, error, "validate")
    (name,) = change
    assert name in str(bad.reason)


@pytest.mark.parametrize(
    "change",
    [
        {"amount": 0.0},
        {"amount": -0.0},
        {"risk_score": 1.0},
        {"transaction_timestamp": NOW_MS + 300_000},
        {"transaction_timestamp": NOW_MS - 1825 * DAY},
        {"transaction_id": "é" * 128},
        {"risk_level": ""},
        {"device_type": "never seen"},
        {"business_decision": None, "approval_propensity": None},
        {"approval_propensity": 1.0},
    ],
    ids=repr,
)
def test_the_edge_of_what_is_possible_is_let_in(change: dict[str, Any]) -> None:
    assert checked(batch(change)).rejected == []


def test_a_record_with_several_faults_is_refused_once_for_the_first() -> None:
    (bad,) = checked(batch({"amount": math.nan, "transaction_id": "", "installment_count": 0})).rejected
    assert bad.reason.error == "not_finite"


def test_limits_come_from_the_settings() -> None:
    limits = Limits.of(Settings(event_max_future_seconds=1, event_max_age_days=2, string_max_bytes=3))
    assert limits == Limits(1, 2, 3)
    result = checked(batch({"transaction_timestamp": NOW_MS - 2 * DAY - 1}), limits)
    assert [bad.reason.error for bad in result.rejected] == ["too_old"]


@given(data=st.data())
@examples(120)
def test_whatever_is_let_in_is_finite_and_in_range(data: st.DataObject) -> None:
    any_of: dict[pa.DataType, st.SearchStrategy[Any]] = {
        pa.float64(): st.floats(),
        pa.int64(): st.one_of(st.integers(-2, 20), st.integers(-(2**63), 2**63 - 1), st.just(NOW_MS)),
        pa.string(): st.text(max_size=20),
        pa.bool_(): st.booleans(),
    }
    changes = data.draw(
        st.lists(
            st.dictionaries(st.sampled_from(SCHEMA.names), st.none(), max_size=3).map(list),
            min_size=1,
            max_size=5,
        )
    )
    rows = batch(*({name: data.draw(any_of[SCHEMA.field(name).type]) for name in names} for names in changes))
    result = checked(rows)
    assert sorted([*result.positions, *(bad.position for bad in result.rejected)]) == [
        10 * at for at in range(rows.num_rows)
    ]
    for row in result.batch.to_pylist():
        assert all(math.isfinite(row[name]) and row[name] >= 0 for name in ("amount", "payment_credit_limit"))
        assert 0 <= row["risk_score"] <= 1
        assert row["approval_propensity"] is None or 0 <= row["approval_propensity"] <= 1
        assert row["customer_tenure_days"] >= 0
        assert row["price_comparison_time"] >= 0
        assert row["installment_count"] >= 1
        assert NOW_MS - 1825 * DAY <= row["transaction_timestamp"] <= NOW_MS + 300_000
        assert row["transaction_id"]
        assert row["customer_id"]
        assert all(len((value or "").encode()) <= 256 for value in row.values() if isinstance(value, str))


# dicts


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [
        (1_780_000_000_000, 1_780_000_000_000),
        ("2026-06-01T00:00:39", ms(datetime(2026, 6, 1, 0, 0, 39, tzinfo=UTC))),
        ("2026-06-01T00:00:39Z", ms(datetime(2026, 6, 1, 0, 0, 39, tzinfo=UTC))),
        ("2026-06-01T02:00:39.123456+02:00", ms(datetime(2026, 6, 1, 0, 0, 39, tzinfo=UTC)) + 123),
        ("2026-06-01", ms(datetime(2026, 6, 1, tzinfo=UTC))),
        ("0001-01-01T00:00:00+14:00", -62_135_596_800_000 - 14 * 3_600_000),
        ("1969-12-31T23:59:59.999", -1),
        (datetime(2026, 6, 1), ms(datetime(2026, 6, 1, tzinfo=UTC))),  # noqa: DTZ001 naive on purpose: it means UTC
        (datetime(2026, 6, 1, tzinfo=timezone(timedelta(hours=5, minutes=30))), 1_780_252_200_000),
        (pd.Timestamp("2026-06-01", tz="Europe/Berlin"), 1_780_264_800_000),
    ],
    ids=str,
)
def test_a_time_may_be_milliseconds_iso_text_or_a_datetime(value: Any, milliseconds: int) -> None:
    columns = columns_from_dicts([transaction(transaction_timestamp=value)])
    assert columns.column("transaction_timestamp").to_pylist() == [milliseconds]


def test_the_times_above_are_what_they_seem() -> None:
    assert ms(datetime(2026, 5, 31, 18, 30, tzinfo=UTC)) == 1_780_252_200_000
    assert ms(datetime(2026, 5, 31, 22, tzinfo=UTC)) == 1_780_264_800_000


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"amount": ...}, "missing_field"),
        ({"amount": None}, "missing_field"),
        ({"amount": "12"}, "wrong_type"),
        ({"amount": True}, "wrong_type"),
        ({"amount": {"value": 12}}, "wrong_type"),
        ({"amount": [12.0]}, "wrong_type"),
        ({"amount": b"12"}, "wrong_type"),
        ({"amount": 1 + 2j}, "wrong_type"),
        ({"amount": 10**400}, "out_of_range"),
        ({"device_is_trusted": 1}, "wrong_type"),
        ({"device_is_trusted": "true"}, "wrong_type"),
        ({"installment_count": 4.0}, "wrong_type"),
        ({"installment_count": True}, "wrong_type"),
        ({"installment_count": 2**31}, "out_of_range"),
        ({"installment_count": 10**400}, "out_of_range"),
        ({"customer_tenure_days": -(2**31) - 1}, "out_of_range"),
        ({"device_type": 5}, "wrong_type"),
        ({"device_type": "\ud800"}, "out_of_range"),
        ({"transaction_timestamp": "yesterday"}, "wrong_type"),
        ({"transaction_timestamp": "2026-02-30T00:00:00"}, "wrong_type"),
        ({"transaction_timestamp": ""}, "wrong_type"),
        ({"transaction_timestamp": 1.5e12}, "wrong_type"),
        ({"transaction_timestamp": True}, "wrong_type"),
        ({"transaction_timestamp": 2**63}, "out_of_range"),
        ({"transaction_timestamp": pd.NaT}, "wrong_type"),
        ({"approval_propensity": "high"}, "wrong_type"),
    ],
    ids=repr,
)
def test_a_dict_that_cannot_be_used_is_refused_by_field(change: dict[str, Any], error: str) -> None:
    for schema in (SCHEMA, EVENT_SCHEMA):
        with pytest.raises(InvalidRecord) as refused:
            columns_from_dicts([transaction(), transaction(**change)], schema)
        assert refused.value.error == error
        assert next(iter(change)) in str(refused.value)


def test_an_int_may_stand_for_a_float_and_unknown_fields_are_ignored() -> None:
    columns = columns_from_dicts([transaction(amount=12, nested={"a": [1]}, will_default=True)])
    assert columns.column("amount").to_pylist() == [12.0]
    assert columns.schema == SCHEMA


@pytest.mark.parametrize("name", REQUIRED)
def test_every_required_field_is_required(name: str) -> None:
    with pytest.raises(InvalidRecord, match=name) as refused:
        transaction_batch([transaction(**{name: ...})])
    assert refused.value.error == "missing_field"


@given(
    st.dictionaries(
        st.sampled_from(SCHEMA.names),
        st.recursive(
            st.one_of(
                st.none(),
                st.booleans(),
                st.integers(),
                st.floats(),
                st.text(st.characters()),
                st.binary(),
                st.datetimes(),
            ),
            lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(), inner, max_size=2)),
            max_leaves=3,
        ),
        max_size=4,
    )
)
@examples(200)
def test_whatever_a_dict_holds_it_is_let_in_or_refused_as_an_invalid_record(changes: dict[str, Any]) -> None:
    try:
        columns = transaction_batch([transaction(**changes)])
    except InvalidRecord:
        return
    columns.validate(full=True)
    assert columns.schema == SCHEMA


def test_no_message_holds_a_value() -> None:
    secret = "Jane-Doe-4711"
    changes: list[dict[str, Any]] = [
        {name: value}
        for name in SCHEMA.names
        for value in (secret * 40, [secret], {secret: 1}, f"{secret}\ud800", -471_100_471_1, 4711.5e300, 10**400)
    ]
    refusals = []
    for change in changes:
        try:
            transaction_batch([transaction(**change)])
        except InvalidRecord as reason:
            refusals.append(f"{reason} {reason.error} {reason.__cause__}")
    assert len(refusals) > 100
    assert not [refusal for refusal in refusals if "4711" in refusal or "Jane" in refusal]


def test_the_first_bad_transaction_of_several_is_the_one_told() -> None:
    with pytest.raises(InvalidRecord, match="amount is negative"):
        transaction_batch([transaction(), transaction(amount=-1.0), transaction(transaction_id="")])


def test_a_dict_is_scored_whenever_it_happened() -> None:
    assert transaction_batch([transaction(transaction_timestamp=ms(utc_now() + timedelta(days=1)))]).num_rows == 1
    assert transaction_batch([transaction(transaction_timestamp="1969-07-20T20:17:40")]).num_rows == 1


def test_the_golden_events_of_the_shipped_export_are_let_in() -> None:
    manifest = json.loads((PROJECT / "artifacts" / "v1" / "manifest.json").read_text())
    events = [row["event"] for row in manifest["golden"]]
    assert columns_from_dicts(events).num_rows == len(events)
