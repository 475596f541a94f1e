"""Lag on a real broker: what Kafka's own tool says, and seconds that are right in every odd case."""

from __future__ import annotations

import json
import math
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic  # type: ignore[attr-defined]
from harness import Commands, committed, eventually, running, score_lag, send, send_events, simulated, wait_scored
from kafka_tool import describe

from consumer.clock import utc_now
from consumer.scoring.controller import ShadowModeController
from consumer.services.score import ScoreService
from consumer.settings import Settings
from consumer.stack.kafka import Kafka
from consumer.watch.lag import GroupLook, LagReader
from consumer.watch.lag_watch import LagWatch
from consumer.watch.status import LagReport, LagWindow, Status

PLAIN, NEVER, MARKER, ABORTED, EXPIRED, BELOW, DONE, OPEN, EMPTIED, EMPTY = range(10)
"""A partition a case."""
FIRST = int(time.time() - 3600) * 1000
"""The timestamp of a partition's first record; the others follow by the second."""


class Clock:
    """Set by hand."""

    def __init__(self) -> None:
        self.now = utc_now()

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def arrived(offset: int) -> datetime:
    return datetime.fromtimestamp(FIRST / 1000 + offset, UTC)


def client(settings: Settings, **more: str) -> dict[str, str]:
    return {"bootstrap.servers": settings.kafka_bootstrap_servers or "", **more}


def topic(settings: Settings, partitions: int) -> str:
    name = f"{settings.instance}.lag"
    admin = AdminClient(client(settings))
    admin.create_topics([NewTopic(name, partitions, 1)])[name].result(20)
    return name


def write(settings: Settings, name: str, partition: int, count: int, start: int = 0) -> None:
    records = [{"value": b"x", "partition": partition, "timestamp": FIRST + (start + n) * 1000} for n in range(count)]
    send(settings, name, records)


@contextmanager
def transaction(settings: Settings, name: str, partition: int, count: int, start: int = 0) -> Iterator[Producer]:
    """An open transaction with records in it; how it ends is the block's business."""
    producer = Producer(client(settings, **{"transactional.id": f"{name}-{partition}"}))
    producer.init_transactions(20)
    producer.begin_transaction()
    for n in range(count):
        producer.produce(name, b"x", partition=partition, timestamp=FIRST + (start + n) * 1000)
    assert producer.flush(20) == 0
    yield producer


@contextmanager
def member(settings: Settings, group: str, name: str, protocol: str = "consumer", **more: str) -> Iterator[Consumer]:
    """Joined, with partitions, and paused: it hangs, and commits what it is told to."""
    config = client(settings, **{"group.id": group, "group.protocol": protocol, "enable.auto.commit": "false"}, **more)
    consumer = Consumer(config | {"auto.offset.reset": "earliest"})
    consumer.subscribe([name])
    try:
        eventually(lambda: consumer.poll(0.05) or consumer.assignment(), 20, f"{group} has partitions")
        consumer.pause(consumer.assignment())
        yield consumer
    finally:
        consumer.close()


def commit(consumer: Consumer, name: str, offsets: dict[int, int]) -> None:
    partitions = [TopicPartition(name, partition, offset) for partition, offset in offsets.items()]
    consumer.commit(offsets=partitions, asynchronous=False)


def expire(settings: Settings, name: str, before: dict[int, int]) -> None:
    """Delete records as retention would."""
    asked = [TopicPartition(name, partition, offset) for partition, offset in before.items()]
    admin = AdminClient(client(settings))
    for future in admin.delete_records(asked).values():
        future.result(20)


def test_lag_is_what_kafkas_own_tool_prints_in_every_odd_case(settings: Settings) -> None:
    name = topic(settings, 10)
    for partition in (PLAIN, NEVER, EXPIRED, BELOW, DONE, EMPTIED):
        write(settings, name, partition, 10)
    for partition in (ABORTED, OPEN):
        write(settings, name, partition, 2)
    groups = {protocol: f"{settings.instance}-{protocol}" for protocol in ("consumer", "classic")}
    offsets = {PLAIN: 4, MARKER: 5, ABORTED: 2, EXPIRED: 4, BELOW: 7, DONE: 10, OPEN: 2, EMPTIED: 4}
    with ExitStack() as stack:
        with transaction(settings, name, MARKER, 5) as ending:
            ending.commit_transaction(20)
        with transaction(settings, name, ABORTED, 5, start=2) as ending:
            ending.abort_transaction(20)
        still_open = stack.enter_context(transaction(settings, name, OPEN, 5, start=2))
        for protocol, group in groups.items():
            commit(stack.enter_context(member(settings, group, name, protocol)), name, offsets)
        expire(settings, name, {EXPIRED: 7, BELOW: 4, EMPTIED: 10})

        theirs = describe(settings.kafka_bootstrap_servers or "", *groups.values())
        for group in groups.values():
            with LagReader(settings, group, [name]) as reader:
                look, later = reader.look(), reader.look()
            assert (look.state, len(look.partitions)) == ("stable", 10)
            for ours in look.partitions:
                row = theirs[group, name, ours.partition]
                assert str(ours.end) == row.end
                if ours.committed is None:
                    assert (row.committed, row.lag) == ("-", "-")
                    assert ours.messages == ours.end
                else:
                    assert (str(ours.committed), str(ours.messages)) == (row.committed, row.lag)
            expired = {each.partition: each.expired for each in look.partitions if each.expired}
            assert expired == {EXPIRED: 3, EMPTIED: 6}
            waiting = {each.partition: each.oldest_unread for each in look.partitions if each.oldest_unread}
            known = {PLAIN: arrived(4), NEVER: arrived(0), EXPIRED: arrived(7), BELOW: arrived(7)}
            assert waiting == known | {OPEN: look.at}, "what a transaction holds back counts from when it was seen"
            assert [each.oldest_unread for each in later.partitions] == [each.oldest_unread for each in look.partitions]
        still_open.abort_transaction(20)


