"""How far a group is behind, partition by partition, as the broker knows it: in messages and in seconds.

    position = the committed offset, or where the log begins when that is later or nothing was ever committed
    messages = high watermark − committed offset     what `kafka-consumer-groups --describe` prints as LAG
    seconds  = now − arrival of the first record at or after the position (`consumer/watch/unread.py`), else 0

Nothing here joins the group, and what a partition's reader has fetched but not committed counts as not done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from consumer.clock import Deadline, utc_now
from consumer.errors import Fatal, KafkaUnavailable
from consumer.services.kafka import as_error, bootstrap_servers, common_config, consumer_config, made
from consumer.settings import Settings
from consumer.watch.unread import QUIET, Key, OldestUnread

PATIENCE_SECONDS = 15.0
_LOOK_SECONDS = 5.0
_WAIT_SECONDS = 0.2
_LEAST_SECONDS = 0.05
_GRACE_SECONDS = 1.0
"""After its own timeout the admin client says what went wrong; it takes no timeout of nothing."""


@dataclass(frozen=True)
class PartitionLag:
    """One partition at one moment. Offsets are Kafka's: `committed` is the next to read, `end` the high watermark."""

    topic: str
    partition: int
    begin: int
    """The first offset that retention has left."""
    committed: int | None
    """None when the group has committed nothing here: it would start at `begin`."""
    end: int
    oldest_unread: datetime | None = None
    """When the first record arrived that the group has yet to read; None when there is none."""

    @property
    def key(self) -> Key:
        return self.topic, self.partition

    @property
    def position(self) -> int:
        """Where the group can go on reading."""
        return self.begin if self.committed is None else max(self.committed, self.begin)

    @property
    def messages(self) -> int:
        """Offsets from the committed one to the end, never negative.

        Transaction markers, aborted and expired records count, as they do for Kafka's own tool.
        """
        return max(0, self.end - (self.begin if self.committed is None else self.committed))

    @property
    def expired(self) -> int:
        """How many of `messages` retention deleted before the group read them: they are lost to it."""
        return 0 if self.committed is None else max(0, self.begin - self.committed)

    def seconds(self, now: datetime) -> float:
        """How long the first unread record has waited; 0.0 when there is none, never negative, never NaN."""
        return max(0.0, (now - self.oldest_unread).total_seconds()) if self.oldest_unread else 0.0


@dataclass(frozen=True)
class GroupLook:
    """What one look at a group found. `state` is Kafka's word: stable, empty, preparing_rebalancing, …, dead.

    Who has which partition is not known: the only call that says so, librdkafka's DescribeConsumerGroups, aborts the
    process when a coordinator goes away (confluentinc/librdkafka#4605).
    """

    group: str
    at: datetime
    state: str
    partitions: tuple[PartitionLag, ...]
    """By topic and partition; only what there is now."""

    @property
    def unread(self) -> int:
        """Messages of the partitions that have a record to read; 0 also when only markers are left."""
        return sum(each.messages for each in self.partitions if each.oldest_unread)

    @property
    def has_members(self) -> bool:
        """Whether anybody is there to read; a group with members has all its partitions assigned, or soon will."""
        return self.state not in ("empty", "dead")

    @property
    def exists(self) -> bool:
        """Whether Kafka knows such a group: one that has members, or has committed something."""
        return self.state != "dead" or any(each.committed is not None for each in self.partitions)


def topics_by_group(settings: Settings) -> dict[str, Sequence[str]]:
    """What score and sink read, by their groups."""
    return {
        settings.score_group: [settings.topic_transactions],
        settings.sink_group: [settings.topic_shadow_scores, settings.topic_outcomes],
    }


