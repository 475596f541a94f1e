"""What score and sink share: batches with their coordinates, and a loop that waits and tries again while an outside
part is away.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from confluent_kafka import Message, TopicPartition

from consumer.errors import BnplError, Retryable
from consumer.logs import get_logger
from consumer.services.pulse import Pulse

log = get_logger(__name__)

_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 5.0


class Reader(Protocol):
    """Where a loop's records come from, and how it goes back to what is committed: a group's member, say."""

    assigned: set[tuple[str, int]]

    def read(self, count: int, seconds: float) -> list[Any]:
        """Up to `count` messages, waiting about `seconds` for them."""

    def note_committed(self, next_offsets: list[TopicPartition]) -> None:
        """These offsets were committed by a transaction."""

    def pass_markers(self) -> None:
        """All that was read is committed: commit what stands behind it and is no record."""

    def rewind(self) -> None:
        """Read again whatever is not committed."""

    def close(self) -> None:
        """Leave."""

    @property
    def caught_up(self) -> bool:
        """Whether everything was read."""

    @property
    def membership(self) -> object:
        """What goes into a transaction with its offsets."""


@dataclass(frozen=True)
class Batch:
    """Records of one topic as read, and where they were read."""

    messages: list[Any]
    partitions: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]

    @classmethod
    def of(cls, messages: list[Any]) -> Batch:
        n = len(messages)
        return cls(
            messages,
            np.fromiter(map(Message.partition, messages), np.int64, n),
            np.fromiter(map(Message.offset, messages), np.int64, n),
        )

    @classmethod
    def by_topic(cls, messages: list[Any]) -> dict[str, Batch]:
        """A batch for each topic that is among the messages."""
        topics = [message.topic() for message in messages]
        names = list(dict.fromkeys(topics))
        if len(names) == 1:
            return {names[0]: cls.of(messages)}
        return {
            name: cls.of([message for message, topic in zip(messages, topics, strict=True) if topic == name])
            for name in names
        }

    @property
    def values(self) -> list[bytes | None]:
        return list(map(Message.value, self.messages))

    @property
    def next_offsets(self) -> list[TopicPartition]:
        """For each partition the first offset after this batch: what to commit once the batch is done."""
        topic = self.messages[0].topic()
        return [
            TopicPartition(topic, int(partition), int(self.offsets[self.partitions == partition].max()) + 1)
            for partition in np.unique(self.partitions)
        ]


def run(
    stop: threading.Event, once: Callable[[], None], recover: Callable[[], None], group: Reader, pulse: Pulse
) -> None:
    """Call `once` until told to stop. When it raises a Retryable error: wait, `recover`, go on; and never go on before
    `recover` succeeded, or what failed would be passed over.
    """
    spare_the_collector()
    wait, failed = _FIRST_WAIT_SECONDS, False
    while not stop.is_set():
        pulse.turn(len(group.assigned))
        try:
            if failed:
                recover()
                failed = False
            once()
            wait = _FIRST_WAIT_SECONDS
            pulse.waiting_for = None
        except Retryable as error:
            failed = True
            pulse.waiting_for = str(error)
            log.warning("waiting", reason=str(error), seconds=wait)
            stop.wait(wait)
            pulse.stages.lap("retry")
            wait = min(wait * 2, _LONGEST_WAIT_SECONDS)
        except Exception:
            pulse.halt()
            raise


def leave(settle: Callable[[], None], abort: Callable[[], None], group: Reader) -> None:
    """Settle what is under way, abort what could not be, then leave the group: after that no commit would count."""
    try:
        for step in (settle, abort):
            try:
                step()
            except BnplError as error:
                log.error("the last batch was not committed and will be read again", reason=str(error))
    finally:
        group.close()


def spare_the_collector() -> None:
    """The loops make no reference cycles, but several containers a record: by default the garbage collector would
    walk all of a batch every 700 of them, and take more time than scoring does.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(500_000, 20, 100)
