"""The proof fails when it should, says where, and holds while all goes on: on real parts, with faults made by hand."""

from __future__ import annotations

import json
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from harness import (
    HEADER_NAMES,
    Commands,
    decoded,
    encoded,
    eventually,
    outcome,
    read_topic,
    running,
    send,
    send_events,
    send_outcomes,
    simulated,
    wait_scored,
)
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from consumer.clock import utc_now
from consumer.errors import TRY_AGAIN, Fatal, KafkaUnavailable
from consumer.scoring.controller import ShadowModeController
from consumer.services import clickhouse
from consumer.services.score import ScoreService
from consumer.services.sink import SinkService
from consumer.settings import Settings
from consumer.stack.part import free_port
from consumer.watch.lag import LagReader
from consumer.watch.reconcile.places import Fault
from consumer.watch.reconcile.reconcile import KINDS, Reconciliation, reconcile
from consumer.watch.records import TopicReader


def wait_sunk(settings: Settings) -> None:
    """Wait until the sink group has committed everything that is in its topic."""
    with LagReader(settings, settings.sink_group, [settings.topic_shadow_scores]) as lag:
        eventually(lambda: not lag.look().unread, 40, lambda: f"lag {lag.look()}")


def score_and_store(settings: Settings, controller: ShadowModeController) -> None:
    with running(ScoreService(settings, controller)), running(SinkService(settings)):
        wait_scored(settings)
        wait_sunk(settings)


def pass_over(settings: Settings, group: str, topic: str) -> None:
    """Move a group without members to the end of a topic, as one does who loses what is in between."""
    with TopicReader(settings, isolation="read_uncommitted") as reader:
        ends = [TopicPartition(topic, partition, end) for partition, (_, end) in reader.held(topic).items()]
    mover = Consumer({"bootstrap.servers": settings.kafka_bootstrap_servers, "group.id": group})
    try:
        mover.commit(offsets=ends, asynchronous=False)
    finally:
        mover.close()


def expire(settings: Settings, topic: str, before: dict[int, int]) -> None:
    """Delete what stands before these offsets, as retention does."""
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    asked = [TopicPartition(topic, partition, offset) for partition, offset in before.items()]
    for answer in admin.delete_records(asked).values():
        answer.result(20)


def execute(settings: Settings, statement: str) -> None:
    with clickhouse.connect(settings) as client:
        client.command(statement, settings={"mutations_sync": 2})


def wrong(found: Reconciliation) -> dict[str, int]:
    """The kinds of fault that there are."""
    return {kind: getattr(found, kind) for kind in KINDS if getattr(found, kind)}


def told(found: Reconciliation) -> list[str]:
    return [str(fault) for fault in found.faults]


def place(message: Message) -> tuple[int, int]:
    partition, offset = message.partition(), message.offset()
    assert partition is not None
    assert offset is not None
    return partition, offset


def letter_headers(topic: str, partition: int, offset: int) -> list[tuple[str, bytes]]:
    named = {"topic": topic, "partition": partition, "offset": offset, "stage": "decode"}
    named |= {"exception_class_name": "truncated"}
    return [(HEADER_NAMES[name], str(value).encode()) for name, value in named.items()]


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


def expanded(fault: Fault) -> list[int]:
    return [offset for first, last in fault.ranges for offset in range(first, last + 1)]


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


