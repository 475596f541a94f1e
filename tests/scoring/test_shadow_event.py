"""A shadow event says all that rules and models said of one transaction, where it was read, and no customer's name."""

from __future__ import annotations

import hashlib
import hmac
import io
import math
from datetime import UTC, datetime
from functools import cache
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pytest
from fitted import RULES, Matrix, controller, fit, transactions
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression, RidgeClassifier

from consumer.contracts.events import EventWriter
from consumer.contracts.schemas import latest
from consumer.scoring.activation import Activation
from consumer.scoring.controller import ShadowModeController
from consumer.scoring.shadow_event import Pseudonyms, ShadowEvents, Source

SCHEMA = latest("shadow_event")
NOW = datetime(2026, 6, 15, 12, 0, 0, 123_000, tzinfo=UTC)
KEY = "a key of the deployment"


class EveryOther(ClassifierMixin, BaseEstimator):
    """Gives a score to every other transaction."""

    classes_ = np.array([0, 1])

    def predict_proba(self, X: Matrix) -> Any:
        chances = np.full((len(X), 2), 0.5)
        chances[1::2] = np.nan
        return chances


@cache
def shadow_controller() -> ShadowModeController:
    return controller(logistic=fit(LogisticRegression()), ridge=fit(RidgeClassifier()), gaps=EveryOther())


def events(
    count: int, key: str | None = None, start: int = 0
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], Any]:
    """Transactions, their events as another program reads them, and what the controller said."""
    one = shadow_controller()
    batch = transactions().slice(start, count)
    shadow = one.score_batch(batch)
    writer = EventWriter("shadow_event", SCHEMA.header)
    source = Source("bnpl.transactions", np.arange(count) % 3, np.arange(count) + 10**12)
    built = ShadowEvents(one, writer.arrow_schema, Pseudonyms(key)).build(batch, shadow, source, NOW)
    parsed = fastavro.parse_schema(SCHEMA.schema)
    read: list[Any] = [
        fastavro.schemaless_reader(io.BytesIO(value[len(SCHEMA.header) :]), parsed, None)
        for value in writer.write(built)
    ]
    return batch.to_pylist(), read, shadow


def test_an_event_says_what_was_said() -> None:
    given, read, shadow = events(40)
    for at, (transaction, event) in enumerate(zip(given, read, strict=True)):
        assert event["transaction_id"] == transaction["transaction_id"]
        assert event["event_time"].timestamp() * 1000 == transaction["transaction_timestamp"]
        assert event["scored_at"] == NOW
        assert event["amount"] == transaction["amount"]
        assert event["installment_count"] == transaction["installment_count"]
        assert event["business_decision"] == shadow.decisions.decision[at].as_py()
        assert event["business_risk_flag"] == shadow.decisions.risk_flag[at].as_py()
        assert event["business_risk_score"] == transaction["risk_score"]
        assert event["reason_codes"] == shadow.decisions.reason_codes[at].as_py()
        assert (event["rule_set_version"], event["rule_set_sha256"]) == (RULES.version, RULES.sha256)
        assert (event["source_topic"], event["source_partition"], event["source_offset"]) == (
            "bnpl.transactions",
            at % 3,
            10**12 + at,
        )
        assert event["advisory"] is True
        assert (event["mode"], event["decided_by"]) == ("shadow", "rules")
        assert event["decision"] == event["business_decision"]
        assert (event["champion"], event["artifact_version"], event["feature_spec_version"]) == (
            "logistic",
            "test",
            "2",
        )


def test_every_model_has_its_entry_with_score_flag_or_the_reason_there_is_none() -> None:
    _, read, shadow = events(40)
    for at, event in enumerate(read):
        logistic, ridge, gaps = event["models"]
        assert [each["name"] for each in event["models"]] == ["logistic", "ridge", "gaps"]
        assert [each["role"] for each in event["models"]] == ["champion", "challenger", "challenger"]
        assert [each["score_kind"] for each in event["models"]] == ["probability", "uncalibrated", "probability"]
        assert {each["version"] for each in event["models"]} == {"test"}
        assert logistic["score"] == shadow.predictions.scores[0, at] == event["champion_score"]
        assert logistic["flag"] == (logistic["score"] >= 0.5)
        assert logistic["error"] is None
        if at % 2:
            assert (gaps["score"], gaps["flag"], gaps["error"]) == (None, None, "NotFinite")
            assert event["consensus"] == pytest.approx((logistic["score"] + ridge["score"]) / 2, abs=1e-15)
        else:
            assert (gaps["score"], gaps["flag"], gaps["error"]) == (0.5, True, None)
            assert event["consensus"] == pytest.approx((logistic["score"] + ridge["score"] + 0.5) / 3, abs=1e-15)


