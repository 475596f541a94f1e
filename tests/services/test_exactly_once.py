"""Exactly once, while processes die, come, go and are replaced."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import (
    Command,
    Commands,
    committed,
    encoded,
    eventually,
    forget_dead_members_soon,
    read_topic,
    running,
    score_lag,
    send,
    send_events,
    shadow_events,
    simulated,
    wait_scored,
    wait_stored,
)

from consumer.metrics import total
from consumer.scoring.controller import ShadowModeController
from consumer.services import topics
from consumer.services.score import ScoreService
from consumer.services.sink import SinkService
from consumer.settings import Settings
from consumer.stack.kafka import Kafka
from consumer.watch.lag import LagReader
from consumer.watch.reconcile.reconcile import reconcile

SMALL_BATCHES = 200
RUBBISH_EVERY = 250


@dataclass
class Stream:
    """What is being sent, and how far the group is with it."""

    lag: LagReader
    sent: int = 0

    def wait_for(self, more: int, what: object = "the group commits more") -> None:
        """Wait until this many more records are committed than now."""
        goal = committed(self.lag) + more
        eventually(lambda: committed(self.lag) >= goal, 40, what)


@contextmanager
def stream(settings: Settings, chunk: int = 1000) -> Iterator[Stream]:
    """Keeps sending until the block ends, a chunk whenever the last one is nearly eaten; now and then rubbish."""
    events = simulated(chunk, seed=11)
    values = [b"rubbish" if at % RUBBISH_EVERY == 0 else encoded(each) for at, each in enumerate(events)]
    records = [{"key": each["customer_id"], "value": value} for each, value in zip(events, values, strict=True)]
    stop = threading.Event()

    def feed(state: Stream, watch: LagReader) -> None:
        while not stop.is_set():
            send(settings, settings.topic_transactions, records)
            state.sent += chunk
            eventually(lambda: stop.is_set() or committed(watch) >= state.sent - chunk // 2, 90, "the chunk is eaten")

    with score_lag(settings) as lag, score_lag(settings) as watch, ThreadPoolExecutor(1) as pool:
        state = Stream(lag)
        feeding = pool.submit(feed, state, watch)
        try:
            yield state
        finally:
            stop.set()
            feeding.result(60)


def assert_each_once(settings: Settings, count: int) -> None:
    """Every transaction has exactly one shadow event or dead letter: by the product's proof, and counted here."""
    found = reconcile(settings)
    assert (found.produced, found.lost, found.twice, found.unknown) == (count, 0, 0, 0), found
    sources = [(each["source_partition"], each["source_offset"]) for each in shadow_events(settings)]
    letters = read_topic(settings, settings.topic_dead_letters)
    assert len(set(sources)) == len(sources) == count - len(letters)
    assert len(letters) == count // RUBBISH_EVERY


def score(commands: Commands, settings: Settings) -> Command:
    command = commands.start(settings, "score")
    eventually(lambda: command.says("scoring") or command.process.poll() is not None, 30, lambda: command.output)
    return command


def test_kills_lose_nothing_and_repeat_nothing_and_a_stop_commits_what_was_published(
    settings: Settings, commands: Commands
) -> None:
    settings = settings.model_copy(update={"batch_max_records": SMALL_BATCHES})
    forget_dead_members_soon(settings, settings.score_group)
    with stream(settings) as flow:
        for _ in range(2):
            killed = score(commands, settings)
            flow.wait_for(1500, lambda killed=killed: killed.output)
            killed.kill()
        stopped = score(commands, settings)
        flow.wait_for(1500, lambda: stopped.output)
        stopped.terminate()
        assert stopped.ended(25) == 0
        assert stopped.events[-1]["event"] == "stopped"
        published = len(shadow_events(settings)) + len(read_topic(settings, settings.topic_dead_letters))
        # a commit is seen when its marker is written, a moment after its transaction ended
        eventually(lambda: published == committed(flow.lag), 15, lambda: (published, committed(flow.lag)))
    last = score(commands, settings)
    wait_scored(settings)
    last.terminate()
    assert last.ended(25) == 0
    assert_each_once(settings, flow.sent)