def test_what_retention_deleted_is_no_fault_and_hides_none(
    settings: Settings, controller: ShadowModeController
) -> None:
    transactions, scores, letters = (
        settings.topic_transactions,
        settings.topic_shadow_scores,
        settings.topic_dead_letters,
    )
    events = simulated(60, seed=9)
    send_events(settings, [*events, *events[:10]])
    send(settings, transactions, [{"key": b"k", "value": b"rubbish"}] * 4)
    score_and_store(settings, controller)
    send(settings, scores, [{"key": b"k", "value": b"no shadow event"}])
    with running(SinkService(settings)):
        wait_sunk(settings)
    found = reconcile(settings)
    assert told(found) == []
    assert (found.expired, found.unreadable, found.dead_lettered) == (0, 1, 4)

    with TopicReader(settings) as reader:
        ends = {topic: {at: end for at, (_, end) in reader.held(topic).items()} for topic in (scores, letters)}
    expire(settings, letters, ends[letters])
    found = reconcile(settings)
    assert told(found) == []
    assert found.expired == 5, "four transactions and an event that are refused now as well"

    halves = {partition: end // 2 for partition, end in ends[scores].items()}
    expire(settings, scores, halves)
    found = reconcile(settings)
    assert told(found) == []
    assert sum(each.start for each in found.shadow_scores) == sum(halves.values())

    expire(settings, scores, ends[scores])
    found = reconcile(settings)
    assert told(found) == []
    assert (found.produced, found.scored, found.expired) == (74, 0, 14), "ten rows name the later sending"

    with clickhouse.connect(settings) as client:
        row = client.query("SELECT source_partition, source_offset, prediction_id FROM shadow_scores LIMIT 1")
        partition, offset, name = row.result_rows[0]
    execute(settings, f"ALTER TABLE shadow_scores DELETE WHERE prediction_id = '{name}'")
    found = reconcile(settings)
    assert f"lost {transactions}/{partition} offsets " in " ".join(told(found))
    assert offset in [each for fault in found.faults for each in expanded(fault)]

    with TopicReader(settings) as reader:
        held = reader.held(transactions)
    expire(settings, transactions, {at: end - 2 for at, (_, end) in held.items() if end > 2 and at != partition})
    expire(settings, transactions, {partition: held[partition][1]})
    found = reconcile(settings)
    assert told(found) == []
    assert found.produced < 74


@pytest.mark.parametrize("between", ["topic_transactions", "topic_shadow_scores"])
def test_what_retention_deletes_meanwhile_is_no_fault(
    settings: Settings, controller: ShadowModeController, between: str
) -> None:
    events = simulated(20, seed=12)
    send_events(settings, [*events, *events])
    score_and_store(settings, controller)
    with TopicReader(settings) as reader:
        ends = {
            topic: {at: end for at, (_, end) in reader.held(topic).items()}
            for topic in (settings.topic_transactions, settings.topic_shadow_scores)
        }
    moving = getattr(settings, between)
    if moving == settings.topic_transactions:  # the first sending of each has lost its event, and its row
        expire(settings, settings.topic_shadow_scores, ends[settings.topic_shadow_scores])

    def expire_meanwhile(topic: str, done: int, total: int) -> None:
        if topic == settings.topic_transactions and done == total:
            expire(settings, moving, ends[moving])

    found = reconcile(settings, progress=expire_meanwhile)
    assert told(found) == []
    assert (found.produced, found.waiting_for_score, found.waiting_for_sink) == (40, 0, 0)


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


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE schema_migrations DELETE WHERE number = 3",
        "ALTER TABLE schema_migrations UPDATE sha256 = 'other' WHERE number = 1",
        "ALTER TABLE shadow_scores DROP COLUMN source_offset",
        "DROP TABLE shadow_scores",
    ],
    ids=["pending", "changed", "column", "table"],
)
def test_a_half_migrated_table_is_refused_before_anything_is_read(settings: Settings, statement: str) -> None:
    execute(settings, statement)
    read: list[str] = []
    with pytest.raises(Fatal, match="run `bnpl-shadow migrate`"):
        reconcile(settings, progress=lambda topic, done, total: read.append(topic))
    assert read == []


