"""One process that empties a topic while it is watched: rate, CPU, memory and stages in its steady state.

The service is the real one, with its metrics, health and lag watch. The first fifth of the events is warm-up. Run as a
module it is that process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

import psutil

from consumer import logs
from consumer.errors import Fatal
from consumer.metrics import Metrics, total
from consumer.scoring.load import load_controller
from consumer.services.score import ScoreService
from consumer.services.sink import SinkService
from consumer.settings import Settings, load_settings
from consumer.system.bench.passthrough import PassThrough
from consumer.watch.server import StatusServer, watched

Service = Literal["score", "passthrough", "sink"]

_WARM_UP_SHARE = 0.2
_SAMPLE_SECONDS = 0.01
_TIMEOUT_SECONDS = 300.0


class Drains(Protocol):
    """A service that empties a topic."""

    metrics: Metrics

    def run(self, stop: threading.Event) -> None: ...


@dataclass(frozen=True)
class Drained:
    """One process in its steady state. `stages_us` are microseconds of its loop an event, by stage."""

    events: int
    events_per_s: float
    cpu_us_per_event: float
    rss_mb: float
    """The most it had."""
    rss_growth_mb: float
    """From the middle of the events to their end."""
    stages_us: dict[str, float]
    rows_per_batch: float


def drain(service: Service, settings: Settings, events: int, group: str) -> Drained:
    """Let `service` take `events` records, as a new group, in a process of its own. Raises Fatal when it fails."""
    environment = {
        **os.environ,
        "BNPL_KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers or "",
        "BNPL_CLICKHOUSE_URL": settings.clickhouse_url.get_secret_value() if settings.clickhouse_url else "",
        "BNPL_SCORE_GROUP": group,
        "BNPL_SINK_GROUP": group,
        "BNPL_TOPIC_SHADOW_SCORES": settings.topic_shadow_scores,
        "BNPL_TOPIC_OUTCOMES": settings.topic_outcomes,
    }
    command = [sys.executable, "-m", "consumer.system.bench.drain", service, str(events)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired as late:
        said = (late.stderr or b"").decode()[-2000:]
        raise Fatal(f"the {service} process of the bench did not end in {_TIMEOUT_SECONDS:.0f} s:\n{said}") from None
    if done.returncode:
        raise Fatal(f"the {service} process of the bench failed:\n{done.stderr.decode()[-2000:]}")
    return Drained(**json.loads(done.stdout))


@dataclass(frozen=True)
class _Mark:
    at: float
    cpu: float
    rss: int
    records: int
    stages: dict[str, float]
    batches: float


class _Watch:
    """Takes marks of this process while its service works, from another thread."""

    def __init__(self, service: Drains) -> None:
        self._metrics = service.metrics
        self._process = psutil.Process()
        self.most_rss = 0

    def until(self, records: float) -> _Mark:
        while total(self._metrics.records) < records:
            self.most_rss = max(self.most_rss, self._process.memory_info().rss)
            time.sleep(_SAMPLE_SECONDS)
        stages = {
            each.labels["stage"]: each.value
            for family in self._metrics.stage_seconds.collect()
            for each in family.samples
            if each.name.endswith("_total")
        }
        batches = self._metrics.registry.get_sample_value("bnpl_predict_batch_rows_count") or 0.0
        used = sum(self._process.cpu_times()[:2])
        rss = self._process.memory_info().rss
        return _Mark(time.monotonic(), used, rss, total(self._metrics.records), stages, batches)


def _watch(service: Drains, events: int, stop: threading.Event, found: list[Drained]) -> None:
    watch = _Watch(service)
    first, middle, last = (watch.until(share * events) for share in (_WARM_UP_SHARE, 0.5, 1.0))
    counted = last.records - first.records
    found.append(
        Drained(
            events=counted,
            events_per_s=counted / (last.at - first.at),
            cpu_us_per_event=1e6 * (last.cpu - first.cpu) / counted,
            rss_mb=max(watch.most_rss, last.rss) / 2**20,
            rss_growth_mb=(last.rss - middle.rss) / 2**20,
            stages_us={stage: 1e6 * (last.stages[stage] - first.stages[stage]) / counted for stage in last.stages},
            rows_per_batch=counted / max(1.0, last.batches - first.batches),
        )
    )
    stop.set()


def _main(service: Service, events: int) -> None:
    logs.configure("error", "bench")
    settings = load_settings()
    if service == "passthrough":
        bare = PassThrough(settings)
        print(json.dumps(asdict(_run(bare, events))))
        return
    made: ScoreService | SinkService
    if service == "score":
        made, group, topics = (
            ScoreService(settings, load_controller(settings)),
            settings.score_group,
            [settings.topic_transactions],
        )
    else:
        both = [settings.topic_shadow_scores, settings.topic_outcomes]
        made, group, topics = SinkService(settings), settings.sink_group, both
    with StatusServer("127.0.0.1", 0, "") as server, watched(made, server, settings, group, topics):
        print(json.dumps(asdict(_run(made, events))))


def _run(service: Drains, events: int) -> Drained:
    stop = threading.Event()
    found: list[Drained] = []
    watcher = threading.Thread(target=_watch, args=(service, events, stop, found), daemon=True)
    watcher.start()
    service.run(stop)
    watcher.join()
    return found[0]


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))  # type: ignore[arg-type]