@pytest.mark.parametrize("protocol", ["consumer", "classic"])
def test_members_share_the_work_and_their_coming_and_going_loses_nothing(
    settings: Settings, controller: ShadowModeController, protocol: str
) -> None:
    settings = settings.model_copy(update={"group_protocol": protocol, "batch_max_records": SMALL_BATCHES})

    def member(instance: str) -> ScoreService:
        return ScoreService(settings.model_copy(update={"instance": f"{settings.instance}-{instance}"}), controller)

    first = member("a")
    with ExitStack() as members, stream(settings) as flow:
        leaving = ExitStack()
        leaving.enter_context(running(first))
        flow.wait_for(1)
        second = member("b")  # not before: a member that does not read yet would hold its partitions
        members.enter_context(running(second))
        eventually(lambda: total(second.metrics.records) > 500, 40, "the second member got its share")
        assert total(first.metrics.records) > 500
        leaving.close()
        flow.wait_for(1000)
    with running(member("c")):
        wait_scored(settings)
    assert_each_once(settings, flow.sent)


def test_a_second_process_of_the_same_name_fences_the_first(
    settings: Settings, commands: Commands, controller: ShadowModeController
) -> None:
    settings = settings.model_copy(update={"batch_max_records": SMALL_BATCHES})
    with stream(settings) as flow:
        first = score(commands, settings)
        flow.wait_for(1, lambda: first.output)
        with running(ScoreService(settings, controller)):
            assert first.ended(40) == 1
            assert "another instance with the same transactional id took over" in first.output
            assert "BNPL_INSTANCE" in first.output
            flow.wait_for(1000)
    with running(ScoreService(settings, controller)):
        wait_scored(settings)
    assert_each_once(settings, flow.sent)


def test_two_groups_whose_instances_have_one_name_do_not_fence_each_other(
    settings: Settings, controller: ShadowModeController
) -> None:
    """Two model sets side by side are two groups, and their instances may well both be called 0."""
    other = settings.model_copy(update={"score_group": f"{settings.score_group}-other"})
    with running(ScoreService(settings, controller)), running(ScoreService(other, controller)):
        for seed in (1, 2):
            send_events(settings, simulated(200, seed))
            wait_scored(settings)
            wait_scored(other)
    assert len(shadow_events(settings)) == 800


def test_a_broker_that_goes_and_comes_back_is_waited_for_and_nothing_is_passed_over(
    settings: Settings, controller: ShadowModeController, tmp_path: Path
) -> None:
    """Nothing may be lost, and every row must be there once. That a batch may stand twice in the topic is Kafka's: a
    single 4.4 node that goes while it ends a transaction reports it committed and skips the markers ("Couldn't find
    leader endpoint … can be skipped"), also in the offsets topic. With a second node there is always a leader.
    """
    broker = Kafka(tmp_path / "broker", 0, owned=True)
    broker.start()
    own = settings.model_copy(
        update={
            "kafka_bootstrap_servers": broker.address,
            "batch_max_records": SMALL_BATCHES,
            "topic_partitions": 2,
            "transaction_timeout_ms": 3000,
        }
    )
    try:
        topics.apply(own)
        send_events(own, simulated(20_000, 12))
        score, sink = ScoreService(own, controller), SinkService(own)
        with running(score), running(sink):
            read, stored = score.metrics.records, sink.metrics.records
            eventually(lambda: total(read) > 3000 and total(stored) > 1000, 40, "both are at work")
            broker.stop()
            broker.start()
            wait_scored(own, 60)
            wait_stored(own, 20_000, 60)
        found = reconcile(own)
        assert (found.produced, found.stored, found.predictions) == (20_000, 20_000, 20_000), found
        assert not (found.lost or found.unknown or found.not_stored or found.rows_too_many), found
        assert found.twice <= SMALL_BATCHES, found
    finally:
        broker.kill()