def test_the_exit_code_says_it(settings: Settings, controller: ShadowModeController, commands: Commands) -> None:
    send_events(settings, simulated(50, seed=2))
    score_and_store(settings, controller)
    holds = commands.run(settings, "reconcile")
    assert holds.ended(1) == 0, holds.output
    assert "holds: lost 0, twice 0, unknown 0, not stored 0, rows too many 0" in holds.output
    assert "50 transactions: 50 shadow events, 0 dead letters, 0 waiting for score" in holds.output

    with TopicReader(settings) as reader:
        _, first = reader.held(settings.topic_transactions)[0]
    send(settings, settings.topic_transactions, [{"value": b"x", "partition": 0}] * 2)
    pass_over(settings, settings.score_group, settings.topic_transactions)
    nobody = SecretStr(f"http://127.0.0.1:{free_port()}")
    nowhere = f"127.0.0.1:{free_port()}"
    does_not, for_programs, *away = [
        commands.start(settings, "reconcile"),
        commands.start(settings, "reconcile", "--json", "--since", "1h"),
        commands.start(settings.model_copy(update={"clickhouse_url": nobody}), "reconcile"),
        commands.start(settings.model_copy(update={"kafka_bootstrap_servers": nowhere}), "reconcile"),
    ]
    assert [each.ended(90) for each in (does_not, for_programs)] == [1, 1]
    assert [each.ended(90) for each in away] == [TRY_AGAIN, TRY_AGAIN]
    assert "DOES NOT HOLD: lost 2," in does_not.output
    assert f"lost {settings.topic_transactions}/0 offsets {first}-{first + 1}\n" in does_not.output
    document = json.loads(for_programs.output)
    assert (document["holds"], document["lost"], document["produced"]) == (False, 2, 52)
    assert document["faults"][0]["ranges"] == [[first, first + 1]]
    assert [each["partition"] for each in document["transactions"]] == [0, 1, 2]


def test_it_goes_on_and_shows_what_it_found_last(settings: Settings, commands: Commands) -> None:
    send(settings, settings.topic_transactions, [{"value": b"x", "partition": 1}])
    started = time.time()
    watch = commands.start(settings, "reconcile", "--every", "1", BNPL_RECONCILE_METRICS_PORT="0")
    eventually(lambda: "holds" in watch.output, 60, lambda: watch.output)
    url = next(each.split()[1] for each in watch.output.splitlines() if each.startswith("metrics: "))

    def gauge(name: str, **labels: str) -> float | None:
        with urllib.request.urlopen(url, timeout=10) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        samples = [each for family in families for each in family.samples]
        return next((each.value for each in samples if (each.name, each.labels) == (name, labels)), None)

    eventually(lambda: gauge("bnpl_reconcile_last_success_timestamp_seconds"), 30, lambda: watch.output)
    assert [gauge("bnpl_reconcile_faults", kind=kind) for kind in KINDS] == [0] * len(KINDS)
    assert gauge("bnpl_reconcile_in_flight_records", lane="shadow") == 1
    assert gauge("bnpl_outcomes", label="d28", state="orphaned") is None
    send_outcomes(settings, [outcome("t-1"), outcome("t-2", version=2), outcome("t-2")])
    with running(SinkService(settings)):
        eventually(lambda: gauge("bnpl_outcomes", label="d28", state="orphaned") == 2, 60, lambda: watch.output)
        eventually(lambda: gauge("bnpl_outcomes", label="d28", state="corrected") == 1, 30, lambda: watch.output)
    assert started < (gauge("bnpl_reconcile_last_success_timestamp_seconds") or 0) < time.time() + 1
    with urllib.request.urlopen(url.replace("metrics", "readyz"), timeout=10) as answer:
        assert answer.status == 200
    pass_over(settings, settings.score_group, settings.topic_transactions)
    eventually(lambda: gauge("bnpl_reconcile_faults", kind="lost") == 1, 30, lambda: watch.output)
    assert gauge("bnpl_reconcile_in_flight_records", lane="shadow") == 0
    assert f"lost {settings.topic_transactions}/1 offsets 0" in watch.output
    watch.terminate()
    assert watch.ended(30) == 1, "the last result says it"
