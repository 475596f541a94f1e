"""Kafka clients as this project needs them: settings that keep its promises, unsafe ones refused by name."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from consumer.errors import BnplError, ConfigurationError, Fatal, Fenced, KafkaUnavailable
from consumer.settings import Settings
from consumer.stack.local import read_addresses

log = logging.getLogger(__name__)

OURS = {
    "bootstrap.servers": "set BNPL_KAFKA_BOOTSTRAP_SERVERS",
    "group.id": "set BNPL_SCORE_GROUP or BNPL_SINK_GROUP",
    "group.protocol": "set BNPL_GROUP_PROTOCOL",
    "transactional.id": "set BNPL_INSTANCE",
    "transaction.timeout.ms": "set BNPL_TRANSACTION_TIMEOUT_MS",
    "max.poll.interval.ms": "set BNPL_MAX_POLL_INTERVAL_MS",
    "enable.auto.commit": "offsets are committed with the results, or not at all",
    "enable.auto.offset.store": "offsets are committed with the results, or not at all",
    "auto.offset.reset": "a new group starts at the earliest record, or it would skip some",
    "isolation.level": "reading uncommitted records would score what never happened",
    "acks": "an acknowledged event must be on all in-sync replicas",
    "enable.idempotence": "without it a retry could write an event twice",
    "partitioner": "events of one key must go where Java producers put them",
}
"""Keys a client.properties file may not hold, and why or what to use instead."""

LARGEST_RECORD_BYTES = 2 * 1024 * 1024
"""Twice the broker's default for a record: a dead letter is its record plus headers."""
_NETWORK_TIMEOUT_MS = 10_000
_BACKLOG_SECONDS = 0.5
_UNSUPPORTED = KafkaError(KafkaError.UNSUPPORTED_VERSION).str()
"""What the client's fatal error for a broker without KIP-848 groups quotes; its own code says no more than fatal."""


def bootstrap_servers(settings: Settings) -> str:
    """The configured brokers, else the local stack's; StackError when neither is there."""
    return settings.kafka_bootstrap_servers or read_addresses(settings.state_dir).kafka


def common_config(settings: Settings) -> dict[str, Any]:
    """What every client shares: address, client.properties, logging.

    Raises ConfigurationError that names each key of the file which this project decides itself.
    """
    config: dict[str, Any] = {}
    if settings.kafka_config_file:
        config |= _read_properties(settings)
    refused = [f"  {key}: {OURS[key]}" for key in config if key in OURS]
    if refused:
        raise ConfigurationError(f"{settings.kafka_config_file} sets what is not for it to set:\n" + "\n".join(refused))
    return {
        "client.id": f"bnpl-shadow-{settings.instance}",
        "socket.timeout.ms": _NETWORK_TIMEOUT_MS,
        **config,
        "bootstrap.servers": bootstrap_servers(settings),
        "logger": log,
    }


def _read_properties(settings: Settings) -> dict[str, str]:
    try:
        lines = settings.kafka_config_file.read_text().splitlines()  # type: ignore[union-attr]
    except OSError as error:
        raise ConfigurationError(f"BNPL_KAFKA_CONFIG_FILE {settings.kafka_config_file}: {error.strerror}") from error
    pairs = (line.partition("=") for line in map(str.strip, lines) if line and line[0] not in "#!")
    return {key.strip(): value.strip() for key, _, value in pairs}


def consumer_config(settings: Settings, group: str, protocol: str) -> dict[str, Any]:
    """A read_committed member of a group that commits nothing by itself."""
    config = common_config(settings) | {
        "group.id": group,
        "group.protocol": protocol,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        "max.poll.interval.ms": settings.max_poll_interval_ms,
        "queued.min.messages": settings.batch_max_records * 4,
        "queued.max.messages.kbytes": settings.batch_max_bytes // 1024,
        "fetch.queue.backoff.ms": 10,  # the default of 1 s starves a reader that empties its queue faster
        "fetch.wait.max.ms": min(100, settings.batch_max_wait_ms),
    }
    if protocol == "classic":
        config["partition.assignment.strategy"] = "cooperative-sticky"
        config["session.timeout.ms"] = min(45_000, settings.max_poll_interval_ms)
    return config


