"""Scoring a stretch of history again, by the steps of the score service, beside the live rows.

The group is one of its own, so that the live one's place is untouched. It has no members: its place is only where a
run that was stopped goes on. What cannot be scored got its dead letter when it was live, and gets no other.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from consumer.contracts.avro import Decoded
from consumer.errors import Fatal
from consumer.metrics import total
from consumer.scoring.activation import Activation
from consumer.scoring.controller import ShadowModeController
from consumer.services.control import Ruler
from consumer.services.kafka import NETWORK_TIMEOUT_MS, as_error, consumer_config, made
from consumer.services.loop import Batch, Reader
from consumer.services.score import ScoreService
from consumer.settings import Settings

Ranges = Mapping[int, tuple[int, int]]
"""Offsets by partition: the first, and the one after the last."""
Progress = Callable[[int, int], None]
"""Told now and then: offsets done, and how many there are."""

_SECONDS = NETWORK_TIMEOUT_MS / 1000


@dataclass(frozen=True)
class Rescored:
    """What a run did."""

    group: str
    scored: int
    refused: Mapping[str, int]
    """Records that cannot be scored, by reason."""
    finished: bool
    """False when it was stopped before the end: the same again goes on from there."""


def group_of(controller: ShadowModeController, start: datetime) -> str:
    """The group of a rescoring: the same models from the same moment on go on where they stopped."""
    return f"bnpl-rescore-{controller.identity}-{start:%Y%m%dT%H%M%S}"


def rescore(
    settings: Settings,
    controller: ShadowModeController,
    start: datetime,
    ranges: Ranges,
    stop: threading.Event,
    progress: Progress = lambda done, total: None,
) -> Rescored:
    """Score the records of `ranges` of bnpl.transactions, which begin at `start`, until done or told to stop.

    Raises a Fatal error when another process does the same, or going on would do harm.
    """
    settings = settings.model_copy(update={"score_group": group_of(controller, start)})
    service = _Rescoring(settings, controller, ranges, stop, progress)
    service.run(stop)
    return Rescored(
        settings.score_group,
        scored=total(service.metrics.published, result="ok"),
        refused=dict(Counter(service.refused.values())),
        finished=service.history.done,
    )


class _Rescoring(ScoreService):
    """The score service on history: it ends, and refuses without dead letters."""

    def __init__(
        self,
        settings: Settings,
        controller: ShadowModeController,
        ranges: Ranges,
        stop: threading.Event,
        progress: Progress,
    ) -> None:
        self.refused: dict[tuple[int, int], str] = {}
        """Reasons by partition and offset: what is read again after a failure counts once."""
        self.history = _History(settings, ranges, stop, progress)
        super().__init__(settings, controller)

    def _join(self) -> Reader:
        return self.history

    def _follow(self) -> Ruler:
        return _Shadow(self._controller.at_rest)

    def _decode(self, batch: Batch) -> Decoded:
        decoded = self._columns(batch)
        for bad in decoded.rejected:
            place = int(batch.partitions[bad.position]), int(batch.offsets[bad.position])
            self.refused[place] = bad.reason.error
        return replace(decoded, rejected=[])


class _Shadow:
    """History was decided: no promotion lets a model decide it again. A Ruler."""

    def __init__(self, at_rest: Activation) -> None:
        self._at_rest = at_rest

    def newest(self) -> Activation:
        return self._at_rest

    def following(self) -> AbstractContextManager[None]:
        return nullcontext()


class _History:
    """Reads ranges of offsets to their end, and then sets `stop`. A Reader, for one thread."""

    def __init__(self, settings: Settings, ranges: Ranges, stop: threading.Event, progress: Progress) -> None:
        self._topic, self._group = settings.topic_transactions, settings.score_group
        self._ranges = {partition: bounds for partition, bounds in ranges.items() if bounds[0] < bounds[1]}
        self._stop, self._progress = stop, progress
        self._consumer = made(Consumer, consumer_config(settings, self._group, "classic"))
        self._left: dict[int, int] = {}
        """Where each partition ends that is not read to its end."""
        self._at: dict[int, int] = {}
        """How far each partition is read."""
        self._handed: dict[int, int] = {}
        self._committed: dict[int, int] = {}
        """The offset after the last record that was handed over, and after the last that was committed."""
        self.assigned: set[tuple[str, int]] = set()
        self.rewind()

    def read(self, count: int, seconds: float) -> list[Any]:
        """Records of the ranges; sets `stop` once all of them are committed."""
        found: list[Any] = [each for each in self._consumer.consume(count, seconds) if self._counts(each)]
        self._handed.update((each.partition(), each.offset() + 1) for each in found)
        done = sum(self._at[each] - begin for each, (begin, _) in self._ranges.items())
        self._progress(done, sum(end - begin for begin, end in self._ranges.values()))
        if self.done:
            self._stop.set()
        return found

    @property
    def done(self) -> bool:
        """Whether all ranges were read to their end, and all that was in them is committed."""
        return self.caught_up and self._committed.items() >= self._handed.items()

    def _counts(self, message: Any) -> bool:
        """Whether it is a record of a range; what it says of how far the partition is read is taken in."""
        error, partition, offset = message.error(), message.partition(), message.offset()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            failure = as_error(KafkaException(error))
            if isinstance(failure, Fatal):
                raise failure
            return False
        end = self._left.get(partition)
        if end is None:
            return False
        inside = error is None and offset < end
        self._at[partition] = min(end, offset + 1 if inside else end)
        if self._at[partition] == end:
            del self._left[partition]
            self._consumer.incremental_unassign([TopicPartition(self._topic, partition)])
        return inside

    @property
    def caught_up(self) -> bool:
        """Whether all ranges were read to their end."""
        return not self._left

    @property
    def membership(self) -> object:
        """A group without members needs no proof; another process like this one is fenced by its transactional id."""
        return self._consumer.consumer_group_metadata()

    def note_committed(self, next_offsets: list[TopicPartition]) -> None:
        """Called by the thread that commits."""
        self._committed.update((each.partition, each.offset) for each in next_offsets)

    def pass_markers(self) -> None:
        """Nobody watches this group's lag."""

    def rewind(self) -> None:
        """Go to what was committed, or to the beginning of the ranges. Raises KafkaUnavailable."""
        places = [TopicPartition(self._topic, partition) for partition in self._ranges]
        try:
            committed = self._consumer.committed(places, _SECONDS) if places else []
            for place in committed:
                if place.error is not None:
                    raise KafkaException(place.error)
            self._at = {
                place.partition: min(
                    max(place.offset, self._ranges[place.partition][0]), self._ranges[place.partition][1]
                )
                for place in committed
            }
            self._left = {partition: end for partition, (_, end) in self._ranges.items() if self._at[partition] < end}
            self._handed.clear()
            self.assigned = {(self._topic, partition) for partition in self._left}
            self._consumer.assign([TopicPartition(self._topic, each, self._at[each]) for each in self._left])
        except KafkaException as error:
            raise as_error(error) from error

    def close(self) -> None:
        """End the connection."""
        self._consumer.close()
