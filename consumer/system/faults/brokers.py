"""Faults of Kafka, on a cluster of three nodes.

brokers  one node killed and started again: the one that leads most, the one that coordinates the groups; one node
         hanging for longer than a session and waking; all three killed and started again
"""

from __future__ import annotations

import time

from consumer.system.faults.cluster import NODES, Cluster, Leaders, running_cluster
from consumer.system.faults.extent import Extent
from consumer.system.faults.trial import Ground, Outcome, Say, Trial, trial

_SMALL_BATCHES = 1000
_GRACE_SECONDS = 1.0
"""What was committed before a node died may be seen a moment after it."""


def brokers(ground: Ground, extent: Extent, say: Say) -> Outcome:
    with running_cluster(ground.folder / "cluster") as cluster:
        say(f"{NODES} nodes answer at {cluster.address}")
        own = Ground(cluster.address, ground.clickhouse, ground.folder, ground.partitions, replicas=NODES)
        settings = own.settings("brokers", batch_max_records=_SMALL_BATCHES)
        leaders = Leaders(settings)
        leaders.wait_healthy()
        with trial(settings, extent.rate, say) as running:
            running.supervise(running.service("score"), running.service("sink"))
            running.wait_flowing()
            for _ in range(extent.rounds):
                _kill(running, cluster, leaders, leaders.most_leading(), "leading broker killed")
                _kill(running, cluster, leaders, leaders.coordinator(settings.score_group), "coordinator killed")
            for _ in range(max(extent.rounds, 1)):
                _hang(running, cluster, leaders, leaders.most_leading(), extent.pause_seconds)
            _kill_all(running, cluster, leaders)
        return running.outcome("brokers")


def _kill(running: Trial, cluster: Cluster, leaders: Leaders, node: int, kind: str) -> None:
    killed = time.monotonic()
    cluster.nodes[node].kill()
    running.recovered(kind, running.score, killed, killed + _GRACE_SECONDS)
    cluster.start()
    leaders.wait_healthy()


def _hang(running: Trial, cluster: Cluster, leaders: Leaders, node: int, seconds: float) -> None:
    began = time.monotonic()
    cluster.nodes[node].suspend()
    try:
        running.rest(seconds)
    finally:
        cluster.nodes[node].resume()
    running.recovered("broker hung", running.score, began, time.monotonic())
    leaders.wait_healthy()


def _kill_all(running: Trial, cluster: Cluster, leaders: Leaders) -> None:
    """Power is lost and comes back: recovery is counted from when all of them answer again."""
    cluster.kill()
    cluster.start()
    running.recovered("all brokers killed", running.score, time.monotonic())
    leaders.wait_healthy()
