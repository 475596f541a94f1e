"""A member of a consumer group: what it reads, what it may still read after a rebalance, where it goes back to."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from consumer.errors import Fatal, KafkaUnavailable
from consumer.metrics import Metrics
from consumer.services.background import Background
from consumer.services.kafka import NETWORK_TIMEOUT_MS, as_error, consumer_config, made
from consumer.settings import Settings

log = logging.getLogger(__name__)

_BACKLOG_SECONDS = 0.5
_COMMIT_SECONDS = 5.0
_UNSUPPORTED = KafkaError(KafkaError.UNSUPPORTED_VERSION).str()
"""What the client's fatal error for a broker without KIP-848 groups quotes; its own code says no more than fatal."""


class GroupMember:
    """A member of a consumer group over one or more topics, by the newest protocol that the broker speaks."""

    def __init__(
        self, settings: Settings, group: str, topics: list[str], on_leave: Callable[[], None], metrics: Metrics
    ) -> None:
        """`on_leave` runs before partitions are given up, in the thread that reads."""
        self._settings, self._group, self._topics = settings, group, topics
        self._on_leave = on_leave
        self._metrics = metrics
        self._ends: dict[tuple[str, int], int] = {}
        """The last end that was reached of each partition: the offset after everything that was there."""
        self._committed: dict[tuple[str, int], int] = {}
        self._protocol = "classic" if settings.group_protocol == "classic" else "consumer"
        self.assigned: set[tuple[str, int]] = set()
        self.rebalanced = False
        self.consumer = self._join()

    def _join(self) -> Consumer:
        consumer = made(Consumer, consumer_config(self._settings, self._group, self._protocol))
        consumer.subscribe(self._topics, on_assign=self._assign, on_revoke=self._revoke, on_lost=self._lose)
        return consumer

    def read(self, count: int, seconds: float) -> list[Any]:
        """Up to `count` messages of partitions that are ours.

        Caught up, it returns what arrives within `seconds`; behind by a whole batch, it waits longer for a full one,
        because a commit costs the same for few records as for many. Raises one of our errors when the client reports
        one that will not pass by itself.
        """
        self.rebalanced = False
        patience = max(seconds, _BACKLOG_SECONDS) if self.backlog() >= count else seconds
        messages = self.consumer.consume(count, patience)
        if any(map(Message.error, messages)):
            notes = [(message, message.error()) for message in messages if message.error() is not None]
            messages = [message for message in messages if message.error() is None]
            self._judge([error for note, error in notes if not self._is_end(note, error)])
        if self.rebalanced:
            messages = [each for each in messages if (each.topic(), each.partition()) in self.assigned]
        return messages

    def backlog(self) -> int:
        """Records known to be waiting, as of the last fetch. Asks the client, not the broker."""
        waiting = 0
        for position in self.consumer.position([TopicPartition(*each) for each in self.assigned]):
            _, high = self.consumer.get_watermark_offsets(position, cached=True)
            if position.offset >= 0 and high > position.offset:
                waiting += high - position.offset
        return waiting

    def _is_end(self, note: Any, error: Any) -> bool:
        """Whether a note says that a partition was read to its end; remembered for `pass_markers`."""
        if error.code() != KafkaError._PARTITION_EOF:
            return False
        self._ends[note.topic(), note.partition()] = max(0, note.offset())  # below 0 where nothing ever was
        return True

    def _judge(self, failures: list[Any]) -> None:
        for failure in failures:
            unsupported = self._protocol == "consumer" and _UNSUPPORTED in failure.str()
            if unsupported and self._settings.group_protocol == "consumer":
                raise Fatal("the broker has no KIP-848 groups: set BNPL_GROUP_PROTOCOL to auto or classic")
            if unsupported:
                log.warning("the broker has no KIP-848 groups: joining by the classic protocol")
                self.consumer.close()
                self._protocol = "classic"
                self.consumer = self._join()
                return
            error = as_error(KafkaException(failure))
            if isinstance(error, Fatal):
                raise error
            log.warning("kafka: %s", error)

    def commit(self, next_offsets: list[TopicPartition]) -> None:
        """Commit and wait for the answer. Raises KafkaUnavailable when it was not committed, or not in time."""
        commit = Background(_COMMIT_SECONDS)  # the client takes no time-out, and would wait for a broker for 45 s
        commit.start(lambda: _commit(self.consumer, next_offsets))
        try:
            commit.settle()
        except (KafkaException, KafkaUnavailable) as error:
            self._metrics.commits.labels(self._group, "failed").inc()
            raise (as_error(error) if isinstance(error, KafkaException) else error) from error
        self._metrics.commits.labels(self._group, "ok").inc()
        self.note_committed(next_offsets)

    def note_committed(self, next_offsets: list[TopicPartition]) -> None:
        """Remember what is committed, also by a transaction, so that `pass_markers` does not commit it again."""
        self._committed.update({(each.topic, each.partition): each.offset for each in next_offsets})

    def pass_markers(self) -> None:
        """Commit the ends that were reached: a transaction's marker stands behind its last record, and would show as
        lag until the next one. Only when all that was read is committed. Raises KafkaUnavailable.
        """
        beyond = [
            TopicPartition(*each, end)
            for each, end in self._ends.items()
            if each in self.assigned and end > self._committed.get(each, 0)
        ]
        if beyond:
            self.commit(beyond)

    @property
    def caught_up(self) -> bool:
        """Whether everything was read of all partitions that are ours, as of the last fetch."""
        positions = self.consumer.position([TopicPartition(*each) for each in self.assigned])
        return all(self._ends.get((each.topic, each.partition), -1) >= max(each.offset, 0) for each in positions)

    def rewind(self) -> None:
        """Go back to what the group has committed: read again whatever is not. Raises KafkaUnavailable."""
        try:
            for position in self.consumer.committed(self.consumer.assignment(), NETWORK_TIMEOUT_MS / 1000):
                if position.error is not None:
                    raise KafkaException(position.error)  # unknown is not the same as nothing committed
                if position.offset < 0:
                    position.offset = OFFSET_BEGINNING  # nothing was ever committed
                self.consumer.seek(position)
            self._ends.clear()
            self._committed.clear()
        except KafkaException as error:
            raise as_error(error) from error

    def close(self) -> None:
        """Leave the group. Commit before."""
        self.consumer.close()

    def _assign(self, _: Consumer, partitions: list[Any]) -> None:
        self.rebalanced = True
        self.assigned |= {(each.topic, each.partition) for each in partitions}
        self._show("assign")
        log.info("assigned %s", _names(partitions))

    def _revoke(self, _: Consumer, partitions: list[Any]) -> None:
        try:
            self._on_leave()
        finally:
            self._forget("revoke", partitions)

    def _lose(self, _: Consumer, partitions: list[Any]) -> None:
        self._forget("lost", partitions)

    def _forget(self, kind: str, partitions: list[Any]) -> None:
        self.rebalanced = True
        gone = {(each.topic, each.partition) for each in partitions}
        self.assigned -= gone
        for each in gone:
            self._ends.pop(each, None)
            self._committed.pop(each, None)
        self._show(kind)
        log.info("%s %s", "revoked" if kind == "revoke" else kind, _names(partitions))

    def _show(self, kind: str) -> None:
        self._metrics.rebalances.labels(self._group, kind).inc()
        for topic in self._topics:
            owned = sum(each == topic for each, _ in self.assigned)
            self._metrics.assigned.labels(self._group, topic).set(owned)


def _commit(consumer: Consumer, next_offsets: list[TopicPartition]) -> None:
    consumer.commit(offsets=next_offsets, asynchronous=False)


def _names(partitions: list[Any]) -> str:
    return ", ".join(f"{each.topic}/{each.partition}" for each in partitions) or "nothing"
