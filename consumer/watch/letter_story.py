"""Dead letters told: all of them counted and the newest listed, or one with every attempt at it."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from datetime import datetime

from consumer.contracts.dead_letter import Coordinates, is_marker, replay
from consumer.errors import BnplError, Fatal
from consumer.services.dead_letters import headers_of
from consumer.settings import Settings
from consumer.watch.lag import LagReader
from consumer.watch.letters import Filter, Letter, Progress, State, age, letters
from consumer.watch.records import TopicReader

_GROUP_PATIENCE_SECONDS = 3.0


@dataclass
class Count:
    """How many letters are alike, and when the first and the last of them came."""

    first: datetime
    last: datetime
    letters: int = 0

    def add(self, letter: Letter) -> None:
        """Count one in."""
        self.letters += 1
        self.first, self.last = min(self.first, letter.arrived), max(self.last, letter.arrived)


@dataclass
class Survey:
    """What a filter takes of the dead-letter topic."""

    topic: str
    counts: dict[tuple[str, str, State], Count] = field(default_factory=dict)
    """By stage, class and state."""
    newest: list[Letter] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(each.letters for each in self.counts.values())


def survey(settings: Settings, wanted: Filter, limit: int, progress: Progress) -> Survey:
    """Count what `wanted` takes, and keep the newest `limit`. Raises KafkaUnavailable."""
    found = Survey(settings.topic_dead_letters)
    with TopicReader(settings) as reader:
        for piece in letters(settings, reader, reader.held(found.topic, wanted.since), progress):
            taken = [each for each in piece if wanted.takes(each)]
            for each in taken:
                count = found.counts.setdefault((*each.kind, each.state), Count(each.arrived, each.arrived))
                count.add(each)
            found.newest = heapq.nlargest(limit, [*found.newest, *taken], key=age)
    return found


@dataclass(frozen=True)
class Story:
    """One letter, and every refusal of its record. `told` says how far the last replay of it is."""

    letter: Letter
    attempts: list[Letter]
    """The oldest first, `letter` among them."""
    told: str


def story(settings: Settings, place: tuple[int, int], progress: Progress) -> Story:
    """All about the letter at (partition, offset). Raises Fatal when there is none, and KafkaUnavailable."""
    at = Coordinates(settings.topic_dead_letters, *place)
    with TopicReader(settings) as reader:
        held = reader.held(at.topic)
        low, high = held.get(at.partition, (0, 0))
        record = reader.at(at) if low <= at.offset < high else None
        if record is None:
            there = f"it has {low} to {high - 1}" if low < high else "it is empty"
            what = f"partition {at.partition} of {at.topic} has no record at offset {at.offset}: {there}"
            raise Fatal(f"{what}; transactions take some offsets; see `bnpl-shadow dlq ls`")
        headers = headers_of(record) or ()
        if is_marker(headers):
            told = replay(at.topic, headers)
            of = f" of letter {told.of.partition}/{told.of.offset}" if told else ""
            raise Fatal(f"{place[0]}/{place[1]} is no dead letter, it is the marker of a replay{of}")
        found = [each for piece in letters(settings, reader, held, progress) for each in piece]
    (letter,) = (each for each in found if each.at == at)
    attempts = _attempts(letter, found)
    return Story(letter, attempts, _outlook(settings, attempts[-1]))


def _attempts(letter: Letter, found: list[Letter]) -> list[Letter]:
    """The letters of one record: a replay leads to the place that the next one names as its source."""
    by_source = {each.refusal.source: each for each in found if each.refusal}
    by_replay = {each.replay.to: each for each in found if each.replay}
    chain = [letter]
    while (first := chain[0].refusal) and (before := by_replay.get(first.source)) and before not in chain:
        chain.insert(0, before)
    while (again := chain[-1].replay) and (after := by_source.get(again.to)) and after not in chain:
        chain.append(after)
    return chain


def _outlook(settings: Settings, last: Letter) -> str:
    """What became of the last replay; nothing to say where there was none."""
    if last.replay is None:
        return ""
    to, name, group = last.replay.to, "sink", settings.sink_group
    if to.topic == settings.topic_transactions:
        name, group = "score", settings.score_group
    try:
        with LagReader(settings, group, [to.topic]) as lag:
            positions = {each.partition: each.position for each in lag.look(_GROUP_PATIENCE_SECONDS).partitions}
    except BnplError as error:
        return f"where {name} is could not be asked: {error}"
    if positions.get(to.partition, 0) <= to.offset:
        return f"{name} has not come to it yet"
    return f"{name} has read it, and no letter says that it was refused again"
