"""A service dies by SIGKILL between every pair of neighbouring steps of its commit protocol, and nothing is lost or
done twice: by identity, against what the producer was told.

One backlog a service is worked off by processes that die one after the other, each at the next place; whatever a dead
one left behind meets its successor.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections import Counter
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext

import pytest
from confluent_kafka import Producer
from harness import (
    HEADER_NAMES,
    clickhouse_rows,
    encoded,
    eventually,
    forget_dead_members_soon,
    outcome,
    read_topic,
    running,
    send_outcomes,
    shadow_events,
    simulated,
    wait_scored,
    wait_stored,
)

from consumer.scoring.controller import ShadowModeController
from consumer.scoring.load import load_controller
from consumer.services.score import ScoreService
from consumer.services.sink import SinkService
from consumer.settings import Settings

BATCH = 100
RUBBISH_EVERY = 50
SCORE_PLACES = [f"score:{step}" for step in range(1, 9)]
SINK_PLACES = [f"sink:{step}" for step in range(1, 6)]
Place = tuple[int, int]


@dataclass(frozen=True)
class Ledger:
    """What Kafka acknowledged: the id of every good transaction by (partition, offset), and where rubbish went."""

    good: dict[Place, str]
    rubbish: dict[Place, bytes]


def produced(settings: Settings, count: int) -> Ledger:
    """Send transactions, and believe only the acknowledgements."""
    good: dict[Place, str] = {}
    rubbish: dict[Place, bytes] = {}
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers, "acks": "all", "linger.ms": 20})
    for number, event in enumerate(simulated(count, seed=71)):
        bad = number % RUBBISH_EVERY == 7
        value = b"rubbish %d" % number if bad else encoded(event)

        def acknowledged(
            error: object, message: object, bad: bool = bad, event: dict = event, value: bytes = value
        ) -> None:
            assert error is None
            place = (message.partition(), message.offset())
            if bad:
                rubbish[place] = value
            else:
                good[place] = event["transaction_id"]

        producer.produce(settings.topic_transactions, value, event["customer_id"], on_delivery=acknowledged)
    assert producer.flush(30) == 0
    assert len(good) + len(rubbish) == count
    return Ledger(good, rubbish)


def published(settings: Settings) -> tuple[dict[Place, str], dict[Place, bytes]]:
    """What readers of what is committed see; a place that is there twice fails here."""
    events = Counter(
        ((each["source_partition"], each["source_offset"]), each["transaction_id"]) for each in shadow_events(settings)
    )
    letters: Counter[tuple[Place, bytes]] = Counter()
    for message in read_topic(settings, settings.topic_dead_letters):
        told = dict(message.headers() or ())
        place = (int(told[HEADER_NAMES["partition"]]), int(told[HEADER_NAMES["offset"]]))
        letters[place, message.value()] += 1
    assert set((events | letters).values()) <= {1}, "done twice"
    return dict(events.keys()), dict(letters.keys())


def _serve(service: str, settings: Settings) -> None:
    if service == "score":
        ScoreService(settings, load_controller(settings)).run(threading.Event())
    else:
        SinkService(settings).run(threading.Event())


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Processes that are forked where everything is imported already: fifteen of them are started here."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["test_crash_matrix"])
    return context


def killed_at(processes: ForkServerContext, settings: Settings, place: str) -> None:
    """Run a service in a process of its own until it dies at a place, in its second batch."""
    deadly = settings.model_copy(update={"crash_point": f"{place}@2", "profile": "test"})
    died = processes.Process(target=_serve, args=(place.partition(":")[0], deadly))
    died.start()
    died.join(90)
    assert died.exitcode == -signal.SIGKILL, f"{place}: {died.exitcode}"


def test_score_killed_at_every_place_publishes_each_transaction_once(
    settings: Settings, processes: ForkServerContext, controller: ShadowModeController
) -> None:
    settings = settings.model_copy(update={"batch_max_records": BATCH})
    forget_dead_members_soon(settings, settings.score_group)
    ledger = produced(settings, 25 * BATCH)
    seen = 0
    for place in SCORE_PLACES:
        killed_at(processes, settings, place)
        events, letters = published(settings)
        assert events.items() <= ledger.good.items(), place
        assert letters.items() <= ledger.rubbish.items(), place
        if place >= "score:5":
            assert len(events) > seen, f"{place}: the batch before the one in which it died was settled"
        seen = len(events)
    with running(ScoreService(settings, controller)):
        wait_scored(settings)
    assert published(settings) == (ledger.good, ledger.rubbish)


def test_sink_killed_at_every_place_stores_each_prediction_and_each_outcome_once(
    settings: Settings, processes: ForkServerContext, controller: ShadowModeController
) -> None:
    settings = settings.model_copy(update={"sink_max_records": BATCH})
    forget_dead_members_soon(settings, settings.sink_group)
    ledger = produced(settings, 15 * BATCH)
    told = [(f"t{number}", number) for number in range(4 * BATCH)]
    send_outcomes(settings, [outcome(name, version=number) for name, number in told])
    with running(ScoreService(settings, controller)):
        wait_scored(settings)
    for place in SINK_PLACES:
        killed_at(processes, settings, place)
        rows = stored_places(settings)
        assert rows.items() <= ledger.good.items(), place
        assert set(stored_outcomes(settings)) <= set(told), place
    with running(SinkService(settings)):
        wait_stored(settings, len(ledger.good), 60)
        eventually(lambda: len(stored_outcomes(settings)) == len(told), 60, "all outcomes are stored")
    assert stored_places(settings) == ledger.good
    assert sorted(stored_outcomes(settings)) == sorted(told)


def stored_outcomes(settings: Settings) -> list[tuple[str, int]]:
    return [(name, version) for name, version in clickhouse_rows(settings, "transaction_id, version", "outcomes")]


def stored_places(settings: Settings) -> dict[Place, str]:
    """What the table holds, by source; a place that is there twice fails here."""
    rows = clickhouse_rows(settings, "source_partition, source_offset, transaction_id")
    assert len({row[:2] for row in rows}) == len(rows), "stored twice"
    return {(partition, offset): transaction_id for partition, offset, transaction_id in rows}
