"""The sink: one process empties a backlog of shadow events into the local ClickHouse."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from consumer.services import topics
from consumer.settings import Settings
from consumer.system.bench.drain import drain
from consumer.system.bench.load import Load, Say

TOPIC = "bnpl.bench.sink"
"""The sink's backlog has a topic of its own: the rounds of other parts write a multiple of it into theirs."""


@dataclass(frozen=True)
class SinkFigures:
    events: int
    rounds: int
    rows_per_s: float
    cpu_us_per_row: float
    rss_mb: float


def bench_sink(settings: Settings, load: Load, events: int, rounds: int, say: Say) -> SinkFigures:
    """Score the backlog once, then store it in each round; the same rows again are as much work."""
    load.fill(events)
    own = settings.model_copy(update={"topic_shadow_scores": TOPIC})
    topics.apply(own)
    drain("score", own, events, "bench-sink-backlog")
    say(f"sink: {events:,} shadow events wait")
    stored = []
    for number in range(1, rounds + 1):
        stored.append(drain("sink", own, events, f"bench-sink-{number}"))
        say(f"sink: round {number} of {rounds}: {stored[-1].events_per_s:,.0f} rows/s")
    return SinkFigures(
        events=min(each.events for each in stored),
        rounds=rounds,
        rows_per_s=median(each.events_per_s for each in stored),
        cpu_us_per_row=median(each.cpu_us_per_event for each in stored),
        rss_mb=max(each.rss_mb for each in stored),
    )