class LagReader:
    """Looks at one group on some topics, again and again, without joining it. A context manager, for one thread.

    Offsets come from a consumer and not from an admin client. librdkafka 2.16's admin client crashes the process when
    the coordinator answers ListConsumerGroupOffsets with an error, as it does in a broker's first seconds, and its
    ListOffsets goes on failing after a broker restarted or a topic grew, for it does not ask for the leaders again.
    And from a read_uncommitted consumer: from others the broker keeps committed offsets back while any transaction that
    commits some is open, which under load is always.
    """

    def __init__(
        self,
        settings: Settings,
        group: str,
        topics: Sequence[str],
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """Raises ConfigurationError when the client's settings cannot be used."""
        self._group, self._topics = group, topics
        self._now = now
        self._where = bootstrap_servers(settings)
        self._admin = made(AdminClient, common_config(settings) | QUIET)
        config = consumer_config(settings, group, "classic") | {"isolation.level": "read_uncommitted"}
        self._consumer = made(Consumer, config | QUIET)
        self._unread = OldestUnread(settings, group)

    def look(self, patience: float = PATIENCE_SECONDS) -> GroupLook:
        """The group now. For `patience` seconds a look that fails is tried again: a broker that has just started has
        no coordinator yet.

        Raises KafkaUnavailable when the broker does not answer in time, Fatal when it refuses.
        """
        deadline = Deadline.after(patience)
        while True:
            try:
                return self._look(Deadline.after(_LOOK_SECONDS))
            except (KafkaException, KafkaUnavailable, TimeoutError) as error:
                if deadline.passed:
                    raise self._explained(error) from error
                time.sleep(min(_WAIT_SECONDS, deadline.remaining))

    def _look(self, deadline: Deadline) -> GroupLook:
        asked = self._partitions(deadline)
        # before the ends are asked, so that none of them can be passed
        committed = {_key(each): _offset(each) for each in self._consumer.committed(asked, deadline.remaining)}
        ends = {_key(each): self._consumer.get_watermark_offsets(each, deadline.remaining) for each in asked}
        state = self._state(deadline)
        lags = [PartitionLag(*key, begin, committed[key], end) for key, (begin, end) in ends.items()]
        at = self._now()
        oldest = self._unread.find({lag.key: (lag.position, lag.end) for lag in lags}, at, deadline)
        partitions = tuple(replace(lag, oldest_unread=oldest.get(lag.key)) for lag in lags)
        return GroupLook(self._group, at, state, partitions)

    def _partitions(self, deadline: Deadline) -> list[TopicPartition]:
        found = []
        for name in self._topics:
            topic = self._consumer.list_topics(name, deadline.remaining).topics[name]
            if topic.error is not None:
                raise KafkaException(topic.error)
            found += [TopicPartition(name, number) for number in sorted(topic.partitions)]
        return found

    def _state(self, deadline: Deadline) -> str:
        """Asked of every broker for all groups: no coordinator has a part in it, and so nothing of #4605."""
        seconds = max(_LEAST_SECONDS, deadline.remaining)
        answer = self._admin.list_consumer_groups(request_timeout=seconds).result(seconds + _GRACE_SECONDS)
        for listed in answer.valid:
            if listed.group_id == self._group:
                return str(listed.state.name.lower())
        if answer.errors:
            raise KafkaException(answer.errors[0])
        return "dead"

    def _explained(self, error: Exception) -> Exception:
        cause = as_error(error) if isinstance(error, KafkaException) else error
        if isinstance(cause, Fatal):
            return cause
        why = str(cause) or "no answer in time"
        return KafkaUnavailable(f"the lag of {self._group} cannot be asked of Kafka at {self._where}: {why}")

    def close(self) -> None:
        """End the connections; takes no longer when the broker is away."""
        self._consumer.close()
        self._unread.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _key(partition: TopicPartition) -> Key:
    return partition.topic, partition.partition


def _offset(committed: TopicPartition) -> int | None:
    if committed.error is not None:
        raise KafkaException(committed.error)  # unknown is not the same as nothing committed
    return committed.offset if committed.offset >= 0 else None
