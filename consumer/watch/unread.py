"""Since when a group has something to read: the arrival of the first record that it has yet to read.

The record is looked up as the group itself reads, read_committed: markers are no records, and an aborted record is
never read, so neither makes a quiet topic look late. What an open transaction holds back may yet be either; it counts
from the moment it was first seen held back, so that a transaction that hangs shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaError, Message, TopicPartition

from consumer.clock import Deadline
from consumer.errors import KafkaUnavailable
from consumer.services.kafka import consumer_config, made
from consumer.settings import Settings

_SMALL_BYTES = 16 * 1024
QUIET = {"log_level": 2}
"""For clients that only look: what they cannot reach their caller says, and the service's own clients log as well."""

Key = tuple[str, int]
"""Topic and partition."""


@dataclass(frozen=True)
class _Since:
    """Since when a partition waits, and the offsets that this holds for."""

    at: datetime
    offsets: tuple[int, ...]


class OldestUnread:
    """Remembers an answer for as long as it holds: a group that hangs costs no fetch, its lag rises with the clock.

    For one thread. A consumer of its own, because what it may see is another isolation level's than the reader's.
    """

    def __init__(self, settings: Settings, group: str) -> None:
        """Raises ConfigurationError when the client's settings cannot be used."""
        small = {
            "enable.partition.eof": True,
            "queued.min.messages": 1,
            "fetch.message.max.bytes": _SMALL_BYTES,
            "fetch.wait.max.ms": 10,
        }
        self._consumer = made(Consumer, consumer_config(settings, group, "classic") | small | QUIET)
        self._records: dict[Key, _Since] = {}
        """First unread records, by the position they were looked up from."""
        self._held: dict[Key, _Since] = {}
        """Where an open transaction is all there is, by position and the transaction's first offset."""

    def find(self, partitions: Mapping[Key, tuple[int, int]], at: datetime, deadline: Deadline) -> dict[Key, datetime]:
        """Since when something waits, by partition, given where the group goes on and where the log ends; without those
        where nothing does.

        `at` is when the partitions were looked at: the latest answer there can be, also for a record whose timestamp is
        missing or of the future. Raises KafkaUnavailable when the broker does not hand out a record in time, and
        KafkaException when it does not say how far one may read.
        """
        behind = {key: position for key, (position, end) in partitions.items() if position < end}
        self._records = {key: each for key, each in self._records.items() if each.offsets == (behind.get(key),)}
        asked = {key: position for key, position in behind.items() if key not in self._records}
        readable = {key: self._readable(key, deadline) for key in asked}
        found = self._first_records({key: start for key, start in asked.items() if start < readable[key]}, deadline)
        for key, record in found.items():
            self._records[key] = _Since(arrival(*record.timestamp(), at), (asked[key],))
        held = {key: (asked[key], readable[key]) for key in asked.keys() - found.keys()}
        self._held = {
            key: self._held[key] if key in self._held and self._held[key].offsets == offsets else _Since(at, offsets)
            for key, offsets in held.items()
            if readable[key] < partitions[key][1]
        }
        return {key: since.at for key, since in (self._held | self._records).items()}

    def _readable(self, key: Key, deadline: Deadline) -> int:
        """The end for readers of what is committed: where the oldest open transaction begins, if there is one."""
        _, end = self._consumer.get_watermark_offsets(TopicPartition(*key), deadline.remaining)
        return int(end)

    def _first_records(self, positions: Mapping[Key, int], deadline: Deadline) -> dict[Key, Message]:
        """The first record at or after each position, where there is one."""
        found: dict[Key, Message] = {}
        if not positions:
            return found
        missing, complaint = set(positions), "no answer"
        self._consumer.assign([TopicPartition(*key, offset) for key, offset in positions.items()])
        try:
            while missing:
                message = self._consumer.poll(deadline.remaining)
                if message is None:
                    raise KafkaUnavailable(f"the first unread record was not fetched in time: {complaint}")
                key, error = (message.topic(), message.partition()), message.error()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    complaint = error.str()  # also one that is over: errors wait in the client until they are read
                elif key in missing:
                    missing.remove(key)
                    self._consumer.incremental_unassign([TopicPartition(*key)])
                    if error is None:
                        found[key] = message
        finally:
            self._consumer.unassign()
        return found

    def close(self) -> None:
        """End the connection."""
        self._consumer.close()


def arrival(kind: int, milliseconds: int, at: datetime) -> datetime:
    """A record's timestamp as aware UTC; `at` when it has none, none that a calendar holds, or one after `at`."""
    if kind == TIMESTAMP_NOT_AVAILABLE or milliseconds < 0:
        return at
    try:
        return min(at, datetime.fromtimestamp(milliseconds / 1000, UTC))
    except (ValueError, OverflowError, OSError):
        return at
