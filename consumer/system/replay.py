"""One replay of dead letters: take over, look what is there, choose, send."""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from consumer.clock import Deadline
from consumer.contracts.dead_letter import Replay
from consumer.errors import Fatal, KafkaUnavailable
from consumer.services.kafka import require_topics
from consumer.services.replay import LETTERS_AT_ONCE, Replayer
from consumer.settings import Settings
from consumer.watch.letters import Filter, Letter, Progress, State, age, letters
from consumer.watch.records import Ranges, TopicReader

_GRACE_SECONDS = 10.0
"""How late a broker may be to abort a transaction that timed out."""
_WAIT_SECONDS = 0.1

Place = tuple[int, int]
"""Partition and offset of a letter."""


@dataclass(frozen=True)
class Wanted:
    """Which letters to replay: those at `places`, all of them or none; without places the oldest that `filter` takes,
    up to `limit`.
    """

    places: Sequence[Place] = ()
    filter: Filter = field(default_factory=Filter)
    limit: int = 0
    parked: bool = False
    """Also those that are parked."""

    def may(self, letter: Letter) -> bool:
        """Whether its state lets it be replayed."""
        return letter.state == "waiting" or (letter.state == "parked" and self.parked)


@dataclass
class Plan:
    """What a replay does."""

    chosen: list[Letter] = field(default_factory=list)
    """The oldest first."""
    left: int = 0
    """Letters that could be replayed as well, beyond the limit."""
    passed_over: Counter[State] = field(default_factory=Counter)
    """Letters that the filter takes and that are not for replaying, by state."""


def replay(
    settings: Settings, wanted: Wanted, done: Callable[[list[Replay]], None], progress: Progress = lambda *_: None
) -> Plan:
    """Replay what is wanted, and tell what that was; `done` is called after every transaction.

    Raises Fatal that names every place that cannot be replayed, and what Replayer raises; what `done` was told of stays
    replayed, and the same call goes on after it.
    """
    _require_topics(settings)
    replayer = Replayer(settings)  # first: what is read from here on nobody else replays
    found = plan(settings, wanted, progress)
    for start in range(0, len(found.chosen), LETTERS_AT_ONCE):
        piece = found.chosen[start : start + LETTERS_AT_ONCE]
        done(replayer.replay([each.record for each in piece]))
    return found


def plan(settings: Settings, wanted: Wanted, progress: Progress = lambda *_: None) -> Plan:
    """What `replay` would do now. Raises Fatal that names every place that cannot be replayed."""
    _require_topics(settings)
    with TopicReader(settings) as reader:
        held = _settled(settings, reader)
        if wanted.places:
            return Plan(_named(settings, reader, held, wanted, progress))
        found, chosen = Plan(), list[Letter]()
        for piece in letters(settings, reader, held, progress):
            taken = [each for each in piece if wanted.filter.takes(each)]
            fit = [each for each in taken if wanted.may(each)]
            found.passed_over.update(each.state for each in taken if not wanted.may(each))
            found.left += len(fit)
            chosen = heapq.nsmallest(wanted.limit, [*chosen, *fit], key=age)
        found.chosen, found.left = chosen, found.left - len(chosen)
        return found


def _named(settings: Settings, reader: TopicReader, held: Ranges, wanted: Wanted, progress: Progress) -> list[Letter]:
    """The letters at the places that were named; Fatal when one of them is not to be replayed."""
    first: dict[int, int] = {}
    for partition, offset in wanted.places:
        first[partition] = min(offset, first.get(partition, offset))
    asked = {
        partition: (max(offset, held[partition][0]), held[partition][1])
        for partition, offset in first.items()
        if partition in held
    }
    found = {
        (each.at.partition, each.at.offset): each
        for piece in letters(settings, reader, asked, progress)
        for each in piece
        if (each.at.partition, each.at.offset) in wanted.places
    }
    refused = [
        f"  {partition}/{offset}: {_why_not(settings, found.get((partition, offset)))}"
        for partition, offset in dict.fromkeys(wanted.places)
        if not (letter := found.get((partition, offset))) or not wanted.may(letter)
    ]
    if refused:
        raise Fatal("\n".join(["nothing was replayed:", *refused]))
    return sorted(found.values(), key=age)


def _why_not(settings: Settings, letter: Letter | None) -> str:
    if letter is None:
        return (
            f"{settings.topic_dead_letters} has no dead letter there: `bnpl-shadow dlq ls` lists those it has, and "
            "retention removes them in time"
        )
    if letter.replay:
        return (
            f"replayed already, as {letter.replay.to} at {letter.replay.at}; a second failure has a letter of its own"
        )
    if letter.refusal and letter.state == "parked":
        return f"parked, for it was refused {letter.refusal.attempt} times; --parked replays it all the same"
    return WHY_NOT[letter.state]


WHY_NOT: dict[State, str] = {
    "replayed": "replayed already",
    "parked": "parked, for they were refused too often; --parked replays them all the same",
    "line": "a line of `bnpl-shadow produce` or `outcomes load`, never in a topic: mend it and send it by that command",
    "withheld": "the value was too large for a letter: it stays where it was read, as `bnpl-shadow dlq show` tells",
    "foreign": "not a dead letter of score or sink: its headers do not name a topic that they read",
}
"""Why a letter is not for replaying, by its state."""


def _settled(settings: Settings, reader: TopicReader) -> Ranges:
    """All that the topic holds now. An open transaction of score hides what lies behind its first letter, markers of a
    replay that has ended among it: that is waited for.
    """
    topic = settings.topic_dead_letters
    with TopicReader(settings, isolation="read_uncommitted") as everything:
        ends = {partition: end for partition, (_, end) in everything.held(topic).items()}
    deadline = Deadline.after(settings.transaction_timeout_ms / 1000 + _GRACE_SECONDS)
    while True:
        held = reader.held(topic)
        if all(held[partition][1] >= end for partition, end in ends.items()):
            return held
        if deadline.passed:
            raise KafkaUnavailable(
                f"a transaction in {topic} stays open and hides what lies behind it: see whether score hangs, and try "
                "again"
            )
        time.sleep(_WAIT_SECONDS)


def _require_topics(settings: Settings) -> None:
    events = (settings.topic_transactions, settings.topic_shadow_scores, settings.topic_outcomes)
    require_topics(settings, settings.topic_dead_letters, *events)
