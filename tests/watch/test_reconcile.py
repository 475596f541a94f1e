"""The proof fails when it should, says where, and holds while all goes on: on real parts, with faults made by hand."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from confluent_kafka import Producer
from harness import (
    HEADER_NAMES,
    decoded,
    encoded,
    eventually,
    read_topic,
    running,
    send,
    send_events,
    simulated,
    wait_scored,
)
from reconciling import execute, expanded, letter_headers, pass_over, place, score_and_store, told, wait_sunk, wrong

from consumer.clock import utc_now
from consumer.errors import KafkaUnavailable
from consumer.scoring.controller import ShadowModeController
from consumer.services.score import ScoreService
from consumer.services.sink import SinkService
from consumer.settings import Settings
from consumer.watch.reconcile.reconcile import Reconciliation, reconcile
from consumer.watch.records import TopicReader


def test_every_kind_of_fault_is_found_with_its_offsets(settings: Settings, controller: ShadowModeController) -> None:
    transactions, scores, letters = (
        settings.topic_transactions,
        settings.topic_shadow_scores,
        settings.topic_dead_letters,
    )
    events = simulated(100, seed=61)
    send_events(settings, events)
    send(settings, transactions, [{"key": b"k", "value": b"rubbish"}])
    score_and_store(settings, controller)
    sound = reconcile(settings)
    totals = ("produced", "scored", "dead_lettered", "stored", "predictions", "waiting_for_score", "waiting_for_sink")
    assert [getattr(sound, name) for name in totals] == [101, 100, 1, 100, 100, 0, 0]
    assert sound.holds
    assert wrong(sound) == {}
    by_source = [sum(getattr(each, name) for each in sound.transactions) for name in ("consumed", "events", "letters")]
    assert by_source == [101, 100, 1]
    assert [sum(getattr(each, name) for each in sound.shadow_scores) for name in ("events", "rows")] == [100, 100]

    # not scored: on its way until the group passes it
    with TopicReader(settings) as reader:
        _, first = reader.held(transactions)[1]
    send(settings, transactions, [{"value": encoded(each), "partition": 1} for each in events[:3]])
    found = reconcile(settings)
    assert found.holds
    assert found.waiting_for_score == 3
    pass_over(settings, settings.score_group, transactions)
    lost = f"lost {transactions}/1 offsets {first}-{first + 2}"
    found = reconcile(settings)
    assert told(found) == [lost]
    assert (found.lost, found.waiting_for_score, found.holds) == (3, 0, False)

    # scored twice: the later event is on its way to the table until sink passes it, then it must replace the row
    again = read_topic(settings, scores)[0]
    source = decoded(again.value() or b"")
    partition, _ = place(again)
    with TopicReader(settings) as reader:
        at = reader.held(scores)[partition][1]
    send(settings, scores, [{"key": again.key(), "value": again.value(), "partition": partition}])
    twice = f"twice {transactions}/{source['source_partition']} offsets {source['source_offset']}"
    found = reconcile(settings)
    assert told(found) == [lost, twice]
    assert (found.waiting_for_sink, found.scored, found.predictions) == (1, 101, 100)
    pass_over(settings, settings.sink_group, scores)
    replaced = f"not stored {scores}/{partition} offsets {at}"
    assert told(reconcile(settings)) == [lost, twice, replaced]

    # a letter of what never was
    send(settings, letters, [{"key": b"k", "value": b"x", "headers": letter_headers(transactions, 0, 999_999)}])
    made_up = read_topic(settings, letters)
    (unknown,) = [place(each) for each in made_up if each.value() == b"x"]
    unknown_told = f"unknown {letters}/{unknown[0]} offsets {unknown[1]}"
    found = reconcile(settings)
    assert told(found) == [lost, twice, unknown_told, replaced]
    assert (found.dead_lettered, found.unknown) == (2, 1)

    # rows that went, and one that sink refused instead
    gone = sorted(place(each) for each in read_topic(settings, scores) if place(each)[0] == 0)[2:6]
    offsets = [offset for _, offset in gone]
    execute(
        settings,
        f"ALTER TABLE shadow_scores DELETE WHERE shadow_partition = 0 AND shadow_offset IN {tuple(offsets)}",
    )
    found = reconcile(settings)
    assert found.not_stored == 5
    (missing,) = [each for each in found.faults if each.kind == "not_stored" and each.partition == 0 and each.count > 1]
    assert set(expanded(missing)) - {at} == set(offsets)
    send(settings, letters, [{"value": b"y", "headers": letter_headers(scores, *gone[1])}])
    found = reconcile(settings)
    assert found.not_stored == 4
    assert offsets[1] not in [offset for each in found.faults if each.kind == "not_stored" for offset in expanded(each)]

    # a row of nothing
    execute(
        settings,
        "INSERT INTO shadow_scores SELECT * REPLACE ('made-up' AS prediction_id) FROM shadow_scores "
        "WHERE shadow_partition = 1 ORDER BY shadow_offset LIMIT 1",
    )
    execute(
        settings,
        "INSERT INTO shadow_scores SELECT * REPLACE ('far' AS prediction_id, 777777 AS shadow_offset) "
        "FROM shadow_scores WHERE shadow_partition = 1 LIMIT 1",
    )
    found = reconcile(settings)
    assert found.rows_too_many == 2
    assert f"{scores}/1 offsets 0, 777777" in " ".join(told(found))
    assert wrong(found) == {"lost": 3, "twice": 1, "unknown": 1, "not_stored": 4, "rows_too_many": 2}


def test_what_may_happen_is_no_fault(settings: Settings, controller: ShadowModeController) -> None:
    """Sent twice, scored again by another model set, letters of other kinds, records that are no letters at all."""
    transactions, scores, letters = (
        settings.topic_transactions,
        settings.topic_shadow_scores,
        settings.topic_dead_letters,
    )
    events = simulated(60, seed=5)
    send_events(settings, [*events, *events[:20]])
    score_and_store(settings, controller)
    other = [
        {
            "key": each.key(),
            "value": each.value().replace(controller.identity.encode(), b"z" * len(controller.identity)),
        }
        for each in read_topic(settings, scores)
    ]
    send(settings, scores, other)
    with running(SinkService(settings)):
        wait_sunk(settings)
    send(
        settings,
        letters,
        [
            {"headers": [("bnpl.dlq.replay.of", b"0/0"), ("bnpl.dlq.replay.to", b"t/0/0")]},
            {"value": b"a line", "headers": letter_headers(transactions, -1, 17)},
            {"value": b"of nobody"},
            {"value": b"of another", "headers": letter_headers("another.topic", 0, 1)},
            {"value": b"odd", "headers": [(HEADER_NAMES["topic"], b"t"), (HEADER_NAMES["offset"], b"many")]},
        ],
    )
    found = reconcile(settings)
    assert told(found) == []
    assert (found.produced, found.scored, found.predictions, found.stored) == (80, 160, 120, 120)
    assert (found.replay_markers, found.never_sent, found.strays) == (1, 1, 3)


def test_a_live_system_shows_no_fault_that_is_none(settings: Settings, controller: ShadowModeController) -> None:
    """Small batches, so that commits, inserts and looks meet in every order."""
    settings = settings.model_copy(update={"batch_max_records": 100, "sink_max_records": 150, "sink_max_wait_ms": 20})
    events = simulated(4000, seed=8)
    records = [
        {"key": each["customer_id"], "value": b"rubbish" if at % 97 == 0 else encoded(each)}
        for at, each in enumerate(events)
    ]
    looks: list[Reconciliation] = []

    def look() -> bool:
        """Send, look, and say whether it was looked at while at work."""
        at = len(looks) % 8
        send(settings, settings.topic_transactions, records[at * 500 : (at + 1) * 500])
        send(settings, settings.topic_transactions, records[:50])  # sent again: rows are replaced while it looks
        looks.append(reconcile(settings))
        assert looks[-1].holds, told(looks[-1])
        return bool(looks[-1].waiting_for_score or looks[-1].waiting_for_sink)

    with running(ScoreService(settings, controller)), running(SinkService(settings)):
        at_work = [look() for _ in range(8)]
        if not any(at_work):
            eventually(look, 90, "a look while at work")
        wait_scored(settings)
        wait_sunk(settings)
    end = reconcile(settings)
    assert end.holds, told(end)
    assert (end.produced, end.waiting_for_score, end.waiting_for_sink) == (550 * len(looks), 0, 0)
    assert sum(each.consumed for each in end.transactions) == 550 * len(looks)


def test_a_transaction_is_not_judged_before_its_fate_is_known(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an open transaction wrote may belong to offsets that are committed: it is waited for, but not for ever."""
    settings = settings.model_copy(update={"transaction_timeout_ms": 1000})
    monkeypatch.setattr("consumer.watch.reconcile.bounds._CLEANUP_SECONDS", 0.5)
    producer = Producer(
        {
            "bootstrap.servers": settings.kafka_bootstrap_servers,
            "transactional.id": f"{settings.instance}-open",
            "transaction.timeout.ms": 60_000,
        }
    )
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(settings.topic_shadow_scores, b"x", b"k", partition=2)
    assert producer.flush(20) == 0
    with pytest.raises(KafkaUnavailable, match=f"a transaction on {settings.topic_shadow_scores}/2 stays open"):
        reconcile(settings)
    monkeypatch.setattr("consumer.watch.reconcile.bounds._CLEANUP_SECONDS", 60)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(reconcile, settings)
        with pytest.raises(TimeoutError):
            waiting.result(3)
        producer.commit_transaction(20)
        assert waiting.result(60).unreadable == 1


def test_since_looks_at_what_came_since(settings: Settings, controller: ShadowModeController) -> None:
    send_events(settings, simulated(30, seed=3))
    pass_over(settings, settings.score_group, settings.topic_transactions)
    since = utc_now()
    send_events(settings, simulated(40, seed=4))
    score_and_store(settings, controller)
    assert wrong(reconcile(settings)) == {"lost": 30}
    found = reconcile(settings, since=since)
    assert told(found) == []
    assert (found.produced, found.scored, found.stored) == (40, 40, 40)
    assert reconcile(settings, since=utc_now() + timedelta(hours=1)).produced == 0
