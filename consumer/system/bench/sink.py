"""The sink: one process empties a backlog of shadow events, or of outcomes, into the local ClickHouse."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from statistics import median

import numpy as np
import pyarrow as pa

from consumer.clock import utc_now
from consumer.contracts.horizons import Horizons
from consumer.research.outcomes import outcomes_of
from consumer.research.simulate import SimulationConfig, simulate
from consumer.services import topics
from consumer.services.outcomes import OutcomeSender
from consumer.settings import Settings
from consumer.system.bench.drain import drain
from consumer.system.bench.load import Load, Say

SCORES, OUTCOMES = "bnpl.bench.sink", "bnpl.bench.outcomes"
"""A backlog has a topic of its own: the rounds of other parts write a multiple of it into theirs."""
NOTHING = "bnpl.bench.nothing"
"""The sink's other topic meanwhile."""

_BEFORE_ALL_WAS_KNOWN = timedelta(days=400)
_TRANSACTIONS_A_DAY = 25_000


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
    own = settings.model_copy(update={"topic_shadow_scores": SCORES, "topic_outcomes": NOTHING})
    topics.apply(own)
    drain("score", own, events, "bench-sink-backlog")
    say(f"sink: {events:,} shadow events wait")
    return _stored(own, events, rounds, "sink", say)


def bench_outcomes(settings: Settings, events: int, rounds: int, say: Say) -> SinkFigures:
    """The same for outcomes, in the order in which they came to be known."""
    own = settings.model_copy(update={"topic_shadow_scores": NOTHING, "topic_outcomes": OUTCOMES})
    topics.apply(own)
    sender = OutcomeSender(own)
    for batch in _outcomes(Horizons.load(settings.horizons_file), events):
        sender.send(batch)
    sender.flush()
    say(f"outcomes: {sender.sent:,} wait")
    return _stored(own, sender.sent, rounds, "outcomes", say)


def _outcomes(horizons: Horizons, count: int) -> Iterator[pa.RecordBatch]:
    days = 1 + count // (len(horizons.labels) * _TRANSACTIONS_A_DAY)
    start = (utc_now() - _BEFORE_ALL_WAS_KNOWN).date()
    rng = np.random.default_rng(0)
    made = [
        outcomes_of(batch, horizons, rng)
        for batch in simulate(SimulationConfig(days * _TRANSACTIONS_A_DAY, start=start, days=days))
    ]
    yield from pa.Table.from_batches(made).sort_by("observed_at").slice(0, count).to_batches(max_chunksize=50_000)


def _stored(settings: Settings, events: int, rounds: int, what: str, say: Say) -> SinkFigures:
    stored = []
    for number in range(1, rounds + 1):
        stored.append(drain("sink", settings, events, f"bench-{what}-{number}"))
        say(f"{what}: round {number} of {rounds}: {stored[-1].events_per_s:,.0f} rows/s")
    return SinkFigures(
        events=min(each.events for each in stored),
        rounds=rounds,
        rows_per_s=median(each.events_per_s for each in stored),
        cpu_us_per_row=median(each.cpu_us_per_event for each in stored),
        rss_mb=max(each.rss_mb for each in stored),
    )
