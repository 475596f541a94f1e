"""The sink on a real ClickHouse: rows equal events, whatever happens to either side."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import clickhouse_connect
import fastavro
import pytest
from harness import (
    HEADER_NAMES,
    Commands,
    Event,
    asked,
    eventually,
    read_topic,
    running,
    send,
    send_events,
    shadow_events,
    simulated,
    wait_scored,
    wait_stored,
)
from pydantic import SecretStr

from consumer.contracts.schemas import versions
from consumer.errors import DeadLetterLimit
from consumer.metrics import total
from consumer.scoring.controller import ShadowModeController
from consumer.scoring.predictor import BNPLMultiModelPredictor
from consumer.services.score import ScoreService
from consumer.services.sink import SinkService
from consumer.settings import Settings
from consumer.stack.clickhouse import ClickHouse
from consumer.system.run import prepare

MODEL_FIELDS = ("name", "version", "role", "score", "score_kind", "flag", "error")


def score_all(settings: Settings, controller: ShadowModeController, events: list[Event]) -> None:
    send_events(settings, events)
    with running(ScoreService(settings, controller)):
        wait_scored(settings)


def rows(settings: Settings, table: str = "shadow_scores FINAL") -> dict[str, dict[str, Any]]:
    """prediction_id → row, and no prediction twice."""
    assert settings.clickhouse_url
    with clickhouse_connect.get_client(dsn=settings.clickhouse_url.get_secret_value()) as client:
        found = list(client.query(f"SELECT * FROM {table}", column_oriented=False).named_results())
    by_id = {row["prediction_id"]: row for row in found}
    assert len(by_id) == len(found)
    return by_id


def as_row(event: Event) -> dict[str, Any]:
    """A shadow event as the table should hold it, without its place in the topic."""
    row = {name: value for name, value in event.items() if name != "models"}
    row |= {f"models.{name}": [model[name] for model in event["models"]] for name in MODEL_FIELDS}
    return {name: value.replace(tzinfo=None) if isinstance(value, datetime) else value for name, value in row.items()}


def assert_rows_equal_events(settings: Settings) -> None:
    found = rows(settings)
    messages = read_topic(settings, settings.topic_shadow_scores)
    events = shadow_events(settings)
    assert set(found) == {event["prediction_id"] for event in events}
    last = {event["prediction_id"]: (event, message) for event, message in zip(events, messages, strict=True)}
    for prediction_id, (event, message) in last.items():
        expected = as_row(event) | {"shadow_partition": message.partition(), "shadow_offset": message.offset()}
        assert found[prediction_id] == expected


def test_every_column_of_every_row_equals_its_event(settings: Settings, controller: ShadowModeController) -> None:
    events = simulated(400, seed=21)
    events[3] |= {"business_decision": "approve", "approval_propensity": 0.5}
    settings = settings.model_copy(update={"pseudonym_key": SecretStr("key")})
    score_all(settings, controller, events)
    with running(SinkService(settings)):
        wait_stored(settings, 400)
    assert_rows_equal_events(settings)


def test_an_event_of_before_version_2_is_stored_as_one_that_the_rules_decided_in_shadow(
    settings: Settings, controller: ShadowModeController
) -> None:
    """As score processes of the version before still write it while a new sink runs."""
    score_all(settings, controller, simulated(30, seed=26))
    older = versions("shadow_event")[0]
    values = []
    for event in shadow_events(settings):
        body = io.BytesIO()
        fastavro.schemaless_writer(body, fastavro.parse_schema(older.schema), event)
        values.append({"key": event["transaction_id"], "value": older.header + body.getvalue()})
    send(settings, settings.topic_shadow_scores, values)
    with running(SinkService(settings)):
        wait_stored(settings, 30)
        eventually(lambda: {row["decision"] for row in rows(settings).values()} == {None}, 30, "the older came later")
    for row in rows(settings).values():
        assert (row["mode"], row["decided_by"]) == ("shadow", "rules")


def test_what_analysts_read_has_the_promised_columns_and_the_four_scores_by_name(
    settings: Settings, controller: ShadowModeController
) -> None:
    score_all(settings, controller, simulated(20, seed=22))
    with running(SinkService(settings)):
        wait_stored(settings, 20)
    predictions = rows(settings, "shadow_predictions")
    for event in shadow_events(settings):
        row = predictions[event["prediction_id"]]
        expected = {f"{each['name']}_prediction": each["score"] for each in event["models"]}
        expected |= {
            "transaction_id": event["transaction_id"],
            "timestamp": event["event_time"].replace(tzinfo=None),
            "business_decision": event["business_decision"],
            "business_risk_score": event["business_risk_score"],
            "consensus_prediction": event["consensus"],
            "actual_default": None,
            "days_to_resolution": None,
        }
        assert len(expected) == 11
        assert row["opportunity_cost"] in (0.0, None), "nothing is known yet that would make a difference"
        assert {name: row[name] for name in expected} == expected


def test_a_transaction_sent_twice_and_a_topic_read_twice_give_one_row_each(
    settings: Settings, controller: ShadowModeController
) -> None:
    events = simulated(60, seed=23)
    score_all(settings, controller, [*events, *events[:10]])
    assert len(shadow_events(settings)) == 70
    with running(SinkService(settings)):
        wait_stored(settings, 60)
    assert_rows_equal_events(settings)
    before = rows(settings)
    again = settings.model_copy(update={"sink_group": f"{settings.sink_group}-again"})
    sink = SinkService(again)
    with running(sink):
        eventually(lambda: total(sink.metrics.records) == 70, 20, "all is read again")
    assert rows(settings) == before


def test_scores_of_two_artifact_versions_stand_side_by_side(
    settings: Settings, controller: ShadowModeController
) -> None:
    events = simulated(30, seed=24)
    score_all(settings, controller, events)
    newer = replace(controller.predictor.model_set, version="v2", digest="f" * 64)
    other = ShadowModeController(controller.rules, BNPLMultiModelPredictor(newer))
    beside = settings.model_copy(update={"score_group": f"{settings.score_group}-v2"})
    with running(ScoreService(beside, other)):
        wait_scored(beside)
    with running(SinkService(settings)):
        wait_stored(settings, 60)
    assert_rows_equal_events(settings)
    versions = sorted((row["transaction_id"], row["artifact_version"]) for row in rows(settings).values())
    assert versions == sorted((each["transaction_id"], version) for each in events for version in ("v1", "v2"))


def test_an_undecodable_shadow_event_becomes_a_dead_letter_and_the_sink_goes_on(
    settings: Settings, controller: ShadowModeController
) -> None:
    send(settings, settings.topic_shadow_scores, [{"key": b"k", "value": b"rubbish", "headers": [("own", b"1")]}])
    score_all(settings, controller, simulated(20, seed=25))
    with running(SinkService(settings)):
        wait_stored(settings, 20)
    (letter,) = read_topic(settings, settings.topic_dead_letters)
    assert (letter.key(), letter.value()) == (b"k", b"rubbish")
    told = dict(letter.headers())
    assert told["own"] == b"1"
    assert told[HEADER_NAMES["topic"]].decode() == settings.topic_shadow_scores
    assert told[HEADER_NAMES["exception_class_name"]] == b"unknown_framing"


def test_a_topic_full_of_undecodable_events_stops_the_sink(settings: Settings) -> None:
    send(settings, settings.topic_shadow_scores, [{"key": b"k", "value": b"rubbish"}] * 100)
    with pytest.raises(DeadLetterLimit), running(SinkService(settings)) as service:
        eventually(service.done, 20, "the sink stops")
    assert not read_topic(settings, settings.topic_dead_letters)


@pytest.fixture
def own_clickhouse(settings: Settings, tmp_path: Path) -> Iterator[tuple[Settings, ClickHouse]]:
    """A ClickHouse of the test's own, to be killed and suspended, and the settings that lead to it."""
    server = ClickHouse(tmp_path / "clickhouse", 0, owned=True)
    server.start()
    try:
        own = settings.model_copy(update={"clickhouse_url": SecretStr(server.address), "clickhouse_timeout_seconds": 2})
        prepare(own)
        yield own, server
    finally:
        server.kill()


