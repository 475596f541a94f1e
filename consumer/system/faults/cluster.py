"""Three Kafka nodes on this machine, each broker and controller, with every record on all of them.

One of them may die or hang at any time: two are left to agree. A lone broker that dies while it ends a transaction
cannot keep exactly once by itself (docs/decisions/0003-client-facts.md), so broker faults are tried here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException

from consumer.clock import Deadline
from consumer.errors import StackError
from consumer.services.kafka import admin
from consumer.settings import Settings
from consumer.stack.kafka import Kafka, Quorum, new_cluster_id
from consumer.stack.part import free_port

NODES = 3
_START_SECONDS = 180.0
"""Three JVMs at once."""
_HEALTHY_SECONDS = 180.0
_LOOK_SECONDS = 0.25
_ANSWER_SECONDS = 5.0


class Cluster:
    """Nodes 1 to 3, by number."""

    def __init__(self, folder: Path) -> None:
        quorum = Quorum(new_cluster_id(), {node: free_port() for node in range(1, NODES + 1)})
        self.nodes = {
            node: Kafka(folder / f"node-{node}", free_port(), owned=True, node=node, quorum=quorum)
            for node in quorum.controllers
        }

    @property
    def address(self) -> str:
        """All of them, as `bootstrap.servers` takes it."""
        return ",".join(each.address for each in self.nodes.values())

    def start(self) -> None:
        """Start those that do not run, all at once: none of them answers before most of them are there."""
        missing = [each for each in self.nodes.values() if each.process is None]
        for each in missing:
            each.launch()
        for each in missing:
            each.wait_ready(_START_SECONDS)

    def kill(self) -> None:
        for each in self.nodes.values():
            each.kill()


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster that ends with the block."""
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


class Leaders:
    """Who leads what, as the brokers say."""

    def __init__(self, settings: Settings) -> None:
        self._admin = admin(settings)

    def most_leading(self) -> int:
        """The node that leads most partitions."""
        leaders: list[int] = [each.leader for _, each in self._partitions() if each.leader > 0]
        return max(set(leaders), key=leaders.count)

    def coordinator(self, group: str) -> int:
        """The node that coordinates a group: it leads the partition of the offsets topic that Kafka puts it in."""
        offsets = [each for name, each in self._partitions() if name == "__consumer_offsets"]
        wanted = (_java_hash(group) & 0x7FFFFFFF) % len(offsets)
        return next(int(each.leader) for each in offsets if each.id == wanted)

    def wait_healthy(self) -> None:
        """Wait until every partition has a leader and all its replicas in sync. Raises StackError when not in time."""
        deadline = Deadline.after(_HEALTHY_SECONDS)
        while True:
            try:
                behind = [f"{name}/{each.id}" for name, each in self._partitions() if not _is_whole(each)]
            except KafkaException as error:
                behind = [error.args[0].str()]
            if not behind:
                return
            if deadline.passed:
                raise StackError(f"the cluster is not whole after {_HEALTHY_SECONDS:.0f} s: {', '.join(behind[:5])}")
            time.sleep(_LOOK_SECONDS)

    def _partitions(self) -> list[tuple[str, Any]]:
        found = self._admin.list_topics(timeout=_ANSWER_SECONDS).topics
        return [(name, each) for name, topic in found.items() for each in topic.partitions.values()]


def _is_whole(partition: Any) -> bool:
    return partition.leader > 0 and len(partition.isrs) == len(partition.replicas)


def _java_hash(text: str) -> int:
    value = 0
    for character in text:
        value = (31 * value + ord(character)) & 0xFFFFFFFF
    return value
