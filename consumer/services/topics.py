"""The topics this project needs: what each is for, how long it keeps records, and how it comes to be."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined] # re-exported without __all__
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from consumer.clock import Deadline
from consumer.errors import Fatal
from consumer.services.kafka import LARGEST_RECORD_BYTES, admin, as_error, require_topics
from consumer.settings import Settings

_TIMEOUT_SECONDS = 15.0
_POLL_SECONDS = 0.1
_DAY_MS = 86_400_000


@dataclass(frozen=True)
class Topic:
    """A topic as it should be. `config` holds the broker's topic settings that matter here."""

    name: str
    purpose: str
    partitions: int
    config: dict[str, str]


def wanted(settings: Settings) -> list[Topic]:
    """Every topic, under its configured name."""

    def kept(days: int, **more: str) -> dict[str, str]:
        return {"cleanup.policy": "delete", "retention.ms": str(days * _DAY_MS), **more}

    parts = settings.topic_partitions
    large = {"max.message.bytes": str(LARGEST_RECORD_BYTES)}
    return [
        Topic(
            settings.topic_transactions,
            "checkouts, as their producers send them",
            parts,
            kept(settings.transactions_retention_days),
        ),
        Topic(settings.topic_shadow_scores, "one shadow event a transaction: the truth", parts, kept(30)),
        Topic(settings.topic_dead_letters, "transactions that cannot be used", parts, kept(14, **large)),
        Topic(settings.topic_outcomes, "what became of a transaction", parts, kept(30)),
        Topic(settings.topic_outcomes_dead_letters, "outcomes that cannot be used", parts, kept(14, **large)),
        Topic(settings.topic_control, "champion and mode", 1, {"cleanup.policy": "compact"}),
    ]


def topics_of_kinds(settings: Settings) -> dict[str, str]:
    """The topic of each kind of event that `schemas/` describes: `<topic>-value` is its subject in a registry."""
    return {
        "transaction": settings.topic_transactions,
        "shadow_event": settings.topic_shadow_scores,
        "outcome": settings.topic_outcomes,
    }


@dataclass(frozen=True)
class Applied:
    """What `apply` found or did for one topic."""

    topic: Topic
    outcome: str
    """created; kept, with what differs; or changed, with what was set"""


def apply(settings: Settings, *, alter: bool = False) -> list[Applied]:
    """Create missing topics. Those that exist are left as they are, and what differs is reported; with `alter` their
    retention and compaction are set too. Never removes a topic, never adds partitions to one (keys would move).

    Raises Fatal when the broker refuses, KafkaUnavailable when it does not answer.
    """
    require_topics(settings)
    client = admin(settings)
    topics = wanted(settings)
    replicas = settings.topic_replication_factor
    durable = {"min.insync.replicas": "2"} if replicas >= 3 else {}  # what makes acks=all mean more than one disk
    news = [NewTopic(each.name, each.partitions, replicas, config=each.config | durable) for each in topics]
    answers = client.create_topics(news, operation_timeout=_TIMEOUT_SECONDS, request_timeout=_TIMEOUT_SECONDS)
    applied = []
    for each in topics:
        try:
            answers[each.name].result(_TIMEOUT_SECONDS)
            applied.append(Applied(each, "created"))
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise as_error(error) from error
            applied.append(Applied(each, _compare(client, each, alter=alter)))
    return applied


def _compare(client: AdminClient, topic: Topic, *, alter: bool) -> str:
    try:
        found = _config(client, topic)
        partitions = len(client.list_topics(topic.name, _TIMEOUT_SECONDS).topics[topic.name].partitions)
        notes = [] if partitions == topic.partitions else [f"has {partitions} partitions, not {topic.partitions}"]
        different = {key: value for key, value in topic.config.items() if found[key].value != value}
        if different and alter:
            _set(client, topic, different)
            return "; ".join([f"changed: {', '.join(sorted(different))}", *notes])
        notes += [f"has {key} {found[key].value}, not {value}" for key, value in sorted(different.items())]
        return "; ".join(["kept", *notes])
    except KafkaException as error:
        raise as_error(error) from error
    except TimeoutError:
        raise Fatal(f"the broker did not answer about topic {topic.name} within {_TIMEOUT_SECONDS:.0f} s") from None


def _config(client: AdminClient, topic: Topic) -> dict[str, Any]:
    """The topic's configuration; a topic made a moment ago is not yet known to every broker, and waited for."""
    deadline = Deadline.after(_TIMEOUT_SECONDS)
    while True:
        (found,) = describe(client, [ConfigResource(ResourceType.TOPIC, topic.name)], _TIMEOUT_SECONDS).values()
        if not isinstance(found, KafkaException):
            return found
        if found.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART or deadline.passed:
            raise found
        time.sleep(_POLL_SECONDS)


def describe(
    client: AdminClient, resources: list[ConfigResource], seconds: float
) -> dict[ConfigResource, dict[str, Any] | KafkaException]:
    """Configuration entries by name, or what the broker said instead, of each topic or broker that is asked about.

    Raises TimeoutError when the broker does not answer.
    """
    found: dict[ConfigResource, dict[str, Any] | KafkaException] = {}
    for resource, answer in client.describe_configs(resources, request_timeout=seconds).items():
        try:
            found[resource] = dict(answer.result(seconds))
        except KafkaException as error:
            found[resource] = error
    return found


def _set(client: AdminClient, topic: Topic, values: dict[str, str]) -> None:
    changed = ConfigResource(ResourceType.TOPIC, topic.name)
    for key, value in values.items():
        changed.add_incremental_config(ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET))
    client.incremental_alter_configs([changed], request_timeout=_TIMEOUT_SECONDS)[changed].result(_TIMEOUT_SECONDS)
