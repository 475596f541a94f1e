"""How far a group is behind, as the broker knows it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, KafkaException, TopicPartition

from consumer.clock import Deadline
from consumer.services.kafka import as_error, consumer_config, made
from consumer.settings import Settings

_TIMEOUT_SECONDS = 5.0
_WAIT_SECONDS = 0.2


@dataclass(frozen=True)
class PartitionLag:
    """`committed` is the next offset to read, 0 when the group has none yet; `end` the end for read_committed."""

    partition: int
    committed: int
    end: int

    @property
    def messages(self) -> int:
        """Offsets between the two; a transaction's marker takes one."""
        return max(0, self.end - self.committed)


class GroupLag:
    """Asks for one group's lag on one topic without joining the group. A context manager.

    A consumer and not an admin client: librdkafka 2.16's admin client crashes the process when the coordinator
    answers ListConsumerGroupOffsets with an error, as it does in a broker's first seconds.
    """

    def __init__(self, settings: Settings, group: str, topic: str) -> None:
        self._consumer = made(Consumer, consumer_config(settings, group, "classic"))
        self._topic = topic
        self._patience = settings.transaction_timeout_ms / 1000 + _TIMEOUT_SECONDS
        """The broker keeps back what a group committed while a dead member's transaction is open."""

    def partitions(self) -> list[PartitionLag]:
        """Lag by partition. Raises KafkaUnavailable when the broker does not answer in time."""
        deadline = Deadline.after(self._patience)
        while True:
            try:
                return self._ask()
            except KafkaException as error:  # a coordinator is not there in a broker's first seconds
                if deadline.passed:
                    raise as_error(error) from error
                time.sleep(_WAIT_SECONDS)

    def _ask(self) -> list[PartitionLag]:
        found = self._consumer.list_topics(self._topic, _TIMEOUT_SECONDS).topics[self._topic]
        asked = [TopicPartition(self._topic, number) for number in sorted(found.partitions)]
        committed = self._consumer.committed(asked, _TIMEOUT_SECONDS)
        return [PartitionLag(each.partition, max(0, each.offset), self._end(each.partition)) for each in committed]

    def _end(self, partition: int) -> int:
        _, end = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), _TIMEOUT_SECONDS)
        return int(end)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()
