"""Outcomes through the sink, beside the scores: one row each, bad ones to a topic of their own, each kind counted."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import clickhouse_connect
import pytest
from harness import (
    HEADER_NAMES,
    Commands,
    Event,
    decoded,
    eventually,
    outcome,
    outcome_record,
    read_topic,
    running,
    send,
    send_events,
    send_outcomes,
    shadow_events,
    simulated,
    stored,
    wait_scored,
    wait_stored,
)

from consumer.errors import DeadLetterLimit
from consumer.metrics import total
from consumer.scoring.controller import ShadowModeController
from consumer.services.score import ScoreService
from consumer.services.sink import SinkService
from consumer.settings import Settings
from consumer.watch.lag import LagReader

NOW = datetime.now(UTC).replace(microsecond=0)
COLUMNS = [
    "transaction_id",
    "label",
    "defaulted",
    "days_to_resolution",
    "loss_amount",
    "observed_at",
    "source",
    "version",
]


def rows(settings: Settings) -> list[tuple[Any, ...]]:
    assert settings.clickhouse_url
    with clickhouse_connect.get_client(dsn=settings.clickhouse_url.get_secret_value()) as client:
        columns = ", ".join([*COLUMNS, "outcome_partition", "outcome_offset"])
        return sorted(map(tuple, client.query(f"SELECT {columns} FROM outcomes FINAL").result_rows))


def expected(settings: Settings) -> list[tuple[Any, ...]]:
    """What the topic says, by fastavro; of the same key the last."""
    last = {}
    for each in read_topic(settings, settings.topic_outcomes):
        told = decoded(each.value() or b"", "outcome")
        values = [told[name] for name in COLUMNS]
        values[COLUMNS.index("observed_at")] = told["observed_at"].replace(tzinfo=None)
        key = (told["transaction_id"], told["label"], told["version"], told["observed_at"])
        last[key] = (*values, each.partition(), each.offset())
    return sorted(last.values())


def wait_sunk(settings: Settings, seconds: float = 60) -> None:
    """Until the sink has committed all that both its topics hold."""
    with LagReader(settings, settings.sink_group, [settings.topic_shadow_scores, settings.topic_outcomes]) as lag:
        eventually(lambda: (look := lag.look()).exists and not look.unread, seconds, lambda: str(lag.look()))


def many(count: int) -> list[dict[str, Any]]:
    return [
        outcome(
            f"t{number}",
            label=("first_payment", "d28", "d42", "full_term")[number % 4],
            defaulted=number % 3 == 0,
            days_to_resolution=None if number % 5 else number,
            loss_amount=None if number % 7 else number / 8,
            observed_at=NOW - timedelta(days=number % 200, milliseconds=number),
            version=number % 2,
        )
        for number in range(count)
    ]


def test_outcomes_and_scores_go_through_one_sink_and_reading_again_changes_nothing(
    settings: Settings, controller: ShadowModeController
) -> None:
    told = many(700)
    send_outcomes(settings, told + told[:50])
    send_events(settings, simulated(300, seed=51))
    with running(ScoreService(settings, controller)):
        wait_scored(settings)
    sink = SinkService(settings)
    with running(sink):
        wait_sunk(settings)
    assert rows(settings) == expected(settings)
    assert len(rows(settings)) == 700
    assert stored(settings) == 300
    assert total(sink.metrics.rows, table="outcomes", result="ok") == 750
    assert total(sink.metrics.rows, table="shadow_scores", result="ok") == 300
    assert total(sink.metrics.records, topic=settings.topic_outcomes) == 750
    again = SinkService(settings.model_copy(update={"sink_group": f"{settings.sink_group}-again"}))
    with running(again):
        eventually(lambda: total(again.metrics.records) == 1050, 30, "all is read again")
    assert rows(settings) == expected(settings)
    assert stored(settings) == 300


def test_outcomes_that_cannot_be_become_letters_of_their_own_topic_and_go_back_to_theirs(
    settings: Settings, commands: Commands
) -> None:
    bad = {
        "unknown_horizon": outcome("b1", label="d30"),
        "before_transaction": outcome("b2", days_to_resolution=-1),
        "negative": outcome("b3", loss_amount=-1.0),
        "in_the_future": outcome("b4", observed_at=NOW + timedelta(days=2)),
        "oversized": outcome("b5", source="x" * 300),
    }
    told = many(200)
    send_outcomes(settings, [*told[:100], *bad.values(), *told[100:]])
    send(settings, settings.topic_outcomes, [{"key": b"k", "value": b"rubbish", "headers": [("own", b"1")]}])
    send(settings, settings.topic_shadow_scores, [{"key": b"s", "value": b"no score"}])
    with running(SinkService(settings)):
        wait_sunk(settings)
    assert {row[0] for row in rows(settings)} == {each["transaction_id"] for each in told}
    letters = {}
    for each in read_topic(settings, settings.topic_outcomes_dead_letters):
        headers = dict(each.headers())
        assert headers[HEADER_NAMES["topic"]].decode() == settings.topic_outcomes
        letters[headers[HEADER_NAMES["exception_class_name"]].decode()] = (each.key(), each.value())
    wanted = {error: tuple(outcome_record(one).values()) for error, one in bad.items()}
    assert letters == wanted | {"unknown_framing": (b"k", b"rubbish")}
    (letter,) = read_topic(settings, settings.topic_dead_letters)
    assert letter.key() == b"s"
    shown = commands.run(settings, "dlq", "ls", "--of", "outcomes", "--json").output
    assert shown.count('"waiting"') >= 6
    assert '"foreign"' not in shown
    done = commands.run(settings, "dlq", "replay", "--of", "outcomes", "--class", "oversized")
    assert done.process.returncode == 0, done.output
    with running(SinkService(settings.model_copy(update={"string_max_bytes": 400}))):
        wait_sunk(settings)
    assert {row[0] for row in rows(settings)} == {"b5", *(each["transaction_id"] for each in told)}


def test_a_topic_full_of_bad_outcomes_stops_the_sink_and_is_named(settings: Settings) -> None:
    send_outcomes(settings, [outcome("same", label="never")] * 100)
    with (
        pytest.raises(
            DeadLetterLimit, match=rf"{settings.topic_outcomes}, partition \d.*label is none of the horizons"
        ),
        running(SinkService(settings)) as service,
    ):
        eventually(service.done, 30, "the sink stops")
    assert read_topic(settings, settings.topic_outcomes_dead_letters) == []


def status(settings: Settings, commands: Commands) -> dict[str, dict[str, Any]]:
    shown = commands.run(settings, "outcomes", "status", "--json")
    assert shown.process.returncode == 0, shown.output
    return {each.pop("label"): each for each in json.loads(shown.output.splitlines()[-1])["labels"]}


def test_whatever_comes_first_they_meet_and_each_kind_is_counted(
    settings: Settings, controller: ShadowModeController, commands: Commands
) -> None:
    events: list[Event] = simulated(40, seed=52)
    approved = [each | {"business_decision": "approve"} for each in events[:30]]
    declined = [each | {"business_decision": "decline"} for each in events[30:]]
    ids = [each["transaction_id"] for each in approved]
    send_outcomes(settings, [*(outcome(name) for name in ids[:20]), outcome("nobody knows")])
    with running(SinkService(settings)):
        wait_sunk(settings)
        counts = status(settings, commands)["d28"]
        assert (counts["outcomes"], counts["matched"], counts["orphaned"]) == (21, 0, 21)
        send_events(settings, [*approved, *declined])
        with running(ScoreService(settings, controller)):
            wait_scored(settings)
        wait_stored(settings, 40)
        cured = outcome(ids[0], version=2, defaulted=False, days_to_resolution=None, loss_amount=None)
        corrected = outcome(ids[1], version=2, loss_amount=10.0)
        send_outcomes(settings, [cured, corrected, outcome(ids[2]), outcome(ids[3], observed_at=NOW)])
        send_outcomes(settings, [outcome(declined[0]["transaction_id"])])
        wait_sunk(settings)
    assert len(shadow_events(settings)) == 40
    assert status(settings, commands) == {
        "d28": {
            "outcomes": 22,
            "defaulted": 21,
            "matched": 20,
            "orphaned": 1,
            "declined": 1,
            "corrected": 2,
            "cured": 1,
            "repeated": 2,
        }
    }
    told = commands.run(settings, "trace", ids[3])
    assert "outcome         defaulted after 14 days, opportunity cost " in told.output
    table = commands.run(settings, "outcomes", "status").output
    assert "orphaned" in table
    assert "d28" in table
