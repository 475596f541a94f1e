"""Kafka clients as this project needs them: settings that keep its promises, unsafe ones refused by name."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from consumer.errors import BnplError, ConfigurationError, Fatal, Fenced, KafkaUnavailable
from consumer.settings import Settings
from consumer.stack.local import read_addresses

log = logging.getLogger(__name__)

Client = TypeVar("Client")

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
    "enable.partition.eof": "a group commits the ends that it reached",
    "isolation.level": "reading uncommitted records would score what never happened",
    "acks": "an acknowledged event must be on all in-sync replicas",
    "enable.idempotence": "without it a retry could write an event twice",
    "message.max.bytes": "a dead letter, which is its record plus headers, must fit",
    "partitioner": "events of one key must go where Java producers put them",
}
"""Keys a client.properties file may not hold, and why or what to use instead."""

LARGEST_RECORD_BYTES = 2 * 1024 * 1024
"""Twice the broker's default for a record: a dead letter is its record plus headers."""
NETWORK_TIMEOUT_MS = 10_000
HEARTBEATS_A_SESSION = 3
"""How often a member shows itself within the time after which it is taken for dead."""
TAKEN_OVER = (
    "another instance with the same transactional id took over; give every running instance its own BNPL_INSTANCE, or "
    "stop the other one"
)


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
        "socket.timeout.ms": NETWORK_TIMEOUT_MS,
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
    """A read_committed member of a group that commits nothing by itself. client.properties may tune the first part."""
    defaults: dict[str, Any] = {
        "queued.min.messages": settings.batch_max_records * 4,
        "queued.max.messages.kbytes": settings.batch_max_bytes // 1024,
        "fetch.queue.backoff.ms": 10,  # the default of 1 s starves a reader that empties its queue faster
        "fetch.wait.max.ms": min(100, settings.batch_max_wait_ms),
    }
    if protocol == "classic":
        defaults["partition.assignment.strategy"] = "cooperative-sticky"
        defaults["session.timeout.ms"] = settings.session_timeout_ms
        defaults["heartbeat.interval.ms"] = settings.session_timeout_ms // HEARTBEATS_A_SESSION
    return (
        defaults
        | common_config(settings)
        | {
            "group.id": group,
            "group.protocol": protocol,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "max.poll.interval.ms": settings.max_poll_interval_ms,
        }
    )


def producer_config(settings: Settings) -> dict[str, Any]:
    """An idempotent producer that puts a key where Java producers put it. client.properties may tune the first part."""
    defaults: dict[str, Any] = {
        "linger.ms": 5,
        "queue.buffering.max.messages": max(100_000, settings.batch_max_records * 2),
        "queue.buffering.max.kbytes": max(64 * 1024, settings.batch_max_bytes // 512),
        "delivery.timeout.ms": 30_000,
    }
    return (
        defaults
        | common_config(settings)
        | {
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "message.max.bytes": LARGEST_RECORD_BYTES,
        }
    )


def transactional_producer(settings: Settings, transactional_id: str) -> Producer:
    """The one producer under this id; an older one is fenced off, and what it had begun is committed or aborted.

    Raises KafkaUnavailable when the broker does not answer.
    """
    config = producer_config(settings) | {
        "transactional.id": transactional_id,
        "transaction.timeout.ms": settings.transaction_timeout_ms,
        "delivery.timeout.ms": settings.transaction_timeout_ms,
        "socket.timeout.ms": min(NETWORK_TIMEOUT_MS, settings.transaction_timeout_ms),
    }
    producer = made(Producer, config)
    try:
        producer.init_transactions(NETWORK_TIMEOUT_MS / 1000)
    except KafkaException as error:
        raise as_error(error) from error
    return producer


def admin(settings: Settings) -> AdminClient:
    """An administrative client; every call on it takes its own timeout."""
    return made(AdminClient, common_config(settings))


def made(kind: Callable[[dict[str, Any]], Client], config: dict[str, Any]) -> Client:
    """A client. Raises ConfigurationError that says which key the client does not take."""
    try:
        return kind(config)
    except KafkaException as error:
        raise ConfigurationError(f"the Kafka client cannot be set up: {error.args[0].str()}") from error


def require_topics(settings: Settings, *names: str) -> None:
    """Ask once: raises KafkaUnavailable when no broker answers, Fatal that names each topic that is not there."""
    client = admin(settings)
    try:
        found = client.list_topics(timeout=NETWORK_TIMEOUT_MS / 1000)
    except KafkaException as error:
        why = error.args[0].str()
        raise KafkaUnavailable(f"Kafka does not answer at {bootstrap_servers(settings)}: {why}") from error
    if not found.brokers:
        raise KafkaUnavailable(f"Kafka at {bootstrap_servers(settings)} is starting: no broker is ready")
    missing = [name for name in names if name not in found.topics]
    if missing:
        raise Fatal(f"Kafka has no topic {', '.join(missing)}: run `bnpl-shadow topics apply`")


_WAYS_OUT = {
    KafkaError.UNKNOWN_TOPIC_OR_PART: "; run `bnpl-shadow topics apply`",
    KafkaError._UNKNOWN_TOPIC: "; run `bnpl-shadow topics apply`",
    KafkaError.MSG_SIZE_TOO_LARGE: "; `bnpl-shadow check` tells what max.message.bytes the topic should have",
    KafkaError.INVALID_RECORD: "; `bnpl-shadow check` tells whether the topic is compacted: then it needs keys",
}


def as_error(error: KafkaException) -> BnplError:
    """A client's exception as one of ours: Fenced, Fatal, or KafkaUnavailable for whatever may pass."""
    cause: KafkaError = error.args[0]
    if cause.code() in (KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH):
        return Fenced(TAKEN_OVER)
    if cause.fatal() or cause.code() in (
        KafkaError._FATAL,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._AUTHENTICATION,
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_RECORD,
        KafkaError.POLICY_VIOLATION,
    ):
        return Fatal(f"Kafka refused: {cause.str()} ({cause.name()}){_WAYS_OUT.get(cause.code(), '')}")
    return KafkaUnavailable(f"Kafka: {cause.str()} ({cause.name()})")
