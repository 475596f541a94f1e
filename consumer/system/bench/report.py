"""What a bench found, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from consumer.system.bench.api import ApiFigures
from consumer.system.bench.evaluate import EvaluateFigures
from consumer.system.bench.freshness import FreshnessFigures
from consumer.system.bench.machine import BUSY_SHARE
from consumer.system.bench.memory import MemoryFigures
from consumer.system.bench.score import ScoreFigures
from consumer.system.bench.single import NaiveFigures, SingleFigures
from consumer.system.bench.sink import SinkFigures


@dataclass(frozen=True)
class Report:
    """The parts that ran; the others are None."""

    machine: dict[str, str | int | float]
    other_work_share: float
    """CPU that other work took while it ran, of all cores."""
    score: ScoreFigures | None = None
    stages_us: dict[str, float] | None = None
    freshness_ms: FreshnessFigures | None = None
    memory: MemoryFigures | None = None
    sink: SinkFigures | None = None
    outcomes: SinkFigures | None = None
    evaluate: EvaluateFigures | None = None
    api: ApiFigures | None = None
    single_us: SingleFigures | None = None
    naive: NaiveFigures | None = None

    def as_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}

    def lines(self) -> Iterator[str]:
        """A table with what each figure should reach."""
        if self.score:
            yield from _score(self.score)
        if self.stages_us:
            shares = "  ".join(f"{name} {taken:.2f}" for name, taken in self.stages_us.items())
            yield f"stages      µs of the loop an event: {shares}"
        if self.freshness_ms:
            yield from _freshness(self.freshness_ms)
        if self.memory:
            yield (
                f"memory      {self.memory.rss_mb:,.0f} MB at the most over a backlog of {self.memory.backlog:,} "
                f"(at most 450), {self.memory.growth_mb:+.1f} MB in its second half"
            )
        if self.sink:
            yield _sink("sink", self.sink, 150_000)
        if self.outcomes:
            yield _sink("outcomes", self.outcomes, 100_000)
        if self.evaluate:
            found = self.evaluate
            yield (
                f"evaluate    {found.rows:,} transactions in {found.seconds:.1f} s (at most 20 for a million), "
                f"{found.rss_mb:,.0f} MB (at most 1,000); a tenth of them in {found.tenth_seconds:.1f} s"
            )
        if self.api:
            yield from _api(self.api)
        if self.single_us:
            yield f"single      {self.single_us.median:,.0f} µs median (at most 200), {self.single_us.p99:,.0f} µs p99"
        if self.naive:
            yield from _naive(self.naive, self.score)
        yield f"other work  took {self.other_work_share:.0%} of all cores meanwhile"
        if self.other_work_share > BUSY_SHARE:
            yield "            a busy machine: rates and times are too low and too long, and ratios uncertain"


def _score(figures: ScoreFigures) -> Iterator[str]:
    yield (
        f"score       {figures.events_per_s:,.0f} events/s, {figures.cpu_us_per_event:.1f} µs CPU an event, "
        f"{figures.rss_mb:,.0f} MB, {figures.rows_per_batch:,.0f} events a batch"
    )
    yield (
        f"ceiling     {figures.ceiling_events_per_s:,.0f} events/s passed through, "
        f"{figures.ceiling_cpu_us_per_event:.1f} µs CPU an event"
    )
    rounds = ", ".join(f"{ratio:.2f}" for ratio in figures.ratios)
    yield f"ratio       {figures.ratio:.2f} (at least 0.60), median of rounds of {figures.events:,} events: {rounds}"


def _freshness(figures: FreshnessFigures) -> Iterator[str]:
    yield (
        f"freshness   p50 {figures.p50:.0f} ms, p90 {figures.p90:.0f}, p99 {figures.p99:.0f} (at most 100), "
        f"most {figures.most:.0f}; {figures.rate_per_s:,.0f} events/s over {figures.seconds:.0f} s, "
        f"{figures.rows_per_batch:.0f} events a batch"
    )
    for edge, count in figures.histogram.items():
        share = count / figures.events
        yield f"            ≤ {edge:>5} ms {share:7.2%} {'█' * round(50 * share)}"


def _sink(name: str, figures: SinkFigures, least: int) -> str:
    rate, cpu = figures.rows_per_s, figures.cpu_us_per_row
    return f"{name:11} {rate:,.0f} rows/s (at least {least:,}), {cpu:.1f} µs CPU a row"


def _api(figures: ApiFigures) -> Iterator[str]:
    rounds = ", ".join(f"{ratio:.2f}" for ratio in figures.ratios)
    yield (
        f"api         {figures.score_per_s:,.0f} scores/s on one worker, {figures.echo_per_s:,.0f} echoes/s; "
        f"ratio {figures.ratio:.2f} (at least 0.60), median of {rounds}"
    )
    yield (
        f"            at {figures.half_load_per_s:,.0f} scores/s p50 {figures.p50_ms:.1f} ms, "
        f"p99 {figures.p99_ms:.1f} (at most 20)"
    )


def _naive(figures: NaiveFigures, score: ScoreFigures | None) -> Iterator[str]:
    ratio = f"; the score service does {score.events_per_s / figures.events_per_s:,.0f} times that" if score else ""
    yield f"naive       {figures.events_per_s:,.0f} events/s, a pandas row and four predict_proba each{ratio}"
