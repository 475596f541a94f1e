"""Records of a topic at chosen places, for looking: joins no group, moves no group's place."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from consumer.clock import Deadline
from consumer.contracts.dead_letter import Coordinates
from consumer.errors import KafkaUnavailable
from consumer.services.kafka import as_error, consumer_config, made
from consumer.settings import Settings

Ranges = dict[int, tuple[int, int]]
"""Offsets by partition: the first, and the one after the last."""

_ANSWER_SECONDS = 6.0
_SILENCE_SECONDS = 10.0
_WAIT_SECONDS = 0.1
_READ_AT_ONCE = 10_000
_MOVING = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)
"""What brokers answer while a partition gets a leader: one that was made a moment ago, or that moves."""


class TopicReader:
    """Reads what is committed; `uncommitted`, also what open transactions wrote. A context manager, for one thread;
    every call raises KafkaUnavailable when no broker answers in time.
    """

    def __init__(
        self, settings: Settings, isolation: Literal["read_committed", "read_uncommitted"] = "read_committed"
    ) -> None:
        """To a `read_uncommitted` one a topic also holds what open transactions wrote."""
        config = consumer_config(settings, "bnpl-watch", "classic") | {"enable.partition.eof": True}
        self._consumer = made(Consumer, config | {"isolation.level": isolation})

    def topics(self) -> set[str]:
        """The names of all topics."""
        try:
            return set(self._consumer.list_topics(timeout=_ANSWER_SECONDS).topics)
        except KafkaException as error:
            raise as_error(error) from error

    def held(self, topic: str, since: datetime | None = None, until: datetime | None = None) -> Ranges:
        """What the topic holds now, from the first record of each partition that Kafka dates at `since` or later to the
        last one before the first that it dates at `until` or later.

        Raises Fatal when there is no such topic.
        """
        deadline = Deadline.after(_ANSWER_SECONDS)
        while True:
            try:
                return self._held(topic, since, until)
            except KafkaException as error:
                if error.args[0].code() not in _MOVING or deadline.passed:
                    raise as_error(error) from error
                time.sleep(_WAIT_SECONDS)

    def _held(self, topic: str, since: datetime | None, until: datetime | None) -> Ranges:
        found = self._consumer.list_topics(topic, _ANSWER_SECONDS).topics[topic]
        if found.error is not None:
            raise KafkaException(found.error)
        places = [TopicPartition(topic, number) for number in sorted(found.partitions)]
        bounds = {each.partition: self._bounds(each) for each in places}
        starts = self._first_at(places, since) if since else {}
        stops = self._first_at(places, until) if until else {}
        return {
            number: (starts.get(number, end if since else begin), stops.get(number, end))
            for number, (begin, end) in bounds.items()
        }

    def _first_at(self, places: list[TopicPartition], when: datetime) -> dict[int, int]:
        """The first record that Kafka dates at `when` or later, of the partitions that have one."""
        asked = [TopicPartition(each.topic, each.partition, int(when.timestamp() * 1000)) for each in places]
        answers = self._consumer.offsets_for_times(asked, _ANSWER_SECONDS)
        return {each.partition: each.offset for each in answers if each.offset >= 0}

    def _bounds(self, place: TopicPartition) -> tuple[int, int]:
        low, high = self._consumer.get_watermark_offsets(place, _ANSWER_SECONDS)
        return int(low), int(high)

    def read(self, topic: str, ranges: Ranges) -> Iterator[list[Any]]:
        """The records of these ranges, some at a time, each partition in order."""
        ends = {partition: end for partition, (start, end) in ranges.items() if start < end}
        try:
            self._consumer.assign([TopicPartition(topic, partition, ranges[partition][0]) for partition in ends])
            deadline = Deadline.after(_SILENCE_SECONDS)
            while ends:
                messages = self._consumer.consume(_READ_AT_ONCE, 0.1)
                if records := [each for each in messages if _counts(each, ends)]:
                    yield records
                if messages:
                    deadline = Deadline.after(_SILENCE_SECONDS)
                elif deadline.passed:
                    raise KafkaUnavailable(f"Kafka gave nothing of {topic} for {_SILENCE_SECONDS:.0f} s")
        except KafkaException as error:
            raise as_error(error) from error
        finally:
            self._consumer.unassign()

    def at(self, place: Coordinates) -> Any | None:
        """The record at a place, or None when it is not there any more."""
        for records in self.read(place.topic, {place.partition: (place.offset, place.offset + 1)}):
            return records[0]
        return None

    def newest(self, topic: str, count: int) -> list[Any]:
        """Up to `count` of the last records of each partition; a transaction's marker takes the place of one."""
        ranges = {partition: (max(low, high - count), high) for partition, (low, high) in self.held(topic).items()}
        return [each for records in self.read(topic, ranges) for each in records]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()


def newest_first(ranges: Ranges, count: int) -> Iterator[Ranges]:
    """The ranges in pieces of at most `count` offsets a partition, the last ones first."""
    left = {partition: bounds for partition, bounds in ranges.items() if bounds[0] < bounds[1]}
    while left:
        yield {partition: (max(start, end - count), end) for partition, (start, end) in left.items()}
        left = {partition: (start, end - count) for partition, (start, end) in left.items() if start < end - count}


def _counts(message: Any, ends: dict[int, int]) -> bool:
    """Whether it is a record of a range that is not finished; ends are struck out as they are reached."""
    error, partition, offset = message.error(), message.partition(), message.offset()
    if error is not None:
        if error.code() != KafkaError._PARTITION_EOF:
            raise KafkaException(error)
        ends.pop(partition, None)
        return False
    end = ends.get(partition)
    if end is None:
        return False
    if offset >= end - 1:
        del ends[partition]
    return bool(offset < end)