def test_the_champion_of_an_event_is_the_one_that_counted_and_so_are_the_roles() -> None:
    """One builder through three promotions: what it keeps of one champion is not told of the next."""
    one, batch = shadow_controller(), transactions().slice(0, 300)
    writer = EventWriter("shadow_event", SCHEMA.header)
    builder = ShadowEvents(one, writer.arrow_schema, Pseudonyms(None))
    source = Source("t", np.zeros(300, np.int64), np.arange(300))
    for champion, mode in (("ridge", "shadow"), ("gaps", "champion"), ("logistic", "champion")):
        shadow = one.score_batch(batch, activation=Activation(champion, mode))
        told = builder.build(batch, shadow, source, NOW).to_pylist()
        assert {each["champion"] for each in told} == {champion}
        assert {each["mode"] for each in told} == {mode}
        for each in told:
            models = {model["name"]: model for model in each["models"]}
            assert each["champion_score"] == models[champion]["score"]
            assert [name for name, model in models.items() if model["role"] == "champion"] == [champion]
            asked = mode == "champion" and each["business_decision"] == "approve"
            by_champion = asked and each["champion_score"] is not None
            assert each["decided_by"] == ("champion" if by_champion else "fallback" if asked else "rules")
            assert each["advisory"] is not by_champion
            flagged = by_champion and models[champion]["flag"]
            assert each["decision"] == ("decline" if flagged else each["business_decision"])
        assert any(each["decision"] != each["business_decision"] for each in told) is (champion == "gaps")


def test_scoring_again_gives_the_same_id_and_no_two_transactions_share_one() -> None:
    _, first, _ = events(40)
    _, again, _ = events(10, start=5)
    identity = shadow_controller().identity
    assert [event["prediction_id"] for event in first] == [f"t{at}.{identity}" for at in range(40)]
    assert [event["prediction_id"] for event in again] == [event["prediction_id"] for event in first[5:15]]


def test_without_a_key_there_is_no_customer_in_an_event() -> None:
    given, read, _ = events(10)
    assert {event["customer_ref"] for event in read} == {None}
    assert all(
        transaction["customer_id"] not in map(str, event.values())
        for transaction, event in zip(given, read, strict=True)
    )


def test_with_a_key_a_customer_has_the_same_pseudonym_everywhere_and_never_the_name() -> None:
    given, read, _ = events(120, KEY)
    for transaction, event in zip(given, read, strict=True):
        expected = hmac.new(KEY.encode(), transaction["customer_id"].encode(), hashlib.sha256).hexdigest()
        assert event["customer_ref"] == expected


def test_pseudonyms_stay_right_when_more_customers_come_than_are_kept() -> None:
    pseudonyms = Pseudonyms(KEY)
    first = pseudonyms.of(pa.array(["anna", "bert", "anna"])).to_pylist()
    pseudonyms.of(pa.array([f"c{at}" for at in range(200_001)]))
    assert pseudonyms.of(pa.array(["anna", "bert", "anna"])).to_pylist() == first
    assert first[0] == first[2] != first[1]


def test_what_checkout_did_is_passed_on_when_it_was_said() -> None:
    _, read, _ = events(3)
    assert {(event["checkout_decision"], event["approval_propensity"]) for event in read} == {(None, None)}
    one = shadow_controller()
    batch = transactions().slice(0, 2)
    for name, values in (("business_decision", ["decline", None]), ("approval_propensity", [None, 0.25])):
        at = batch.schema.get_field_index(name)
        batch = batch.set_column(at, batch.schema.field(at), pa.array(values, batch.schema.field(at).type))
    writer = EventWriter("shadow_event", SCHEMA.header)
    source = Source("t", np.zeros(2, np.int64), np.arange(2))
    built = ShadowEvents(one, writer.arrow_schema, Pseudonyms(None)).build(batch, one.score_batch(batch), source, NOW)
    assert built.column("checkout_decision").to_pylist() == ["decline", None]
    assert built.column("approval_propensity").to_pylist() == [None, 0.25]


def test_batches_of_any_size_after_one_another_are_built_right() -> None:
    one = shadow_controller()
    writer = EventWriter("shadow_event", SCHEMA.header)
    builder = ShadowEvents(one, writer.arrow_schema, Pseudonyms(KEY))
    for start, count in ((0, 7), (7, 100), (3, 1), (0, 0), (50, 20)):
        batch = transactions().slice(start, count)
        source = Source("t", np.zeros(count, np.int64), np.arange(count))
        built = builder.build(batch, one.score_batch(batch), source, NOW)
        built.validate(full=True)
        assert built.schema == writer.arrow_schema
        assert built.column("transaction_id").to_pylist() == [f"t{start + at}" for at in range(count)]
        assert [len(models) for models in built.column("models").to_pylist()] == [3] * count
        assert len(writer.write(built)) == count


def test_no_score_is_ever_written_as_a_number_that_is_none() -> None:
    _, read, _ = events(40)
    numbers = [value for event in read for value in (event["consensus"], *(each["score"] for each in event["models"]))]
    assert all(value is None or math.isfinite(value) for value in numbers)
    assert None in numbers
