"""Dead letters: how a refused record is sent, and the limit that stops a service rather than let it drain a topic."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from confluent_kafka import Producer

from consumer.clock import utc_now
from consumer.contracts.avro import Rejected
from consumer.contracts.dead_letter import Coordinates, headers
from consumer.errors import DeadLetterLimit
from consumer.logs import get_logger
from consumer.settings import Settings

log = get_logger(__name__)

Positions = npt.NDArray[np.int64]

_WINDOW = 10_000
"""Records over which the ratio is taken; older ones fade by half at a time."""


def send_dead_letters(producer: Producer, topic: str, messages: list[Any], rejected: Iterable[Rejected]) -> None:
    """Queue the refused ones of `messages` (confluent's), bytes untouched, each with the reason in its headers.

    Raises KafkaException or BufferError when one cannot be queued.
    """
    now = utc_now()
    for bad in rejected:
        message = messages[bad.position]
        source = Coordinates(message.topic(), message.partition(), message.offset())
        log.info("dead letter", source=str(source), stage=bad.stage, error=bad.reason.error, reason=str(bad.reason))
        told: Any = headers(message.headers() or (), source, bad, now)
        producer.produce(topic, message.value(), message.key(), headers=told)


@dataclass
class _Partition:
    records: float = 0
    refused: float = 0
    consecutive: int = 0


class DeadLetterMeter:
    """Counts refused records by partition. Raises DeadLetterLimit before the batch that breaks a limit is committed."""

    def __init__(self, settings: Settings) -> None:
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
            f"partition {partition}: {fact}. Nothing of this batch was committed. Look at the dead letters, mend the "
            f"producer, then start again; to let the bad records pass, raise BNPL_DEAD_LETTER_MAX_{setting}"
        )
