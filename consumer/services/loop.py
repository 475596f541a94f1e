"""What score and sink share: batches with their coordinates, one job in the background, and a loop that waits and
tries again while an outside part is away.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from confluent_kafka import Message, TopicPartition

from consumer.errors import BnplError, Retryable
from consumer.logs import get_logger
from consumer.services.kafka import GroupMember

log = get_logger(__name__)

_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 5.0


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


class Background:
    """One job at a time in a thread of its own; whoever starts the next one first learns how the last one ended."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._job: Future[None] | None = None

    def start(self, job: Callable[[], None]) -> None:
        """Start a job; `settle` must have been called since the last one."""
        self._job = self._thread.submit(job)

    def settle(self) -> None:
        """Wait for the job, and raise what it failed with."""
        if self._job is not None:
            job, self._job = self._job, None
            job.result()

    @property
    def done(self) -> bool:
        """Whether a job has ended and waits to be settled."""
        return self._job is not None and self._job.done()

    def close(self) -> None:
        """End the thread; settle before."""
        self._thread.shutdown(wait=False)


def run(stop: threading.Event, once: Callable[[], None], recover: Callable[[], None]) -> None:
    """Call `once` until told to stop. When it, or `recover`, raises a Retryable error: wait, `recover`, go on."""
    spare_the_collector()
    wait = _FIRST_WAIT_SECONDS
    while not stop.is_set():
        try:
            once()
            wait = _FIRST_WAIT_SECONDS
        except Retryable as error:
            log.warning("waiting", reason=str(error), seconds=wait)
            stop.wait(wait)
            wait = min(wait * 2, _LONGEST_WAIT_SECONDS)
            try:
                recover()
            except Retryable as still:
                log.warning("not recovered", reason=str(still))


def leave(settle: Callable[[], None], background: Background, group: GroupMember) -> None:
    """Settle what is under way, then leave the group: in this order, or the last commit would be refused."""
    try:
        settle()
    except BnplError as error:
        log.error("the last batch was not committed and will be read again", reason=str(error))
    finally:
        background.close()
        group.close()


def spare_the_collector() -> None:
    """The loops make no reference cycles, but several containers a record: by default the garbage collector would
    walk all of a batch every 700 of them, and take more time than scoring does.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(500_000, 20, 100)
