"""How a group gets on, partition by partition: when it last committed, and how long it once did not."""

from __future__ import annotations

import threading
import time
from itertools import pairwise
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, KafkaException, TopicPartition

from consumer.services.kafka import consumer_config, made
from consumer.settings import Settings

_LOOK_SECONDS = 0.1
_ANSWER_SECONDS = 2.0


class Progress:
    """Looks ten times a second at what a group has committed. A context manager; its times are monotonic."""

    def __init__(self, settings: Settings, group: str, topic: str) -> None:
        # read_committed readers are told nothing while a transaction that commits some is open
        config = consumer_config(settings, group, "classic") | {"isolation.level": "read_uncommitted"}
        self._consumer = made(Consumer, config)
        self._topic = topic
        self._partitions = [TopicPartition(topic, number) for number in range(settings.topic_partitions)]
        self._moves: dict[int, list[float]] = {each.partition: [] for each in self._partitions}
        self._at = dict.fromkeys(self._moves, -1)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name=f"progress-{group}", daemon=True)

    @property
    def committed(self) -> int:
        """Offsets committed so far, of all partitions."""
        return sum(max(0, offset) for offset in self._at.values())

    def moved_since(self, when: float) -> bool:
        """Whether every partition was committed after this moment."""
        return all(times and times[-1] > when for times in self._moves.values())

    def longest_pause(self, since: float) -> float:
        """The longest time, from this moment on, in which some partition was not committed and then was again."""
        longest = 0.0
        for times in self._moves.values():
            later = [since, *(each for each in times if each > since)]
            longest = max([longest, *(b - a for a, b in pairwise(later))])
        return longest

    def _look(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            try:
                found = self._consumer.committed(self._partitions, _ANSWER_SECONDS)
            except KafkaException:  # no coordinator just now: that is what is being measured
                continue
            now = time.monotonic()
            for each in found:
                if each.error is None and each.offset > self._at[each.partition]:
                    self._at[each.partition] = each.offset
                    self._moves[each.partition].append(now)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._consumer.close()
