"""What `bnpl-shadow top` shows: the services' own figures, lag as the broker knows it, the control topic, together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from consumer.contracts.control import Control
from consumer.watch.status import LagReport
from consumer.watch.top.service import Series, ServiceLook

Letters = tuple[str, str, str]
"""Topic, stage and reason of dead letters."""


@dataclass(frozen=True)
class Process:
    """A service, and what it did within the last seconds."""

    look: ServiceLook
    seconds: float
    """How long `lately` is; 0.0 when there was one look only."""
    lately: Series

    def rate(self, metric: str, **where: str) -> float | None:
        """A counter's increase a second; None while it is not known."""
        return self.lately.total(metric, **where) / self.seconds if self.seconds else None


@dataclass(frozen=True)
class Overview:
    """Everything, at one moment."""

    at: datetime
    processes: tuple[Process, ...]
    lag: tuple[LagReport, ...]
    read: float | None
    """Checkouts that came into the topic, a second; None while not known."""
    control: Control | None
    """The newest record; None before the first promotion."""
    control_failed: str | None
    """Why the topic could not be asked; then `control` is what was known before. Also before the first answer."""

    def rate(self, metric: str, **where: str) -> float | None:
        """A counter's increase a second over all processes; None while none of them knows."""
        rates = [rate for each in self.processes if (rate := each.rate(metric, **where)) is not None]
        return sum(rates) if rates else None

    def by(self, metric: str, *labels: str, **where: str) -> dict[tuple[str, ...], float]:
        """The sums over all processes by these labels."""
        sums: dict[tuple[str, ...], float] = defaultdict(float)
        for each in self.processes:
            for key, value in each.look.series.by(metric, *labels, **where).items():
                sums[key] += value
        return dict(sums)

    @property
    def stages(self) -> dict[str, dict[str, float]]:
        """By lane, the share of its loops' time that each stage took lately, the largest first."""
        seconds: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for each in self.processes:
            for (lane, stage), spent in each.lately.by("bnpl_stage_seconds_total", "lane", "stage").items():
                seconds[lane][stage] += spent
        return {lane: _shares(by_stage) for lane, by_stage in seconds.items() if sum(by_stage.values()) > 0}

    @property
    def revisions(self) -> dict[str, int]:
        """The control record that rules each process that decides, by its address."""
        return {
            each.look.url: int(each.look.series.total("bnpl_control_revision"))
            for each in self.processes
            if each.look.series.by("bnpl_control_info")
        }

    @property
    def champions(self) -> list[tuple[str, str]]:
        """(champion, mode) as the processes that decide have it: one, where all agree."""
        return sorted((champion, mode) for champion, mode in self.by("bnpl_control_info", "champion", "mode"))

    @property
    def letters(self) -> dict[Letters, float]:
        """Dead letters since the processes began."""
        found = self.by("bnpl_dlq_records_total", "topic", "stage", "error")
        return {(topic, stage, error): count for (topic, stage, error), count in found.items() if count}

    def drifted(self, state: int) -> list[tuple[str, str]]:
        """(kind, name) of what is in this state of drift: 1 warning, 2 alarm."""
        worst: dict[tuple[str, str], float] = {}
        for each in self.processes:
            for (kind, name), value in each.look.series.by("bnpl_drift_state", "kind", "name").items():
                worst[kind, name] = max(value, worst.get((kind, name), 0))
        return sorted(key for key, value in worst.items() if value == state)

    @property
    def drift_known(self) -> bool:
        """Whether some process has measured drift on enough rows to judge it."""
        return any(each.look.series.by("bnpl_drift_state") for each in self.processes)


def _shares(spent: Mapping[str, float]) -> dict[str, float]:
    whole = sum(spent.values())
    return {stage: seconds / whole for stage, seconds in sorted(spent.items(), key=lambda item: -item[1]) if seconds}