def producer_config(settings: Settings) -> dict[str, Any]:
    """An idempotent producer that puts a key where Java producers put it."""
    return common_config(settings) | {
        "acks": "all",
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
        "linger.ms": 5,
        "queue.buffering.max.messages": max(100_000, settings.batch_max_records * 2),
        "queue.buffering.max.kbytes": max(64 * 1024, settings.batch_max_bytes // 512),
        "delivery.timeout.ms": 30_000,
        "message.max.bytes": LARGEST_RECORD_BYTES,
    }


def transactional_producer(settings: Settings, group: str) -> Producer:
    """The one producer of this instance in a group; an older one under the same id is fenced off.

    Raises KafkaUnavailable when the broker does not answer.
    """
    config = producer_config(settings) | {
        "transactional.id": f"{group}-{settings.instance}",
        "transaction.timeout.ms": settings.transaction_timeout_ms,
        "delivery.timeout.ms": settings.transaction_timeout_ms,
        "socket.timeout.ms": min(_NETWORK_TIMEOUT_MS, settings.transaction_timeout_ms),
        "linger.ms": 1,
    }
    producer = Producer(config)
    try:
        producer.init_transactions(_NETWORK_TIMEOUT_MS / 1000 * 3)
    except KafkaException as error:
        raise as_error(error) from error
    return producer


def admin(settings: Settings) -> AdminClient:
    """An administrative client; every call on it takes its own timeout."""
    return AdminClient(common_config(settings))


def require_topics(settings: Settings, *names: str) -> None:
    """Ask once before starting: raises KafkaUnavailable when no broker answers, Fatal that names each topic that is
    not there.
    """
    try:
        found = admin(settings).list_topics(timeout=_NETWORK_TIMEOUT_MS / 1000).topics
    except KafkaException as error:
        raise KafkaUnavailable(f"Kafka does not answer at {bootstrap_servers(settings)}") from error
    missing = [name for name in names if name not in found]
    if missing:
        raise Fatal(f"Kafka has no topic {', '.join(missing)}: run `bnpl-shadow topics apply`")


def as_error(error: KafkaException) -> BnplError:
    """A client's exception as one of ours: Fenced, Fatal, or KafkaUnavailable for whatever may pass."""
    cause: KafkaError = error.args[0]
    if cause.code() in (KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH):
        return Fenced(
            "another instance with the same transactional id took over; give every running instance its own "
            "BNPL_INSTANCE, or stop the other one"
        )
    if cause.fatal() or cause.code() in (
        KafkaError._FATAL,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._AUTHENTICATION,
        KafkaError.MSG_SIZE_TOO_LARGE,
    ):
        hint = "; run `bnpl-shadow topics apply`" if "UNKNOWN_TOPIC" in cause.name() else ""
        return Fatal(f"Kafka refused: {cause.str()} ({cause.name()}){hint}")
    return KafkaUnavailable(f"Kafka: {cause.str()} ({cause.name()})")


class GroupMember:
    """A member of a consumer group over one or more topics, by the newest protocol that the broker speaks."""

    def __init__(self, settings: Settings, group: str, topics: list[str], on_leave: Callable[[], None]) -> None:
        """`on_leave` runs before partitions are given up, in the thread that reads."""
        self._settings, self._group, self._topics = settings, group, topics
        self._on_leave = on_leave
        self._protocol = "classic" if settings.group_protocol == "classic" else "consumer"
        self.assigned: set[tuple[str, int]] = set()
        self.rebalanced = False
        self.consumer = self._join()

    def _join(self) -> Consumer:
        consumer = Consumer(consumer_config(self._settings, self._group, self._protocol))
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
        failures = [error for error in map(Message.error, messages) if error is not None]
        if failures:
            self._judge(failures)
            messages = [message for message in messages if message.error() is None]
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

    def _judge(self, failures: list[KafkaError]) -> None:
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
        """Commit and wait for the answer. Raises KafkaUnavailable when it was not committed."""
        try:
            self.consumer.commit(offsets=next_offsets, asynchronous=False)
        except KafkaException as error:
            raise as_error(error) from error

    def rewind(self) -> None:
        """Go back to what the group has committed: read again whatever is not. Raises KafkaUnavailable."""
        try:
            for position in self.consumer.committed(self.consumer.assignment(), _NETWORK_TIMEOUT_MS / 1000):
                if position.offset < 0:
                    position.offset = OFFSET_BEGINNING  # nothing was ever committed
                self.consumer.seek(position)
        except KafkaException as error:
            raise as_error(error) from error

    def close(self) -> None:
        """Leave the group. Commit before."""
        self.consumer.close()

    def _assign(self, _: Consumer, partitions: list[Any]) -> None:
        self.rebalanced = True
        self.assigned |= {(each.topic, each.partition) for each in partitions}
        log.info("assigned %s", _names(partitions))

    def _revoke(self, _: Consumer, partitions: list[Any]) -> None:
        try:
            self._on_leave()
        finally:
            self._forget("revoked", partitions)

    def _lose(self, _: Consumer, partitions: list[Any]) -> None:
        self._forget("lost", partitions)

    def _forget(self, how: str, partitions: list[Any]) -> None:
        self.rebalanced = True
        self.assigned -= {(each.topic, each.partition) for each in partitions}
        log.info("%s %s", how, _names(partitions))


def _names(partitions: list[Any]) -> str:
    return ", ".join(f"{each.topic}/{each.partition}" for each in partitions) or "nothing"
