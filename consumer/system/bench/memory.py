"""Memory: the score process while it empties a long backlog; it must not grow with it."""

from __future__ import annotations

from dataclasses import dataclass

from consumer.settings import Settings
from consumer.system.bench.drain import drain
from consumer.system.bench.load import Load, Say


@dataclass(frozen=True)
class MemoryFigures:
    backlog: int
    rss_mb: float
    """The most it had."""
    growth_mb: float
    """From the middle of the backlog to its end."""


def bench_memory(settings: Settings, load: Load, backlog: int, say: Say) -> MemoryFigures:
    """One score process, from the first record of the backlog to the last."""
    load.fill(backlog)
    drained = drain("score", settings, backlog, "bench-memory")
    say(f"memory: {drained.rss_mb:.0f} MB at the most, {drained.rss_growth_mb:+.1f} MB in the second half")
    return MemoryFigures(backlog, drained.rss_mb, drained.rss_growth_mb)
