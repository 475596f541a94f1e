"""Kafka: does it answer, are the topics there, and are they as `topics apply` makes them?

What is a fault and what a warning: a fault loses or stops something (a topic that is missing or compacted, no leader,
records that a topic would refuse). A warning is a promise that is weaker than wanted and harms nothing today (fewer
partitions or replicas, records that go sooner).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined] # re-exported without __all__
    AdminClient,
    ConfigResource,
    ResourceType,
)

from consumer.clock import Deadline
from consumer.services.kafka import admin, bootstrap_servers, consumer_config, made, producer_config
from consumer.services.topics import Topic, describe, wanted
from consumer.settings import Settings
from consumer.watch.check.finding import Finding, Findings, Stopped, fault, ok, stopping, warning

ANSWER_SECONDS = 6.0
_LEADER_SECONDS = 2.0
"""How long a partition may be without a leader, as one that was made a moment ago is."""
_POLL_SECONDS = 0.1
_PROBE_SECONDS = 1.0
_APPLY = "run `bnpl-shadow topics apply`"
_ALTER = "run `bnpl-shadow topics apply --alter`"
_BATCH_BYTES = 1_000_000
"""What the client packs into one batch (its `batch.size`); a topic limits batches, not records."""


def check_kafka(settings: Settings, names: set[str]) -> Findings:
    """The brokers, these topics, and what the brokers allow a transaction."""
    client, cluster = _connect(settings, names)
    brokers = len(cluster.brokers)
    yield ok("kafka", f"answers at {bootstrap_servers(settings)}: {brokers} broker{'s' * (brokers != 1)}")
    topics = [each for each in wanted(settings) if each.name in names]
    missing = [each.name for each in topics if each.name not in cluster.topics]
    if missing:
        yield fault("topics", f"Kafka has no topic {', '.join(missing)}", _APPLY)
    there = [each for each in topics if each.name not in missing]
    resources = [ConfigResource(ResourceType.TOPIC, each.name) for each in there]
    broker = ConfigResource(ResourceType.BROKER, str(min(cluster.brokers)))
    try:
        found = describe(client, [*resources, broker], ANSWER_SECONDS)
    except (KafkaException, TimeoutError):
        yield fault("topics", "Kafka does not tell how its topics are configured", "try again", passing=True)
        return
    for topic, resource in zip(there, resources, strict=True):
        yield from _topic(topic, cluster.topics[topic.name], found[resource], settings)
    yield from _transaction_timeout(found[broker], settings)


def check_names(settings: Settings) -> Findings:
    """Every topic and group has a name of its own: a service that reads what it writes never ends."""
    topics = [each.name for each in wanted(settings)]
    twice = sorted({name for name in topics if topics.count(name) > 1})
    if twice:
        yield fault("topics", f"two settings name the same topic: {', '.join(twice)}", "give each BNPL_TOPIC_… its own")
    if settings.score_group == settings.sink_group:
        what = f"score and sink are in one group, {settings.score_group}: each would move the other's place"
        yield fault("kafka", what, "give BNPL_SCORE_GROUP and BNPL_SINK_GROUP names of their own")


def check_clients(settings: Settings) -> Findings:
    """The client takes the configuration of every kind that services use."""
    with stopping("kafka"):
        for protocol in ("consumer", "classic"):
            made(Consumer, consumer_config(settings, settings.score_group, protocol)).close()
        made(Producer, producer_config(settings))
    where = settings.kafka_config_file
    yield ok("kafka", f"the client takes {where}" if where else "no BNPL_KAFKA_CONFIG_FILE: the client's defaults hold")


def _connect(settings: Settings, names: set[str]) -> tuple[AdminClient, Any]:
    with stopping("kafka"):
        client, address = admin(settings), bootstrap_servers(settings)
    deadline = Deadline.after(_LEADER_SECONDS)
    try:
        while True:
            cluster = client.list_topics(timeout=ANSWER_SECONDS)
            leaderless = [name for name in names & cluster.topics.keys() if _leaderless(cluster.topics[name])]
            if not leaderless or deadline.passed:
                return client, cluster
            time.sleep(_POLL_SECONDS)
    except KafkaException as error:
        what = f"Kafka does not answer at {address}: {error.args[0].str()}"
        remedy = "start it (`bnpl-shadow up` for the local one), or set BNPL_KAFKA_BOOTSTRAP_SERVERS"
        if listening := _listening(address):
            what += f", though something listens at {listening}"
            remedy = "see whether that is a Kafka broker, and whether it wants TLS or SASL (BNPL_KAFKA_CONFIG_FILE)"
        raise Stopped(fault("kafka", what, remedy, passing=True)) from error


def _listening(addresses: str) -> str | None:
    """The first of `host:port,…` that takes a connection."""
    for address in addresses.split(","):
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[] "), int(port)), _PROBE_SECONDS).close()
            return address
        except (OSError, ValueError):
            continue
    return None


def _topic(topic: Topic, found: Any, config: dict[str, Any] | KafkaException, settings: Settings) -> Findings:
    """All of one topic; one line when it is well."""
    findings = [*_partitions(topic, found), *_replicas(topic, found, config, settings), *_config(topic, config)]
    yield from findings
    if not findings:
        wants = topic.config
        days = int(wants["retention.ms"]) / 86_400_000 if "retention.ms" in wants else None
        kept = f"kept {days:g} days" if days else "compacted"
        yield ok("topics", f"{topic.name}: {len(found.partitions)} partitions, {kept}")


def _partitions(topic: Topic, found: Any) -> Findings:
    if leaderless := _leaderless(found):
        what = f"{topic.name} has no leader for partition {', '.join(map(str, leaderless))}"
        yield fault("topics", what, "bring the brokers back that hold it", passing=True)
    if len(found.partitions) < topic.partitions:
        what = f"{topic.name} has {len(found.partitions)} partitions, {topic.partitions} are wanted: fewer processes"
        remedy = "make a topic of another name, or lower BNPL_TOPIC_PARTITIONS: adding partitions moves keys"
        yield warning("topics", f"{what} can share the work", remedy)


def _leaderless(found: Any) -> list[int]:
    return sorted(number for number, each in found.partitions.items() if each.leader < 0)


def _replicas(
    topic: Topic, found: Any, config: dict[str, Any] | KafkaException, settings: Settings
) -> Iterator[Finding]:
    if not found.partitions:
        return
    replicas = min(len(each.replicas) for each in found.partitions.values())
    in_sync = min(len(each.isrs) for each in found.partitions.values())
    if replicas < settings.topic_replication_factor:
        what = f"{topic.name} has {replicas} replicas, {settings.topic_replication_factor} are wanted"
        yield warning("topics", what, "reassign its partitions, or lower BNPL_TOPIC_REPLICATION_FACTOR")
    if isinstance(config, KafkaException) or "min.insync.replicas" not in config:
        return
    needed = int(config["min.insync.replicas"].value)
    if needed > replicas:
        what = f"{topic.name} takes no record: it wants {needed} replicas in sync and has {replicas}"
        yield fault("topics", what, "lower its min.insync.replicas, or add replicas")
    elif needed > in_sync:
        what = f"{topic.name} takes no record now: {in_sync} replicas are in sync, it wants {needed}"
        yield fault("topics", what, "bring the brokers back that hold its replicas", passing=True)


def _config(topic: Topic, config: dict[str, Any] | KafkaException) -> Findings:
    if isinstance(config, KafkaException):
        what = f"{topic.name}: its configuration may not be read ({config.args[0].name()}), so it is not compared"
        yield warning("topics", what, "grant this user DescribeConfigs on the topic")
        return
    values = {key: entry.value for key, entry in config.items()}
    policy, wants = values["cleanup.policy"], topic.config["cleanup.policy"]
    if policy != wants:
        lost = "records of one key replace each other unread" if wants == "delete" else "what is set once would expire"
        yield fault("topics", f"{topic.name} has cleanup.policy {policy}, not {wants}: {lost}", _ALTER)
    if "retention.ms" in topic.config:
        yield from _retention(topic, values)
    largest = int(values["max.message.bytes"])
    needed = int(topic.config.get("max.message.bytes", _BATCH_BYTES))
    if largest < needed:
        what = f"{topic.name} takes {largest} bytes at a time (max.message.bytes), services send up to {needed}"
        remedy = _ALTER if "max.message.bytes" in topic.config else f"set its max.message.bytes to {needed} or more"
        yield fault("topics", what, remedy)


def _retention(topic: Topic, values: dict[str, str]) -> Findings:
    kept, wants = int(values["retention.ms"]), int(topic.config["retention.ms"])
    if 0 <= kept < wants:
        what = f"{topic.name} keeps records {kept / 3_600_000:.4g} h, {wants // 3_600_000} h are wanted"
        yield warning("topics", f"{what}: a service that is away for longer misses some", _ALTER)
    size = int(values.get("retention.bytes", -1))
    if size >= 0:
        what = (
            f"{topic.name} keeps {size} bytes a partition at the most, however young: a service that lags misses some"
        )
        yield warning("topics", what, "set its retention.bytes to -1")


def _transaction_timeout(config: dict[str, Any] | KafkaException, settings: Settings) -> Findings:
    if isinstance(config, KafkaException) or "transaction.max.timeout.ms" not in config:
        what = "transaction.max.timeout.ms of the brokers may not be read, so ours is not compared with it"
        yield warning("timeouts", what, "grant this user DescribeConfigs on the cluster")
        return
    allowed, ours = int(config["transaction.max.timeout.ms"].value), settings.transaction_timeout_ms
    if ours > allowed:
        what = f"a transaction may take {ours} ms here and {allowed} ms at the brokers (transaction.max.timeout.ms)"
        yield fault("timeouts", what, "lower BNPL_TRANSACTION_TIMEOUT_MS, or raise the brokers'")
    else:
        yield ok("timeouts", f"a transaction may take {ours} ms; the brokers allow {allowed} ms")
