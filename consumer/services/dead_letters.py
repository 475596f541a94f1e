"""Dead letters: how a refused record is sent, and the limit that stops a service rather than let it drain a topic."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from operator import methodcaller
from typing import Any

import numpy as np
import numpy.typing as npt
from confluent_kafka import KafkaException, Producer

from consumer.clock import utc_now
from consumer.contracts.avro import Rejected
from consumer.contracts.dead_letter import Coordinates, Headers, headers
from consumer.errors import DeadLetterLimit, InvalidRecord, KafkaUnavailable
from consumer.logs import get_logger
from consumer.services.kafka import LARGEST_RECORD_BYTES, as_error
from consumer.settings import Settings

log = get_logger(__name__)

Positions = npt.NDArray[np.int64]

_WINDOW = 10_000
"""Records over which the ratio is taken; older ones fade by half at a time."""


_SPARE_BYTES = 64 * 1024
"""What headers and the batch around a record may add to it."""


def send_dead_letters(producer: Producer, topic: str, messages: list[Any], rejected: Sequence[Rejected]) -> None:
    """Queue the refused ones of `messages` (confluent's), bytes untouched, each with the reason in its headers.

    A value too large for the dead-letter topic is left where it was read, and the letter says so: one record must not
    stop the service. Raises one of our errors when a letter cannot be queued.
    """
    if not rejected:
        return
    now, first = utc_now(), _source(messages[rejected[0].position])
    log.info("dead letters", first=str(first), **Counter(f"{bad.stage}: {bad.reason.error}" for bad in rejected))
    try:
        for bad in rejected:
            message = messages[bad.position]
            value: bytes | None = message.value()
            if value is not None and len(value) > LARGEST_RECORD_BYTES - _SPARE_BYTES:
                told = (
                    f"{bad.reason}; its {len(value)} bytes are too many for a dead letter and stay where they were read"
                )
                bad, value = Rejected(bad.position, InvalidRecord(bad.reason.error, told), bad.stage), None
            letter: Any = headers(_own_headers(message), _source(message), bad, now)
            producer.produce(topic, value, message.key(), headers=letter)
    except KafkaException as error:
        raise as_error(error) from error
    except BufferError as error:
        raise KafkaUnavailable("the producer's queue is full") from error


def _source(message: Any) -> Coordinates:
    return Coordinates(message.topic(), message.partition(), message.offset())


def _own_headers(message: Any) -> Headers:
    """A record's own headers; none when they cannot be read."""
    found = headers_of(message)
    if found is None:
        log.warning("headers dropped", source=str(_source(message)), reason="the client cannot read their names")
        return ()
    return found


def headers_of(message: Any) -> Headers | None:
    """A record's headers; None when the client cannot give them, as with a name that is not UTF-8.

    Asked first, the client then returns with an exception set; asked again, it hands out NULL for the name, and to
    read that would end the process. Headers must be asked for here, and nowhere else.
    """
    try:
        found: list[tuple[str, bytes | None]] = _headers(message) or []
    except SystemError:
        return None
    return found if all(len(gc.get_referents(pair)) == len(pair) for pair in found) else None


_headers = methodcaller("headers")
"""A call from C is checked for such an exception each time. CPython leaves the check out of a method call that it has
seen often, and the exception comes up wherever one is looked for next.
"""


@dataclass
class _Partition:
    records: float = 0
    refused: float = 0
    consecutive: int = 0


class DeadLetterMeter:
    """Counts refused records of one topic by partition. Raises DeadLetterLimit before the batch that breaks a limit is
    committed.
    """

    def __init__(self, settings: Settings, topic: str) -> None:
        self._topic = topic
        self._max_ratio = settings.dead_letter_max_ratio
        self._min_records = settings.dead_letter_ratio_min_records
        self._max_consecutive = settings.dead_letter_max_consecutive
        self._partitions: dict[int, _Partition] = {}

    def count(self, partitions: Positions, refused: Positions) -> None:
        """Take in one batch: each record's partition, and the positions of the refused ones."""
        bad = np.zeros(len(partitions), bool)
        bad[refused] = True
        for partition in np.flatnonzero(np.bincount(partitions)).tolist():
            self._count_partition(partition, bad[partitions == partition])

    def count_rejected(self, partitions: Positions, offsets: Positions, rejected: Sequence[Rejected]) -> None:
        """As `count`; the error tells the reasons, and where the first bad record of this batch stands."""
        refused = np.array([bad.position for bad in rejected], np.int64)
        try:
            self.count(partitions, refused)
        except DeadLetterLimit as limit:
            reasons = Counter(str(bad.reason) for bad in rejected)
            most = "; ".join(f"{count} times: {reason}" for reason, count in reasons.most_common(3))
            at = refused.min()
            raise DeadLetterLimit(
                f"{limit}. Reasons in this batch: {most}. The first stands at partition {partitions[at]}, "
                f"offset {offsets[at]}"
            ) from None

    def forget(self) -> None:
        """Start anew: what was counted and not committed is read, and counted, again."""
        self._partitions.clear()

    def _count_partition(self, partition: int, bad: npt.NDArray[np.bool_]) -> None:
        state = self._partitions.setdefault(partition, _Partition())
        good_at = np.flatnonzero(~bad)
        runs = np.diff(np.concatenate(([-1], good_at, [len(bad)]))) - 1
        runs[0] += state.consecutive
        state.consecutive = int(runs[-1])
        state.records += len(bad)
        state.refused += int(bad.sum())
        if runs.max() >= self._max_consecutive:
            raise DeadLetterLimit(self._message(partition, f"{runs.max()} records in a row are bad", "CONSECUTIVE"))
        if state.records >= self._min_records and state.refused > self._max_ratio * state.records:
            share = f"{state.refused / state.records:.1%} of the last {state.records:.0f} records are bad"
            raise DeadLetterLimit(self._message(partition, share, "RATIO"))
        if state.records > _WINDOW:
            state.records, state.refused = state.records / 2, state.refused / 2

    def _message(self, partition: int, fact: str, setting: str) -> str:
        return (
            f"{self._topic}, partition {partition}: {fact}. Nothing of this batch was committed. Mend what sends them; "
            "those that are in the topic stay there, so to get past them, each to the dead-letter topic, "
            f"raise BNPL_DEAD_LETTER_MAX_{setting} and start again"
        )
