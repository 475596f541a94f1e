"""The parts of a bench, one after the other, on a stack of their own."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from consumer.settings import Settings, load_settings
from consumer.stack.local import LocalStack
from consumer.system.bench import machine
from consumer.system.bench.api import bench_api
from consumer.system.bench.evaluate import bench_evaluate
from consumer.system.bench.freshness import bench_freshness
from consumer.system.bench.load import Load, Say
from consumer.system.bench.memory import bench_memory
from consumer.system.bench.report import Report
from consumer.system.bench.score import bench_score
from consumer.system.bench.single import bench_naive, bench_single
from consumer.system.bench.sink import bench_outcomes, bench_sink
from consumer.system.run import prepare

PARTS = ("score", "freshness", "memory", "sink", "outcomes", "evaluate", "api", "single", "naive")
_NEED_A_STACK = {"score", "freshness", "memory", "sink", "outcomes", "evaluate", "api"}
_WITH_WARM_UP = 1.25
"""A fifth of what a process takes in is warm-up."""
_CALLS_A_NAIVE_CALL = 25
_EVALUATED = 1_000_000


@dataclass(frozen=True)
class Extent:
    """How much each part does; `events` are those of a round's steady state."""

    events: int
    rounds: int
    backlog: int
    rate: int
    seconds: int
    calls: int


def run_bench(parts: Collection[str], extent: Extent, say: Say, *, busy_too: bool) -> Report:
    """Run `parts` (of PARTS) in their order.

    Raises Fatal for a machine that is too small, or one that is busy unless `busy_too`.
    """
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bnpl-bench-")))
        machine.refuse_unfit(folder, busy_too=busy_too)
        others = machine.OtherWork()
        settings = load_settings(state_dir=folder)
        if _NEED_A_STACK & set(parts):
            settings = _started(stack.enter_context(LocalStack(folder, 0, 0)), settings, say)
        load, events = Load(settings, say), int(extent.events * _WITH_WARM_UP)
        if "score" in parts:
            found["score"], found["stages_us"] = bench_score(settings, load, events, extent.rounds, say)
        if "freshness" in parts:
            found["freshness_ms"] = bench_freshness(settings, extent.rate, extent.seconds, say)
        if "memory" in parts:
            found["memory"] = bench_memory(settings, load, extent.backlog, say)
        if "sink" in parts:
            found["sink"] = bench_sink(settings, load, events, extent.rounds, say)
        if "outcomes" in parts:
            found["outcomes"] = bench_outcomes(settings, events, extent.rounds, say)
        if "evaluate" in parts:
            found["evaluate"] = bench_evaluate(settings, min(extent.events, _EVALUATED), say)
        if "api" in parts:
            found["api"] = bench_api(settings, extent.seconds / 2, say)
        if "single" in parts:
            found["single_us"] = bench_single(settings, extent.calls, say)
        if "naive" in parts:
            found["naive"] = bench_naive(settings, max(10, extent.calls // _CALLS_A_NAIVE_CALL), say)
        return Report(machine.describe(), others.share(), **found)


def _started(stack: LocalStack, settings: Settings, say: Say) -> Settings:
    addresses = stack.start(say)
    settings = settings.model_copy(
        update={
            "kafka_bootstrap_servers": addresses.kafka,
            "clickhouse_url": SecretStr(addresses.clickhouse),
            "topic_partitions": 4,
        }
    )
    prepare(settings)
    return settings
