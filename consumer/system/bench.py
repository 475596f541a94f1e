"""Benchmarks on a stack and a load of their own: the score service against the Kafka client's own ceiling."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import islice
from statistics import median
from typing import Any, Protocol

import psutil

from consumer import logs
from consumer.clock import utc_now
from consumer.errors import Fatal
from consumer.metrics import Metrics, total
from consumer.research.simulate import CHUNK, SimulationConfig, simulate
from consumer.scoring.load import load_controller
from consumer.services import topics
from consumer.services.produce import TransactionSender
from consumer.services.score import ScoreService
from consumer.settings import Settings, load_settings
from consumer.system.passthrough import PassThrough

_DISTINCT_EVENTS = 200_000
_WARM_UP_SHARE = 0.2
_SAMPLE_SECONDS = 0.005
_TIMEOUT_SECONDS = 300.0


class Drains(Protocol):
    """A service that can be watched while it empties a topic."""

    metrics: Metrics

    def run(self, stop: threading.Event) -> None: ...


@dataclass(frozen=True)
class Drained:
    """One process emptying the topic: steady-state rate (the first fifth is warm-up), its CPU and its memory."""

    events_per_s: float
    cpu_us_per_event: float
    rss_mb: float


@dataclass(frozen=True)
class ScoreBench:
    """Medians over rounds; `ratio` is the median of the rounds' own ratios, each measured back to back."""

    events: int
    rounds: int
    events_per_s: float
    ceiling_events_per_s: float
    ratio: float
    rss_mb: float
    cpu_us_per_event: float
    ceiling_cpu_us_per_event: float


def load_topic(settings: Settings, events: int, say: Callable[[str], None]) -> None:
    """Fill the transactions topic with simulated events; beyond 200,000 the same come again."""
    topics.apply(settings)
    sender = TransactionSender(settings)
    config = SimulationConfig(_DISTINCT_EVENTS, start=(utc_now() - timedelta(days=40)).date(), days=30, outcomes=False)
    batches = list(islice(simulate(config), _DISTINCT_EVENTS // CHUNK))
    for turn in range(events // CHUNK):
        sender.send(batches[turn % len(batches)])
    sender.flush()
    say(f"{sender.sent:,} events are in {settings.topic_transactions}")


def bench_score(settings: Settings, events: int, rounds: int, say: Callable[[str], None]) -> ScoreBench:
    """Score and pass-through empty the same topic in turn, each in a process of its own, `rounds` times."""
    load_topic(settings, events, say)
    scored, copied = [], []
    for number in range(1, rounds + 1):
        copied.append(_drain_in_process("passthrough", settings, events, number))
        scored.append(_drain_in_process("score", settings, events, number))
        say(
            f"round {number}: ceiling {copied[-1].events_per_s:,.0f}/s, score {scored[-1].events_per_s:,.0f}/s, "
            f"ratio {scored[-1].events_per_s / copied[-1].events_per_s:.2f}"
        )
    return ScoreBench(
        events=events,
        rounds=rounds,
        events_per_s=median(each.events_per_s for each in scored),
        ceiling_events_per_s=median(each.events_per_s for each in copied),
        ratio=median(mine.events_per_s / bare.events_per_s for mine, bare in zip(scored, copied, strict=True)),
        rss_mb=max(each.rss_mb for each in scored),
        cpu_us_per_event=median(each.cpu_us_per_event for each in scored),
        ceiling_cpu_us_per_event=median(each.cpu_us_per_event for each in copied),
    )


def _drain_in_process(what: str, settings: Settings, events: int, number: int) -> Drained:
    assert settings.kafka_bootstrap_servers  # noqa: S101 the bench owns its stack
    environment = {
        **os.environ,
        "BNPL_KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "BNPL_SCORE_GROUP": f"bench-{what}-{number}",
    }
    command = [sys.executable, "-m", "consumer.system.bench", what, str(events)]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=_TIMEOUT_SECONDS, check=False)
    if done.returncode:
        raise Fatal(f"the {what} process of the bench failed:\n{done.stderr.decode()[-2000:]}")
    print(done.stderr.decode(), file=sys.stderr)
    return Drained(**json.loads(done.stdout))


def _drain(what: str, events: int) -> Drained:
    settings = load_settings()
    service: Drains = (
        PassThrough(settings) if what == "passthrough" else ScoreService(settings, load_controller(settings))
    )
    stop = threading.Event()
    watched: dict[str, Any] = {}
    watcher = threading.Thread(target=_watch, args=(service, events, stop, watched), daemon=True)
    watcher.start()
    service.run(stop)
    watcher.join()
    counted = watched["records"][1] - watched["records"][0]
    return Drained(
        events_per_s=counted / (watched["at"][1] - watched["at"][0]),
        cpu_us_per_event=1e6 * (watched["cpu"][1] - watched["cpu"][0]) / counted,
        rss_mb=watched["rss"] / 2**20,
    )


def _watch(service: Drains, events: int, stop: threading.Event, watched: dict[str, Any]) -> None:
    process = psutil.Process()
    marks: list[tuple[float, float, int]] = []
    for share in (_WARM_UP_SHARE, 1.0):
        while total(service.metrics.records) < share * events:
            time.sleep(_SAMPLE_SECONDS)
        marks.append((time.monotonic(), sum(process.cpu_times()[:2]), total(service.metrics.records)))
    watched["at"], watched["cpu"], watched["records"] = zip(*marks, strict=True)
    watched["rss"] = process.memory_info().rss
    for family in service.metrics.pulse_collect() if False else service.metrics.stage_seconds.collect():
        for each in family.samples:
            if each.name.endswith("_total") and each.value:
                print(f"{each.labels['stage']:>9} {1e6 * each.value / events:6.2f}", file=sys.stderr)
    stop.set()


if __name__ == "__main__":
    logs.configure("warning", "bench")
    print(json.dumps(asdict(_drain(sys.argv[1], int(sys.argv[2])))))