def test_a_transaction_that_ends_shows_the_true_age_of_its_records(settings: Settings) -> None:
    name, group = topic(settings, 1), f"{settings.instance}-readers"
    with LagReader(settings, group, [name]) as reader, transaction(settings, name, 0, 3) as producer:

        def oldest() -> datetime | None:
            return reader.look().partitions[0].oldest_unread

        held_since = oldest()
        assert held_since is not None
        assert held_since > arrived(100)
        producer.commit_transaction(20)
        eventually(lambda: oldest() == arrived(0), 20, "the committed record is seen")


def test_a_record_of_the_future_counts_from_when_it_was_seen(settings: Settings) -> None:
    name = topic(settings, 1)
    send(settings, name, [{"value": b"x", "timestamp": int(time.time() + 1800) * 1000}])
    clock = Clock()
    with LagReader(settings, f"{settings.instance}-readers", [name], clock) as reader:
        first = reader.look()
        clock.forward(60)
        assert first.partitions[0].seconds(first.at) == 0.0
        assert reader.look().partitions[0].seconds(clock()) == 60.0


def test_from_hanging_to_stopped_to_well_and_back(settings: Settings) -> None:
    """A member joins and does not read; leaves; another one reads all; somebody resets the group."""
    name, group, clock = topic(settings, 1), f"{settings.instance}-readers", Clock()
    window = LagWindow(group)
    with LagReader(settings, group, [name], clock) as reader:

        def after(seconds: float) -> LagReport:
            clock.forward(seconds)
            return window.add(reader.look())

        with member(settings, group, name) as hanging:
            assert after(0).worst is Status.OK
            write(settings, name, 0, 10)
            before = after(5).seconds(clock())
            for n in range(1, 4):
                assert after(10).seconds(clock()) == pytest.approx(before + 10 * n)
            report = window.report
            assert (report.messages, report.worst, report.drain_seconds) == (10, Status.STALL, math.inf)
            assert hanging.assignment(), "it is still there"
        after(5)
        assert after(5).worst is Status.STOP
        with member(settings, group, name) as reads:
            commit(reads, name, {0: 10})
            report = after(5)
            assert (report.messages, report.worst, report.drain_seconds) == (0, Status.OK, 0.0)
            assert report.seconds(clock()) == 0.0
            commit(reads, name, {0: 3})
            report = after(5)
            assert (report.messages, report.worst) == (7, Status.REWIND)
            assert report.partitions[0].oldest_unread == arrived(3)


def test_before_during_and_after_rebalances_every_partition_is_there_once(settings: Settings) -> None:
    name, group = topic(settings, 2), f"{settings.instance}-readers"
    write(settings, name, 0, 5)
    with LagReader(settings, group, [name]) as reader:
        states = []

        def look() -> GroupLook:
            found = reader.look()
            states.append(found.state)
            assert [each.partition for each in found.partitions] == list(range(len(found.partitions)))
            assert [each.messages for each in found.partitions][:2] == [5, 0]
            assert found.partitions[0].oldest_unread == arrived(0)
            return found

        assert not look().exists
        with ExitStack() as stack:
            one = stack.enter_context(member(settings, group, name))
            assert look().state == "stable"
            two = Consumer(client(settings, **{"group.id": group, "group.protocol": "consumer"}))
            stack.callback(two.close)
            two.subscribe([name])
            shared = lambda: len(one.assignment()) == len(two.assignment()) == 1  # noqa: E731
            eventually(lambda: (one.poll(0.05), two.poll(0.05), look(), shared())[-1], 20, "they share")
        assert not eventually(lambda: (found := look()).state == "empty" and found, 20, states).has_members
        admin = AdminClient(client(settings))
        admin.create_partitions([NewPartitions(name, 3)])[name].result(20)
        eventually(lambda: len(look().partitions) == 3, 20, "the new partition is seen")


