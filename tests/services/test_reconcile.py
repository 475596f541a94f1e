"""The proof must fail when it should: every kind of fault is made by hand, and found."""

from __future__ import annotations

from dataclasses import asdict

from harness import (
    HEADER_NAMES,
    encoded,
    read_topic,
    running,
    send,
    send_events,
    simulated,
    wait_scored,
    wait_stored,
)

from consumer.scoring.controller import ShadowModeController
from consumer.services import clickhouse
from consumer.services.reconcile import reconcile
from consumer.services.score import ScoreService
from consumer.services.sink import SinkService
from consumer.settings import Settings


def test_what_was_lost_doubled_made_up_or_not_stored_is_counted(
    settings: Settings, controller: ShadowModeController
) -> None:
    events = simulated(100, seed=61)
    send_events(settings, events)
    send(settings, settings.topic_transactions, [{"key": b"k", "value": b"rubbish"}])
    with running(ScoreService(settings, controller)), running(SinkService(settings)):
        wait_scored(settings)
        wait_stored(settings, 100)

    def counted() -> dict[str, int | bool]:
        with clickhouse.connect(settings) as client:
            found = reconcile(settings, client)
        return asdict(found) | {"holds": found.holds}

    sound: dict[str, int | bool] = {
        **{"produced": 101, "scored": 100, "dead_lettered": 1, "stored": 100, "predictions": 100},
        **{"lost": 0, "twice": 0, "unknown": 0, "not_stored": 0, "rows_too_many": 0, "holds": True},
    }
    assert counted() == sound

    nobody_scored = [{"key": b"k", "value": encoded(each)} for each in events[:2]]
    send(settings, settings.topic_transactions, nobody_scored)
    expected = sound | {"produced": 103, "lost": 2, "holds": False}
    assert counted() == expected

    again = read_topic(settings, settings.topic_shadow_scores)[0]
    send(settings, settings.topic_shadow_scores, [{"key": again.key(), "value": again.value()}])
    expected |= {"scored": 101, "twice": 1}
    assert counted() == expected

    coordinates = {"topic": settings.topic_transactions, "partition": "0", "offset": "999999"}
    headers = [(HEADER_NAMES[name], value.encode()) for name, value in coordinates.items()]
    send(settings, settings.topic_dead_letters, [{"key": b"k", "value": b"x", "headers": headers}])
    expected |= {"dead_lettered": 2, "unknown": 1}
    assert counted() == expected

    with clickhouse.connect(settings) as client:
        client.command("ALTER TABLE shadow_scores DELETE WHERE shadow_offset < 3", settings={"mutations_sync": 2})
        gone = 100 - int(client.query("SELECT count() FROM shadow_scores FINAL").result_rows[0][0])
    assert gone > 0
    expected |= {"stored": 100 - gone, "not_stored": gone}
    assert counted() == expected

    with clickhouse.connect(settings) as client:
        client.command(
            "INSERT INTO shadow_scores SELECT * REPLACE ('made-up' AS prediction_id) FROM shadow_scores LIMIT 1"
        )
    expected |= {"stored": 101 - gone, "rows_too_many": 1}
    assert counted() == expected
