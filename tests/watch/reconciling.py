"""What tests of the proof do by hand: score and store, lose, delete, and read what was found."""

from __future__ import annotations

from confluent_kafka import Consumer, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from harness import HEADER_NAMES, eventually, running, wait_scored

from consumer.scoring.controller import ShadowModeController
from consumer.services import clickhouse
from consumer.services.score import ScoreService
from consumer.services.sink import SinkService
from consumer.settings import Settings
from consumer.watch.lag import LagReader
from consumer.watch.reconcile.places import Fault
from consumer.watch.reconcile.reconcile import KINDS, Reconciliation
from consumer.watch.records import TopicReader


def wait_sunk(settings: Settings) -> None:
    """Wait until the sink group has committed everything that is in its topic."""
    with LagReader(settings, settings.sink_group, [settings.topic_shadow_scores]) as lag:
        eventually(lambda: not lag.look().unread, 40, lambda: f"lag {lag.look()}")


def score_and_store(settings: Settings, controller: ShadowModeController) -> None:
    with running(ScoreService(settings, controller)), running(SinkService(settings)):
        wait_scored(settings)
        wait_sunk(settings)


def pass_over(settings: Settings, group: str, topic: str) -> None:
    """Move a group without members to the end of a topic, as one does who loses what is in between."""
    with TopicReader(settings, isolation="read_uncommitted") as reader:
        ends = [TopicPartition(topic, partition, end) for partition, (_, end) in reader.held(topic).items()]
    mover = Consumer({"bootstrap.servers": settings.kafka_bootstrap_servers, "group.id": group})
    try:
        mover.commit(offsets=ends, asynchronous=False)
    finally:
        mover.close()


def expire(settings: Settings, topic: str, before: dict[int, int]) -> None:
    """Delete what stands before these offsets, as retention does."""
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    asked = [TopicPartition(topic, partition, offset) for partition, offset in before.items()]
    for answer in admin.delete_records(asked).values():
        answer.result(20)


def execute(settings: Settings, statement: str) -> None:
    with clickhouse.connect(settings) as client:
        client.command(statement, settings={"mutations_sync": 2})


def wrong(found: Reconciliation) -> dict[str, int]:
    """The kinds of fault that there are."""
    return {kind: getattr(found, kind) for kind in KINDS if getattr(found, kind)}


def told(found: Reconciliation) -> list[str]:
    return [str(fault) for fault in found.faults]


def place(message: Message) -> tuple[int, int]:
    partition, offset = message.partition(), message.offset()
    assert partition is not None
    assert offset is not None
    return partition, offset


def letter_headers(topic: str, partition: int, offset: int) -> list[tuple[str, bytes]]:
    named = {"topic": topic, "partition": partition, "offset": offset, "stage": "decode"}
    named |= {"exception_class_name": "truncated"}
    return [(HEADER_NAMES[name], str(value).encode()) for name, value in named.items()]


def expanded(fault: Fault) -> list[int]:
    return [offset for first, last in fault.ranges for offset in range(first, last + 1)]