def test_a_watch_outlives_its_broker_and_lag_goes_on_rising(tmp_path: Path) -> None:
    broker = Kafka(tmp_path / "broker", 0, owned=True)
    broker.start()
    try:
        settings = Settings(kafka_bootstrap_servers=broker.address, lag_interval_ms=100, instance="watched")
        name, reports = topic(settings, 1), list[LagReport]()
        write(settings, name, 0, 5)
        watch = LagWatch(settings, "watched-group", [name], reports.append)
        watch.start()
        try:
            eventually(lambda: watch.report.look, 20, lambda: watch.report)
            assert (watch.report.messages, watch.report.failed) == (5, None)
            broker.stop()
            eventually(lambda: watch.report.failed, 30, lambda: watch.report)
            away = utc_now()
            assert watch.report.messages == 5
            assert watch.report.seconds(away + timedelta(seconds=60)) > watch.report.seconds(away) + 59
            broker.start()
            eventually(lambda: not watch.report.failed, 30, lambda: watch.report)
            assert watch.report.age(utc_now()) < 20
        finally:
            stopped = time.monotonic()
            watch.stop()
            assert time.monotonic() - stopped < 6
        assert {bool(each.failed) for each in reports} == {True, False}, "each look was told, failed or not"
    finally:
        broker.stop()


def test_a_watch_that_never_reaches_kafka_says_so_and_stops(settings: Settings) -> None:
    nowhere = settings.model_copy(update={"kafka_bootstrap_servers": nobody_listens(), "lag_interval_ms": 100})
    watch = LagWatch(nowhere, "group", ["topic"])
    watch.start()
    failed = eventually(lambda: watch.report.failed, 20, "it says so")
    assert "group" in failed
    assert str(nowhere.kafka_bootstrap_servers) in failed
    assert watch.report.age(utc_now()) == math.inf
    watch.stop()


def nobody_listens() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


# the command


def test_the_command_tells_lag_of_both_groups_to_people_and_programs(
    settings: Settings, controller: ShadowModeController, commands: Commands
) -> None:
    told = commands.run(settings, "lag")
    assert told.process.returncode == 1
    assert f"no consumer group {settings.score_group} and no {settings.sink_group}: start the service" in told.output

    send_events(settings, simulated(300))
    with running(ScoreService(settings, controller)):
        wait_scored(settings)
    told = commands.run(settings, "lag", "--json")
    assert told.process.returncode == 1, "there is no sink yet"
    first, error = told.output.rsplit("\n", 2)[:2]
    assert settings.sink_group in error
    (group,) = json.loads(first)["groups"]
    assert (group["group"], group["messages"], group["status"]) == (settings.score_group, 0, "OK")
    assert (group["seconds"], group["drain_seconds"], group["draining"]) == (0.0, 0.0, True)
    with score_lag(settings) as reader:
        assert sum(each["committed"] or 0 for each in group["partitions"]) == committed(reader) == 300

    send_events(settings, simulated(50, seed=1))
    told = commands.run(settings, "lag", "--group", "score")
    assert told.process.returncode == 0
    total = next(line for line in told.output.splitlines() if " total " in line)
    assert total.split()[2] == "50"
    assert "STOP" in total
    assert "empty, not draining" in told.output


def test_the_command_watches_until_it_is_interrupted(
    settings: Settings, controller: ShadowModeController, commands: Commands
) -> None:
    send_events(settings, simulated(100))
    with running(ScoreService(settings, controller)):
        wait_scored(settings)
        people = commands.start(settings, "lag", "--group", "score", "--watch", "0.5")
        programs = commands.start(settings, "lag", "--group", "score", "--watch", "--json")
        eventually(lambda: people.output.count("caught up") >= 2, 30, lambda: people.output)
        eventually(lambda: programs.output.count("\n") >= 2, 30, lambda: programs.output)
    for each in (people, programs):
        each.process.send_signal(signal.SIGINT)
        assert each.ended(20) == 0
    assert [event["groups"][0]["messages"] for event in programs.events[:2]] == [0, 0]


def test_the_command_says_in_one_sentence_what_it_cannot_tell(settings: Settings, commands: Commands) -> None:
    nowhere = settings.model_copy(update={"kafka_bootstrap_servers": nobody_listens()})
    for where, arguments, code, sentence in (
        (nowhere, [], 75, "Kafka does not answer at 127.0.0.1:"),
        (settings, ["--group", "strangers", "--topic", "absent"], 1, "Kafka has no topic absent"),
        (settings, ["--group", "strangers"], 2, "strangers is not a group of these settings"),
        (settings, ["--topic", settings.topic_control], 2, "--topic needs --group"),
        (settings, ["--group", "strangers", "--topic", settings.topic_control], 1, "no consumer group strangers:"),
    ):
        told = commands.run(where, "lag", *arguments)
        assert (told.process.returncode, sentence in told.output) == (code, True), told.output
        assert len(told.output.splitlines()) == (4 if code == 2 else 1), told.output
