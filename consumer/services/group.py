"""A member of a consumer group: what it reads, what it may still read after a rebalance, where it goes back to."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from consumer.clock import Deadline
from consumer.errors import Fatal, KafkaUnavailable, OffsetsLost
from consumer.metrics import Metrics
from consumer.services.background import Background
from consumer.services.kafka import NETWORK_TIMEOUT_MS, as_error, consumer_config, made
from consumer.settings import Settings

log = logging.getLogger(__name__)

_BACKLOG_SECONDS = 0.5
_COMMIT_SECONDS = 5.0
_SECONDS = NETWORK_TIMEOUT_MS / 1000
REVOKE_SHARE = 0.75
"""Of BNPL_MAX_POLL_INTERVAL_MS: the one deadline of what is under way when partitions are given up."""
_UNSUPPORTED = KafkaError(KafkaError.UNSUPPORTED_VERSION).str()
"""What the client's fatal error for a broker without KIP-848 groups quotes; its own code says no more than fatal."""


Settle = Callable[[Deadline], None]
Forget = Callable[[set[tuple[str, int]]], None]


class GroupMember:
    """A member of a consumer group over one or more topics, by the newest protocol that the broker speaks.

    When partitions are given up, what is under way with them must finish (the commit of a batch that was published or
    inserted), within one deadline; what is not that far is dropped, for it was only read. Partitions that were lost
    are other members' already: nothing of them is committed any more (docs/decisions/0010).
    """

    def __init__(
        self,
        settings: Settings,
        group: str,
        topics: list[str],
        settle: Settle,
        metrics: Metrics,
        forget: Forget = lambda partitions: None,
    ) -> None:
        """`settle` finishes what is under way, before partitions are given up, in the thread that reads; `forget` is
        told which are not ours any more, given up or lost.
        """
        self._settings, self._group, self._topics = settings, group, topics
        self._settle, self._let_go = settle, forget
        self._metrics = metrics
        self._lost_records = [metrics.lost_records.labels(group, topic) for topic in topics]
        self._leave_seconds = REVOKE_SHARE * settings.max_poll_interval_ms / 1000
        self._ends: dict[tuple[str, int], int] = {}
        """The last end that was reached of each partition: the offset after everything that was there."""
        self._committed: dict[tuple[str, int], int] = {}
        self._protocol = "classic" if settings.group_protocol == "classic" else "consumer"
        self.assigned: set[tuple[str, int]] = set()
        self.rebalanced = False
        self.consumer = self._join()

    def _join(self) -> Consumer:
        config = consumer_config(self._settings, self._group, self._protocol)
        consumer = made(Consumer, config | {"auto.offset.reset": "error"})  # where to start is decided here, and told
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
            messages = self._heed_notes(messages)
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

    def _heed_notes(self, messages: list[Any]) -> list[Any]:
        """The records among what the client handed over; what else it told is dealt with."""
        failures: list[Any] = []
        placeless: dict[tuple[str, int], int | None] = {}
        for note in messages:
            if (error := note.error()) is None:
                continue
            key = note.topic(), note.partition()
            if error.code() == KafkaError._PARTITION_EOF:
                self._ends[key] = max(0, note.offset())  # below 0 where nothing ever was
            elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                placeless[key] = note.offset()
            else:
                failures.append(error)
        self._judge(failures)
        if placeless:
            self._find_places({key: at for key, at in placeless.items() if key in self.assigned})
        return [each for each in messages if not (each.error() or (each.topic(), each.partition()) in placeless)]

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

    def _find_places(self, keys: dict[tuple[str, int], int | None]) -> None:
        """Start partitions of which the broker does not have what was asked for: that offset, None for a new group's.

        Raises OffsetsLost for an offset beyond the end, KafkaUnavailable when the broker does not answer.
        """
        self._settle(Deadline.after(self._leave_seconds))  # it may yet commit offsets of these partitions
        places = [
            TopicPartition(*key, OFFSET_BEGINNING if at is None else self._place_beside(TopicPartition(*key, at)))
            for key, at in keys.items()
        ]
        self._go_to(places)

    def _place_beside(self, place: TopicPartition) -> int:
        """Where to go on instead of a place that the broker does not have."""
        try:
            begin, end = self.consumer.get_watermark_offsets(place, _SECONDS)
        except KafkaException as error:
            raise as_error(error) from error
        if place.offset >= begin:
            raise OffsetsLost(self._beyond_the_end(place, end))
        self._pass_gap(place, begin)
        return int(begin)

    def _pass_gap(self, place: TopicPartition, begin: int) -> None:
        """Retention deleted records before they were read: say so, and commit behind them, so that it is said once."""
        lost = begin - place.offset
        log.error(
            "lost to retention: %s of %s/%s, offsets %s to %s; going on behind them. Raise the topic's retention.ms, "
            "and find out why the group %s stood still",
            lost, place.topic, place.partition, place.offset, begin - 1, self._group,
        )  # fmt: skip
        self.commit([TopicPartition(place.topic, place.partition, begin)])
        self._metrics.lost_records.labels(self._group, place.topic).inc(lost)

    def _beyond_the_end(self, place: TopicPartition, end: int) -> str:
        partition = f"{place.topic}:{place.partition}"
        return (
            f"{place.topic}/{place.partition}: group {self._group} is at offset {place.offset} and the topic ends at "
            f"{end}: it was made anew, or lost records. Nothing was read. With the service stopped, Kafka's own tool "
            f"moves the group: kafka-consumer-groups --bootstrap-server … --group {self._group} --topic {partition} "
            f"--reset-offsets --to-earliest --execute (reads all {end} offsets that are there), or --to-latest (passes "
            "them over)"
        )

    @property
    def membership(self) -> object:
        """What proves to the broker, in a transaction, that this member may commit.

        Raises KafkaUnavailable while it is none: the broker takes offsets without any proof unchecked.
        """
        proof = self.consumer.consumer_group_metadata()
        if not self.consumer.memberid():
            raise KafkaUnavailable(f"this process is no member of {self._group} any more; it joins again")
        return proof

    def commit(self, next_offsets: list[TopicPartition], deadline: Deadline | None = None) -> None:
        """Commit those of partitions that are ours, and wait for the answer, until `deadline` at the latest.

        Raises KafkaUnavailable when it was not committed, or not in time.
        """
        next_offsets = [each for each in next_offsets if (each.topic, each.partition) in self.assigned]
        if not next_offsets:
            return
        commit = Background(_COMMIT_SECONDS)  # the client takes no time-out, and would wait for a broker for 45 s
        commit.start(lambda: _commit(self.consumer, next_offsets))
        try:
            commit.settle(deadline)
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
            places = self._places(self.consumer.assignment())
        except KafkaException as error:
            raise as_error(error) from error
        for place in places:
            place.offset = place.offset if place.offset >= 0 else OFFSET_BEGINNING
        self._go_to(places)
        self._ends.clear()
        self._committed.clear()

    def _places(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """What the group has committed of these partitions; below 0 where nothing ever was. Raises KafkaException."""
        places: list[TopicPartition] = self.consumer.committed(partitions, _SECONDS) if partitions else []
        for place in places:
            if place.error is not None:
                raise KafkaException(place.error)  # unknown is not the same as nothing committed
        return places

    def _go_to(self, places: list[TopicPartition]) -> None:
        """Read on from these places. Not by a seek: the client refuses one where it has no place to fetch from."""
        try:
            self.consumer.incremental_unassign([TopicPartition(each.topic, each.partition) for each in places])
            self.consumer.incremental_assign(places)
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
            self._settle(Deadline.after(self._leave_seconds))
        finally:
            self._forget("revoke", partitions)

    def _lose(self, _: Consumer, partitions: list[Any]) -> None:
        self._forget("lost", partitions)

    def _forget(self, kind: str, partitions: list[Any]) -> None:
        self.rebalanced = True
        gone = {(each.topic, each.partition) for each in partitions}
        self.assigned -= gone
        self._let_go(gone)
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
