"""Dead letters seen and replayed, on the real broker: nothing half, nothing twice, and each record as it was."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from confluent_kafka import Message, Producer
from harness import (
    HEADER_NAMES,
    Command,
    Commands,
    Event,
    encoded,
    eventually,
    read_topic,
    running,
    send,
    shadow_events,
    simulated,
    stored,
    wait_scored,
    wait_stored,
)

from consumer.cli.dlq_report import hex_lines
from consumer.cli.trace_report import report
from consumer.clock import utc_now
from consumer.contracts.dead_letter import Replay, marker_names
from consumer.errors import Fatal, Fenced
from consumer.scoring.controller import ShadowModeController
from consumer.services.replay import Replayer
from consumer.services.score import ScoreService
from consumer.services.sink import SinkService
from consumer.settings import Settings
from consumer.system.replay import Plan, Wanted, plan, replay
from consumer.watch.letter_story import Story, Survey, story, survey
from consumer.watch.letters import STATES, Filter, Letter
from consumer.watch.records import TopicReader
from consumer.watch.trace.trace import trace

ALL = Wanted(filter=Filter(), limit=100)
LONG = "x" * 300
OWN = [("trace", b"\x00\xff"), ("trace", b"again"), ("empty", None)]


def poison(event: Event, partition: int = 0) -> dict[str, Any]:
    """A record that is refused as long as BNPL_STRING_MAX_BYTES is 256."""
    value = encoded(event, product_category=LONG)
    return {"key": event["customer_id"], "value": value, "partition": partition, "headers": OWN}


def score(settings: Settings, controller: ShadowModeController) -> None:
    with running(ScoreService(settings, controller)):
        wait_scored(settings)


def surveyed(settings: Settings, limit: int = 100, **narrowed: Any) -> Survey:
    return survey(settings, Filter(**narrowed), limit, lambda *_: None)


def letters(settings: Settings) -> list[Letter]:
    return sorted(surveyed(settings).newest, key=lambda each: (each.at.partition, each.at.offset))


def told(settings: Settings, one: Letter) -> Story:
    return story(settings, (one.at.partition, one.at.offset), lambda *_: None)


def replayed(settings: Settings, wanted: Wanted = ALL) -> tuple[Plan, list[Replay]]:
    done: list[Replay] = []
    return replay(settings, wanted, done.extend), done


def markers(settings: Settings) -> list[Message]:
    found = read_topic(settings, settings.topic_dead_letters)
    return [each for each in found if marker_names()["of"] in dict(each.headers() or ())]


def letter(
    source: str, partition: int | str = 0, offset: int | str = 0, *, stage: str = "validate", error: str = "oversized"
) -> list[tuple[str, bytes]]:
    """Headers of a letter, written by hand."""
    told = {"topic": source, "partition": partition, "offset": offset, "stage": stage, "exception_class_name": error}
    return [(HEADER_NAMES[name], str(value).encode()) for name, value in told.items()]


def test_a_poisoned_record_is_seen_then_replayed_once_its_cause_is_mended_and_ends_as_one_row(
    settings: Settings, controller: ShadowModeController, commands: Commands
) -> None:
    events = simulated(8, seed=50)
    poisoned, good = events[:3], events[3:]
    send(settings, settings.topic_transactions, [poison(each) for each in poisoned])
    bad = [{"key": b"k", "value": encoded(good[0], amount=-1.0)}]
    send(settings, settings.topic_transactions, [*({"value": encoded(each)} for each in good), *bad])

    def dlq(*arguments: str, code: int = 0) -> Command:
        done = commands.run(settings, "dlq", *arguments)
        assert done.process.returncode == code, done.output
        assert LONG not in done.output
        assert not [each for each in events if each["customer_id"] in done.output]
        return done

    with running(SinkService(settings)):
        score(settings, controller)
        wait_stored(settings, len(good))
        seen = json.loads(dlq("ls", "--json").output)
        counts = {(each["class"], each["state"]): each["letters"] for each in seen["counts"]}
        assert counts == {("oversized", "waiting"): 3, ("negative", "waiting"): 1}
        first = next(each for each in seen["letters"] if each["source"] == f"{settings.topic_transactions}/0/0")
        assert "product_category" in first["message"]
        shown = dlq("show", first["letter"]).output
        assert "refused   at validate: oversized: product_category" in shown
        assert "trace: again" in shown

        before = [(m.partition(), m.offset()) for m in read_topic(settings, settings.topic_transactions)]
        narrowed = ("replay", "--class", "oversized", "--max", "10")
        told = json.loads(dlq(*narrowed, "--dry-run", "--json").output)
        assert (told["dry_run"], told["replayed"], len(told["letters"])) == (True, 0, 3)
        assert [(m.partition(), m.offset()) for m in read_topic(settings, settings.topic_transactions)] == before
        assert markers(settings) == []

        told = json.loads(dlq(*narrowed, "--json").output)
        assert (told["replayed"], told["left"]) == (3, 0)
        mended = settings.model_copy(update={"string_max_bytes": 512})
        score(mended, controller)
        wait_stored(settings, len(events))

    assert len(markers(settings)) == 3
    records = {
        f"{m.topic()}/{m.partition()}/{m.offset()}": m for m in read_topic(settings, settings.topic_transactions)
    }
    for each in told["letters"]:
        was, now = records[each["source"]], records[each["replayed_to"]]
        assert (now.key(), now.value()) == (was.key(), was.value())
        *own, attempt, since = now.headers() or []
        assert own == was.headers() == OWN
        assert attempt == ("bnpl.dlq.attempt", b"1")
        assert since == ("bnpl.dlq.first_failed_at", each["first_failed_at"].encode())
    assert sorted(each["transaction_id"] for each in shadow_events(settings)) == sorted(
        each["transaction_id"] for each in events
    )
    assert int(stored(settings)) == int(stored(settings, "uniqExact(transaction_id)")) == len(events)

    assert "nothing to replay" in dlq(*narrowed).output
    again = dlq("replay", first["letter"], code=1).output
    assert f"error: nothing was replayed:\n  {first['letter']}: replayed already, as" in again
    history = dlq("show", first["letter"]).output
    assert f"replayed to {settings.topic_transactions}/" in history
    assert "score has read it, and no letter says that it was refused again" in history
    counts = {(stage, state): each.letters for (_, stage, state), each in surveyed(settings).counts.items()}
    assert counts == {("oversized", "replayed"): 3, ("negative", "waiting"): 1}

    name = poisoned[0]["transaction_id"]
    refused, accepted = trace(mended, name).sendings
    assert (refused.state, accepted.state) == ("replayed", "stored")
    assert refused.told == f"refused at validate: oversized, then replayed as {accepted.at}"
    assert refused.event
    assert refused.letters[0].at == accepted.replay_of
    text = report(trace(mended, name))
    assert f"transaction {name}: sent 2 times, 1 of them by a replay" in text
    assert f"replay of       dead letter {accepted.replay_of}" in text


def test_a_second_failure_counts_on_and_a_record_refused_too_often_is_parked(
    settings: Settings, controller: ShadowModeController
) -> None:
    settings = settings.model_copy(update={"dead_letter_max_attempts": 2})
    spoofed = [("bnpl.dlq.replay.of", b"0/0"), ("own", b"1")]
    send(settings, settings.topic_transactions, [{"key": b"k", "value": b"rubbish", "headers": spoofed}])
    score(settings, controller)
    (first,) = letters(settings)
    assert first.refusal
    assert (first.state, first.refusal.attempt) == ("waiting", 1)
    assert ("own", b"1") in first.headers, "a producer's header of our name is dropped, or it would hide the letter"

    _, (once,) = replayed(settings)
    assert (
        story(settings, (first.at.partition, first.at.offset), lambda *_: None).told == "score has not come to it yet"
    )
    score(settings, controller)
    _, second = letters(settings)
    assert second.refusal
    assert (second.state, second.refusal.attempt) == ("parked", 2)
    assert second.refusal.source == once.to
    assert second.refusal.first_failed_at == first.refusal.first_failed_at

    left_alone, done = replayed(settings)
    assert (left_alone.chosen, done) == ([], [])
    assert left_alone.passed_over == {"parked": 1, "replayed": 1}
    place = (second.at.partition, second.at.offset)
    with pytest.raises(Fatal, match=r"parked, for it was refused 2 times; --parked replays it all the same"):
        replayed(settings, Wanted([place]))
    _, (twice,) = replayed(settings, Wanted([place], parked=True))
    assert twice.of == second.at
    score(settings, controller)
    third = letters(settings)[-1]
    assert third.refusal
    assert third.refusal.attempt == 3
    for each in (first, second, third):
        assert [one.at for one in told(settings, each).attempts] == [first.at, second.at, third.at]
        assert told(settings, each).told == ""


def held(settings: Settings, topic: str) -> int:
    """Offsets of a topic, those of open transactions too."""
    with TopicReader(settings, "read_uncommitted") as reader:
        return sum(end for _, end in reader.held(topic).values())


class Standstill:
    """A letter at which a replay stands still when its record is written and its marker is not."""

    def __init__(self, letter: Message) -> None:
        self._letter = letter
        self.go_on = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._letter, name)

    def topic(self) -> str | None:
        assert self.go_on.wait(60)
        return self._letter.topic()


def test_a_replay_that_stops_in_the_middle_leaves_nothing_half_and_the_next_one_takes_over_and_does_all(
    settings: Settings, controller: ShadowModeController
) -> None:
    send(settings, settings.topic_transactions, [poison(each) for each in simulated(5, seed=51)])
    score(settings, controller)
    sent = held(settings, settings.topic_transactions)
    *records, last = (each.record for each in letters(settings))
    still = Standstill(last)
    with ThreadPoolExecutor(1) as pool:
        stopped = pool.submit(Replayer(settings).replay, [*records, still])
        eventually(lambda: held(settings, settings.topic_transactions) == sent + 5, 30, "its records are written")
        assert len(read_topic(settings, settings.topic_transactions)) == 5, "and not committed"
        assert {each.state for each in letters(settings)} == {"waiting"}
        assert len(replayed(settings)[1]) == 5
        still.go_on.set()
        with pytest.raises(Fenced, match="another `bnpl-shadow dlq replay` took over"):
            stopped.result(40)
    assert len(read_topic(settings, settings.topic_transactions)) == 10
    assert len(markers(settings)) == 5
    assert replayed(settings)[1] == []


def test_markers_that_an_open_transaction_hides_are_waited_for(
    settings: Settings, controller: ShadowModeController
) -> None:
    send(settings, settings.topic_transactions, [{"key": b"k", "value": b"rubbish"}])
    score(settings, controller)
    (first,) = letters(settings)
    producer = Producer(
        {"bootstrap.servers": settings.kafka_bootstrap_servers, "transactional.id": settings.topic_control}
    )
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(settings.topic_dead_letters, b"of score", partition=first.at.partition)
    assert producer.flush(20) == 0
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(replayed, settings)
        eventually(lambda: waiting.running(), 10, "it starts")
        with pytest.raises(TimeoutError):
            waiting.result(3)
        producer.commit_transaction(20)
        found, (done,) = waiting.result(40)
    assert done.of == first.at
    assert found.passed_over == {"foreign": 1}


def test_what_is_no_letter_of_a_record_is_not_replayed_and_each_says_why(
    settings: Settings, commands: Commands
) -> None:
    topic, ours = settings.topic_dead_letters, settings.topic_transactions
    wrong = [
        {"value": b"just a record"},
        {"value": b"x", "headers": letter("somebody.elses.topic")},
        {"value": b"x", "headers": letter(ours, "many")},
        {"value": b"{}", "headers": letter(ours, -1, 7, stage="produce", error="not_json")},
        {"value": None, "headers": letter(ours)},
        {"headers": [(marker_names()["of"], b"0/0")]},
        {"value": None, "key": b"k", "headers": letter(ours, error="tombstone")},
    ]
    send(settings, topic, [{"partition": 0, **each} for each in wrong])
    states = [each.state for each in letters(settings)]
    assert states == ["foreign", "foreign", "foreign", "line", "withheld", "waiting"]

    named = [f"0/{offset}" for offset in range(len(wrong))]
    done = commands.run(settings, "dlq", "replay", *named, "0/99", "7/0", "1/0")
    assert done.process.returncode == 1
    head, *lines = done.output.splitlines()
    assert head == "error: nothing was replayed:"
    told = {place.strip(): why for place, _, why in (line.partition(": ") for line in lines)}
    assert set(told) == {*named[:6], "0/99", "7/0", "1/0"}
    assert {told[place] for place in named[:3]} == {
        "not a dead letter of score or sink: its headers do not name a topic that they read"
    }
    assert "a line of `bnpl-shadow produce`" in told["0/3"]
    assert "too large for a letter" in told["0/4"]
    assert "no dead letter there" in told["0/5"]
    assert read_topic(settings, ours) == []

    done = commands.run(settings, "dlq", "replay", "0/6", "--json")
    assert [each["letter"] for each in json.loads(done.output)["letters"]] == ["0/6"]
    found, none = replayed(settings)
    assert none == []
    assert found.passed_over == {"foreign": 3, "line": 1, "withheld": 1, "replayed": 1}
    (record,) = read_topic(settings, ours)
    assert (record.key(), record.value()) == (b"k", None)

    for place, why in (("0/5", "it is the marker of a replay"), ("0/99", "has no record at offset 99")):
        done = commands.run(settings, "dlq", "show", place)
        assert done.process.returncode == 1
        assert why in done.output
    shown = commands.run(settings, "dlq", "show", "0/0", "--json")
    assert json.loads(shown.output)["class"] is None
    assert commands.run(settings, "dlq", "replay").process.returncode == 2
    assert commands.run(settings, "dlq", "replay", "0/1", "--all").process.returncode == 2


def test_filters_narrow_and_the_oldest_are_replayed_first(settings: Settings, commands: Commands) -> None:
    now = utc_now().replace(microsecond=0)
    kinds = [("decode", "truncated"), ("validate", "oversized"), ("validate", "negative"), ("decode", "truncated")]
    send(
        settings,
        settings.topic_dead_letters,
        [
            {
                "value": b"x",
                "partition": hours % 3,
                "timestamp": int((now - timedelta(hours=hours)).timestamp() * 1000),
                "headers": letter(settings.topic_transactions, 0, hours, stage=stage, error=error),
            }
            for hours, (stage, error) in enumerate(kinds)
        ],
    )

    def taken(**narrowed: Any) -> list[int]:
        """How many hours ago each was refused, the newest first."""
        return [each.refusal.source.offset for each in surveyed(settings, **narrowed).newest if each.refusal]

    def ago(hours: float) -> datetime:
        return now - timedelta(hours=hours)

    assert taken() == [0, 1, 2, 3]
    assert taken(classes=["truncated"]) == [0, 3]
    assert taken(classes=["truncated", "negative"]) == [0, 2, 3]
    assert taken(stages=["validate"]) == [1, 2]
    assert taken(since=ago(2)) == [0, 1, 2]
    assert taken(until=ago(1)) == [2, 3]
    assert taken(since=ago(2), until=ago(0), stages=["validate"], classes=["negative"]) == [2]
    assert taken(states=["parked"]) == []
    assert [each.refusal.source.offset for each in surveyed(settings, 2).newest if each.refusal] == [0, 1]
    (both, _, _) = (found.letters for _, found in sorted(surveyed(settings).counts.items()))
    assert both == 2

    options = [
        "--stage",
        "decode",
        "--class",
        "truncated",
        "--since",
        "210m",
        "--until",
        "30m",
        "--state",
        "waiting",
        "--max",
        "5",
    ]
    shown = json.loads(commands.run(settings, "dlq", "ls", *options, "--json").output)
    assert [each["source"] for each in shown["letters"]] == [f"{settings.topic_transactions}/0/3"]

    def chosen(limit: int, **narrowed: Any) -> tuple[list[int], int]:
        found = plan(settings, Wanted(filter=Filter(**narrowed), limit=limit))
        return [each.refusal.source.offset for each in found.chosen if each.refusal], found.left

    assert chosen(2) == ([3, 2], 2)
    assert chosen(9, classes=["truncated"], since=ago(2.5)) == ([0], 0)
    found, _ = replayed(settings, Wanted(filter=Filter(), limit=3))
    assert found.left == 1
    assert taken(states=["waiting"]) == [0]
    assert set(STATES) >= {each.state for each in letters(settings)}


def test_a_letter_of_the_sink_goes_back_to_the_shadow_scores_and_its_row_stays_one(
    settings: Settings, controller: ShadowModeController
) -> None:
    events = simulated(3, seed=52)
    send(
        settings, settings.topic_transactions, [{"key": each["customer_id"], "value": encoded(each)} for each in events]
    )
    score(settings, controller)
    record = read_topic(settings, settings.topic_shadow_scores)[0]
    told = letter(settings.topic_shadow_scores, record.partition() or 0, record.offset() or 0)
    send(settings, settings.topic_dead_letters, [{"key": record.key(), "value": record.value(), "headers": told}])
    with running(SinkService(settings)):
        wait_stored(settings, 3)
        _, (done,) = replayed(settings)
        assert (done.to.topic, done.to.partition) == (settings.topic_shadow_scores, record.partition())
        newest = f"maxIf(shadow_offset, shadow_partition = {done.to.partition})"
        eventually(lambda: int(stored(settings, newest)) == done.to.offset, 20, "the replayed event is stored")
    assert int(stored(settings)) == 3
    (sending,) = trace(settings, (record.key() or b"").decode()).sendings
    assert sending.state == "stored"
    assert sending.letters[0].replayed_to == done.to


def test_a_value_is_handed_out_on_demand_only(settings: Settings, commands: Commands, tmp_path: Any) -> None:
    headers: Sequence[tuple[str, bytes]] = [*letter(settings.topic_transactions), ("note", b"\x1b[2Jcleared")]
    send(settings, settings.topic_dead_letters, [{"value": b"\x00secret", "partition": 0, "headers": headers}])
    shown = commands.run(settings, "dlq", "show", "0/0")
    assert "secret" not in shown.output
    assert "value     7 bytes, --value hands it out" in shown.output
    assert "note: \\u001b[2Jcleared" in shown.output
    assert hex_lines(b"\x00secret" * 3).splitlines()[1] == f"00000010  {b'ecret'.hex(' '):{len('00 ' * 16) - 1}}  ecret"
    commands.run(settings, "dlq", "show", "0/0", "--value", str(tmp_path / "value"))
    assert (tmp_path / "value").read_bytes() == b"\x00secret"
    assert commands.run(settings, "dlq", "show", "0/0", "--value", "-").output == "\x00secret"
