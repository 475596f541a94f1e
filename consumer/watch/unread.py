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

Key = tuple[str, int]
"""Topic and partition."""


@dataclass(frozen=True)
class Waiting:
    """A partition from where the group goes on (`position`): readable up to `readable`, then held back up to `end`."""

    position: int
    readable: int
    end: int

    @property
    def held_back(self) -> bool:
        """Whether a transaction is open, and with it everything after it closed to readers."""
        return self.readable < self.end


@dataclass(frozen=True)
class _Known:
    waiting: Waiting
    since: datetime | None
    record: bool

    def holds(self, now: Waiting) -> bool:
        """A record stays the first while the group does not move; none stays none while no more is readable."""
        before = self.waiting
        return before.position == now.position and (
            self.record or (before.readable, before.held_back) == (now.readable, now.held_back)
        )


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
        self._consumer = made(Consumer, consumer_config(settings, group, "classic") | small)
        self._known: dict[Key, _Known] = {}

    def find(self, partitions: Mapping[Key, Waiting], at: datetime, deadline: Deadline) -> dict[Key, datetime | None]:
        """By partition, since when something waits; None where nothing does.

        `at` is when the partitions were looked at: the latest answer there can be, also for a record whose timestamp is
        missing or of the future. Raises KafkaUnavailable when the broker does not hand out a record in time.
        """
        kept = {key: known for key, known in self._known.items() if key in partitions and known.holds(partitions[key])}
        asked = {
            key: waiting.position
            for key, waiting in partitions.items()
            if key not in kept and waiting.position < waiting.readable
        }
        records = self._first_records(asked, deadline) if asked else {}
        self._known = kept | {
            key: _known(waiting, records.get(key), at) for key, waiting in partitions.items() if key not in kept
        }
        return {key: known.since for key, known in self._known.items()}

    def _first_records(self, positions: Mapping[Key, int], deadline: Deadline) -> dict[Key, Message]:
        """The first record at or after each position, where there is one."""
        found: dict[Key, Message] = {}
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


def _known(waiting: Waiting, record: Message | None, at: datetime) -> _Known:
    if record is None:
        return _Known(waiting, at if waiting.held_back and waiting.position < waiting.end else None, record=False)
    return _Known(waiting, arrival(*record.timestamp(), at), record=True)


def arrival(kind: int, milliseconds: int, at: datetime) -> datetime:
    """A record's timestamp as aware UTC; `at` when it has none, none that a calendar holds, or one after `at`."""
    if kind == TIMESTAMP_NOT_AVAILABLE or milliseconds < 0:
        return at
    try:
        return min(at, datetime.fromtimestamp(milliseconds / 1000, UTC))
    except (ValueError, OverflowError, OSError):
        return at
