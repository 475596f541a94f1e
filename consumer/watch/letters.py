"""Dead letters and what became of them. Their topic holds all of it: the letters, and the markers of those that were
replayed, each behind its letter in the same partition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from consumer.contracts.dead_letter import Coordinates, Headers, Refusal, Replay, is_marker, refusal, replay
from consumer.services.dead_letters import headers_of
from consumer.settings import Settings
from consumer.watch.records import Ranges, TopicReader, newest_first

State = Literal["waiting", "replayed", "parked", "line", "withheld", "foreign"]
STATES: tuple[State, ...] = get_args(State)

Progress = Callable[[str, int, int], None]
"""Told now and then: the topic, how many of its offsets were looked at, and of how many."""

_CHUNK = 10_000
"""Offsets of a partition that are read at a time."""


@dataclass(frozen=True)
class Letter:
    """One record of the dead-letter topic that is no marker.

    `state`: waiting (it can be replayed), replayed, parked (it was refused too often), line (of `bnpl-shadow produce`
    or `outcomes load`: it never was in a topic), withheld (its value was too large for a letter), foreign (no letter of
    score or sink).
    """

    at: Coordinates
    arrived: datetime
    """Kafka's time of the letter: when it was refused."""
    state: State
    refusal: Refusal | None
    """None for a record that is no dead letter."""
    replay: Replay | None
    record: Any = field(repr=False, compare=False)

    @property
    def place(self) -> str:
        """How commands name it."""
        return f"{self.at.partition}/{self.at.offset}"

    @property
    def headers(self) -> Headers:
        return headers_of(self.record) or ()

    @property
    def kind(self) -> tuple[str, str]:
        """Stage and class."""
        return (self.refusal.stage, self.refusal.error) if self.refusal else ("-", "not a dead letter")


@dataclass(frozen=True)
class Filter:
    """Which letters are meant: those that fit everything that is given."""

    classes: Sequence[str] = ()
    stages: Sequence[str] = ()
    states: Sequence[str] = STATES
    since: datetime | None = None
    until: datetime | None = None

    def takes(self, letter: Letter) -> bool:
        stage, error = letter.kind
        return (
            (not self.classes or error in self.classes)
            and (not self.stages or stage in self.stages)
            and letter.state in self.states
            and (self.since is None or letter.arrived >= self.since)
            and (self.until is None or letter.arrived < self.until)
        )


def letters(settings: Settings, reader: TopicReader, held: Ranges, progress: Progress) -> Iterator[list[Letter]]:
    """The letters of these ranges of the dead-letter topic, the last ones first, some at a time.

    The ranges must go to the end of what is known: a letter whose marker lies behind them looks as if it waited.
    """
    topic, replays = settings.topic_dead_letters, dict[Coordinates, Replay]()
    done, total = 0, sum(end - start for start, end in held.values())
    for piece in newest_first(held, _CHUNK):
        found = []
        for record in (each for records in reader.read(topic, piece) for each in records):
            headers = headers_of(record) or ()
            if not is_marker(headers):
                found.append((record, headers))
            elif told := replay(topic, headers):
                replays[told.of] = told
        done += sum(end - start for start, end in piece.values())
        progress(topic, done, total)
        yield sorted(
            (_letter(settings, record, headers, replays) for record, headers in found),
            key=age,
            reverse=True,
        )


def age(letter: Letter) -> tuple[datetime, int, int]:
    """To sort by: the oldest first."""
    return letter.arrived, letter.at.partition, letter.at.offset


def _letter(settings: Settings, record: Any, headers: Headers, replays: dict[Coordinates, Replay]) -> Letter:
    at = Coordinates(record.topic(), record.partition(), record.offset())
    why, again = refusal(headers), replays.get(at)
    arrived = datetime.fromtimestamp(max(0, record.timestamp()[1]) / 1000, UTC)
    return Letter(at, arrived, _state(settings, why, record.value(), again), why, again, record)


def _state(settings: Settings, why: Refusal | None, value: bytes | None, again: Replay | None) -> State:
    ours = (settings.topic_transactions, settings.topic_shadow_scores, settings.topic_outcomes)
    if why is None or why.source.topic not in ours:
        return "foreign"
    if again is not None:
        return "replayed"
    if why.source.partition < 0:
        return "line"
    if value is None and why.error != "tombstone":
        return "withheld"
    return "parked" if why.attempt >= settings.dead_letter_max_attempts else "waiting"
