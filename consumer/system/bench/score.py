"""Score against its ceiling: each empties the same topic in turn, exactly once, in a process of its own."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from consumer.metrics import STAGES
from consumer.settings import Settings
from consumer.system.bench.drain import Drained, drain
from consumer.system.bench.load import Load, Say

_GROUPS = {"poll": "consume", "idle": "consume", "predict": "score"}
"""The loop's stages under the names that the report uses, where they differ."""


@dataclass(frozen=True)
class ScoreFigures:
    """Medians over rounds; `ratio` is the median of the rounds' own ratios, each measured back to back."""

    events: int
    """In the steady state of a round."""
    rounds: int
    events_per_s: float
    ceiling_events_per_s: float
    ratio: float
    ratios: list[float]
    rss_mb: float
    cpu_us_per_event: float
    ceiling_cpu_us_per_event: float
    rows_per_batch: float


def bench_score(
    settings: Settings, load: Load, events: int, rounds: int, say: Say
) -> tuple[ScoreFigures, dict[str, float]]:
    """The figures, and the loop's microseconds an event by stage."""
    load.fill(events)
    scored: list[Drained] = []
    copied: list[Drained] = []
    for number in range(1, rounds + 1):
        copied.append(drain("passthrough", settings, events, f"bench-passthrough-{number}"))
        scored.append(drain("score", settings, events, f"bench-score-{number}"))
        say(
            f"score: round {number} of {rounds}: ceiling {copied[-1].events_per_s:,.0f}/s, "
            f"score {scored[-1].events_per_s:,.0f}/s, ratio {_ratio(scored[-1], copied[-1]):.2f}"
        )
    ratios = [_ratio(mine, bare) for mine, bare in zip(scored, copied, strict=True)]
    figures = ScoreFigures(
        events=min(each.events for each in scored),
        rounds=rounds,
        events_per_s=median(each.events_per_s for each in scored),
        ceiling_events_per_s=median(each.events_per_s for each in copied),
        ratio=median(ratios),
        ratios=ratios,
        rss_mb=max(each.rss_mb for each in scored),
        cpu_us_per_event=median(each.cpu_us_per_event for each in scored),
        ceiling_cpu_us_per_event=median(each.cpu_us_per_event for each in copied),
        rows_per_batch=median(each.rows_per_batch for each in scored),
    )
    return figures, _stages(scored)


def _ratio(mine: Drained, bare: Drained) -> float:
    return mine.events_per_s / bare.events_per_s


def _stages(rounds: list[Drained]) -> dict[str, float]:
    stages: dict[str, float] = {}
    for stage in STAGES:
        name = _GROUPS.get(stage, stage)
        stages[name] = stages.get(name, 0.0) + median(each.stages_us[stage] for each in rounds)
    return stages