def test_the_sink_waits_for_a_clickhouse_that_is_killed_and_goes_on_where_it_was(
    own_clickhouse: tuple[Settings, ClickHouse], controller: ShadowModeController, commands: Commands
) -> None:
    settings, server = own_clickhouse
    sink = commands.start(settings, "sink")
    with running(ScoreService(settings, controller)):
        send_events(settings, simulated(500, seed=26))
        wait_stored(settings, 500)
        server.kill()
        send_events(settings, simulated(500, seed=27))
        wait_scored(settings)
    eventually(lambda: sink.says("waiting"), 30, lambda: sink.output)
    assert "ClickHouse does not answer" in sink.output
    status, body = asked(sink, "readyz")
    assert status == 503
    assert "ClickHouse does not answer" in json.loads(body)["reasons"]
    assert asked(sink, "livez")[0] == 200, "a new start would not help"
    server.start()
    wait_stored(settings, 1000)
    eventually(lambda: asked(sink, "readyz")[0] == 200, 15, lambda: asked(sink, "readyz"))
    assert_rows_equal_events(settings)
    sink.terminate()
    assert sink.ended(25) == 0


def test_a_suspended_clickhouse_is_waited_for_within_its_timeout_and_asked_again_after_it(
    own_clickhouse: tuple[Settings, ClickHouse], controller: ShadowModeController, commands: Commands
) -> None:
    settings, server = own_clickhouse
    sink = commands.start(settings, "sink")
    patient = settings.model_copy(update={"sink_group": f"{settings.sink_group}-patient"})
    patient_sink = commands.start(patient, "sink", BNPL_CLICKHOUSE_TIMEOUT_SECONDS="20")
    eventually(lambda: sink.says("storing") and patient_sink.says("storing"), 30, lambda: patient_sink.output)
    with running(ScoreService(settings, controller)):
        server.suspend()
        send_events(settings, simulated(300, seed=28))
        wait_scored(settings)  # scoring does not notice
        eventually(lambda: sink.says("waiting"), 30, lambda: sink.output)
        server.resume()
    wait_stored(settings, 300, 40)
    assert_rows_equal_events(settings)
    for command in (sink, patient_sink):
        command.terminate()
        assert command.ended(25) == 0
    assert not patient_sink.says("waiting")
    assert '"stored": 300' in patient_sink.output


def test_missing_tables_end_the_sink_and_it_names_the_command_that_makes_them(
    settings: Settings, controller: ShadowModeController, clickhouse_database: str, commands: Commands
) -> None:
    score_all(settings, controller, simulated(5, seed=29))
    sink = commands.start(settings, "sink", BNPL_CLICKHOUSE_URL=clickhouse_database)
    assert sink.ended(40) == 1
    assert "run `bnpl-shadow migrate`" in sink.output
    assert "there is no table shadow_scores" in sink.output
