"""How far to compare, so that a system that goes on working shows no fault that is none.

The order is what makes it sound: whatever is asked later may only have gone on.

1. how far sink has committed      shadow events before that have a row, or a letter of the sink
2. how far score has committed     transactions before that have a shadow event or a letter
3. the ends of the topics that score writes, those of open transactions included
4. wait until all of 3 may be read
5. the end of transactions         whatever an event names that was read up to 3 stands before it

Events, letters and offsets become visible by markers, one a partition, and the group's offsets may get theirs first
(docs/decisions/0003). Whatever belongs to offsets that 2 saw was written before, so it stands before 3; after 4 its
fate is known. What lies beyond 1 or 2 is on its way and no fault.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta

from consumer.clock import Deadline
from consumer.errors import KafkaUnavailable
from consumer.settings import Settings
from consumer.watch.lag import LagReader
from consumer.watch.records import Ranges, TopicReader

_CLEANUP_SECONDS = 20.0
"""A broker looks every 10 s for transactions that took too long, and then aborts them."""
_WAIT_SECONDS = 0.05


@dataclass(frozen=True)
class Looked:
    """What is looked at of a topic, by partition: from `starts` on, and before `ends`."""

    topic: str
    starts: dict[int, int]
    ends: dict[int, int]

    @property
    def ranges(self) -> Ranges:
        return {partition: (self.starts[partition], end) for partition, end in self.ends.items()}


@dataclass(frozen=True)
class Bounds:
    """How far to compare."""

    transactions: Looked
    scores: Looked
    letters: Looked
    scored: dict[int, int]
    """By partition of transactions: what stands before it must be accounted for."""
    stored: dict[int, int]
    """By partition of scores: what stands before it must have a row."""


def take(settings: Settings, reader: TopicReader, since: datetime | None) -> Bounds:
    """Takes as long as the transactions that are open now. Raises KafkaUnavailable when one stays open."""
    scores, letters = settings.topic_shadow_scores, settings.topic_dead_letters
    stored = _positions(settings, settings.sink_group, scores)
    scored = _positions(settings, settings.score_group, settings.topic_transactions)
    with TopicReader(settings, isolation="read_uncommitted") as ahead:
        written = {topic: ahead.held(topic) for topic in (scores, letters)}
    patience = Deadline.after(settings.transaction_timeout_ms / 1000 + _CLEANUP_SECONDS)
    for topic, held in written.items():
        _wait_until_readable(reader, topic, held, patience)
    # the clock of whoever sends may be ahead of score's by so much, or its transactions are refused
    margin = timedelta(seconds=settings.event_max_future_seconds)
    return Bounds(
        transactions=_looked(reader, settings.topic_transactions, reader.held(settings.topic_transactions), since),
        scores=_looked(reader, scores, written[scores], since and since - margin),
        letters=_looked(reader, letters, written[letters], since and since - margin),
        scored=scored,
        stored=stored,
    )


def kept(reader: TopicReader, looked: Looked) -> tuple[dict[int, int], bool]:
    """To be asked after the topic was read: from where on nothing is missing, by partition, and whether retention has
    deleted records that would have been looked at.
    """
    begins = {partition: begin for partition, (begin, _) in reader.held(looked.topic).items()}
    starts = {partition: max(start, begins[partition]) for partition, start in looked.starts.items()}
    return starts, any(0 < begins[partition] >= start for partition, start in looked.starts.items())


def _positions(settings: Settings, group: str, topic: str) -> dict[int, int]:
    with LagReader(settings, group, [topic]) as lag:
        return {each.partition: min(each.position, each.end) for each in lag.look().partitions}


def _wait_until_readable(reader: TopicReader, topic: str, written: Ranges, deadline: Deadline) -> None:
    while True:
        readable = reader.held(topic)
        held_back = [partition for partition, (_, end) in written.items() if readable[partition][1] < end]
        if not held_back:
            return
        if deadline.passed:
            raise KafkaUnavailable(
                f"a transaction on {topic}/{held_back[0]} stays open, and nobody can read what it holds back; "
                "find its producer by `kafka-transactions.sh find-hanging`"
            )
        time.sleep(_WAIT_SECONDS)


def _looked(reader: TopicReader, topic: str, held: Ranges, since: datetime | None) -> Looked:
    starts = held if since is None else reader.held(topic, since)
    ends = {partition: end for partition, (_, end) in held.items()}
    return Looked(topic, {partition: min(starts[partition][0], end) for partition, end in ends.items()}, ends)
