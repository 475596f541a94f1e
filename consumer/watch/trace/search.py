"""Where a transaction left its marks: rows by its id, events by the partition of its key, the rest by reading."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from consumer.clock import Deadline
from consumer.contracts.dead_letter import Coordinates, Refusal
from consumer.services.clickhouse import connect, errors_named
from consumer.services.rows import SCORES
from consumer.settings import Settings
from consumer.watch.letters import Letter, Progress, age, letters
from consumer.watch.records import Ranges, TopicReader, newest_first

_CHUNK = 100_000
"""Offsets of a partition that are read at a time, the newest first."""
_TELL_SECONDS = 0.2


def stored_rows(settings: Settings, transaction_id: str) -> list[dict[str, Any]]:
    """Every row of a transaction, outcome included, those not yet replaced by a later one among them.

    Raises ClickHouseUnavailable, or Fatal when the tables are not as they should be.
    """
    asked = {"id": transaction_id}
    with connect(settings) as client, errors_named():
        rows = client.query(f"SELECT * FROM {SCORES.name} WHERE transaction_id = {{id:String}}", asked)  # noqa: S608
        outcomes = client.query(
            "SELECT prediction_id, actual_default, days_to_resolution, opportunity_cost "
            "FROM shadow_predictions WHERE transaction_id = {id:String}",
            asked,
        )
    known = {each["prediction_id"]: each for each in outcomes.named_results()}
    return [{**row, **known.get(row["prediction_id"], {})} for row in rows.named_results()]


class Search:
    """Looks for one transaction's records in the topics."""

    def __init__(
        self, reader: TopicReader, transaction_id: str, since: datetime | None, everything: bool, progress: Progress
    ) -> None:
        """`since` bounds by Kafka's times; without `everything` a search of all partitions ends where something is
        found, the newest records first.
        """
        self._reader, self._since, self._everything, self._progress = reader, since, everything, progress
        self._id = transaction_id.encode()
        self._marks = (_avro_string(self._id), b'"' + self._id + b'"')

    def keyed(self, topic: str) -> list[Any]:
        """Records whose key is the id: they are all in one partition."""
        held = self._reader.held(topic, self._since)
        partition = partition_of(self._id, len(held))
        return self._scan(topic, {partition: held[partition]}, lambda message: message.key() == self._id, True)

    def mentioning(self, topic: str) -> list[Any]:
        """Records of any key that hold the id as a string, of Avro or JSON."""
        return self._scan(topic, self._reader.held(topic, self._since), self._mentions, self._everything)

    def letters(self, settings: Settings, places: set[Coordinates]) -> list[tuple[Letter, Refusal]]:
        """Dead letters of records that were read at these places, or became them by a replay, or that hold the id;
        the oldest first.

        Without `everything` a search ends where some are found, and goes on while all of those were refused before.
        """
        found: list[tuple[Letter, Refusal]] = []
        held = self._reader.held(settings.topic_dead_letters, self._since)
        for piece in letters(settings, self._reader, held, self._progress):
            told = [(each, each.refusal) for each in piece if each.refusal]
            found += [(each, why) for each, why in told if self._is_ours(each, why, places)]
            if found and not self._everything and any(why.attempt == 1 for _, why in found):
                break
        return sorted(found, key=lambda each: age(each[0]))

    def _is_ours(self, letter: Letter, why: Refusal, places: set[Coordinates]) -> bool:
        came_of_it = letter.replay and letter.replay.to in places
        return bool(came_of_it) or why.source in places or self._mentions(letter.record)

    def _mentions(self, message: Any) -> bool:
        value = message.value()
        return value is not None and any(mark in value for mark in self._marks)

    def _scan(self, topic: str, held: Ranges, ours: Callable[[Any], bool], everything: bool) -> list[Any]:
        total, done, due = sum(end - start for start, end in held.values()), 0, Deadline.after(0)
        found: list[Any] = []
        for piece in newest_first(held, _CHUNK):
            for records in self._reader.read(topic, piece):
                found += [message for message in records if ours(message)]
                done += len(records)
                if due.passed:
                    self._progress(topic, done, total)
                    due = Deadline.after(_TELL_SECONDS)
            if found and not everything:
                break
        self._progress(topic, total, total)
        return sorted(found, key=lambda message: (message.timestamp()[1], message.partition(), message.offset()))


def partition_of(key: bytes, partitions: int) -> int:
    """Where Kafka's Java clients, and ours, put a key: murmur2 modulo the number of partitions."""
    return (_murmur2(key) & 0x7FFFFFFF) % partitions


def _murmur2(data: bytes) -> int:
    """Austin Appleby's MurmurHash2 with Kafka's seed (org.apache.kafka.common.utils.Utils.murmur2)."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for k in _words(data[:whole]):
        k = k * m & mask
        k ^= k >> 24
        h = h * m & mask ^ k * m & mask
    if rest := data[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h ^= h >> 13
    h = h * m & mask
    return h ^ h >> 15


def _words(data: bytes) -> Iterator[int]:
    return (int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4))


def _avro_string(text: bytes) -> bytes:
    """A string as an Avro body holds it: its length, zigzag and variable, then its bytes."""
    left, head = len(text) << 1, bytearray()
    while left > 0x7F:
        head.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([*head, left]) + text
