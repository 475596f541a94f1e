"""Drift as of a day: the last full days of counts, scores and flags against training, and scores against outcomes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Any, TypeVar

from clickhouse_connect.driver.client import Client

from consumer.clock import utc_now
from consumer.evaluation.drift.judge import (
    FlagShift,
    Shift,
    Vintage,
    judge_features,
    judge_flags,
    judge_scores,
)
from consumer.evaluation.drift.reference import RULES
from consumer.services.drift.export import Export
from consumer.services.drift.scores import ScoredDay, scored_by_day, vintages
from consumer.services.drift.store import DriftStore, UnseenValue

WINDOW_DAYS = 7
"""Full weeks, so that no weekday counts more than another."""
REFERENCE_DAYS = 28
"""Before the window: what a share of flags is compared with where its share in training is not known."""
UNSEEN_SHOWN = 50

_MEASURES = (
    "rows",
    "state",
    "window_state",
    "psi",
    "critical",
    "wasserstein",
    "jensen_shannon",
    "out_of_range",
    "unseen",
    "missing",
    "mean_shift",
)
"""Of a feature or score, under the same names in drift_results."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class Drift:
    """What was found in the days [first_day, as_of)."""

    version: str
    digest: str
    source: str
    """What the export says its statistics are of."""
    as_of: date
    first_day: date
    rows: int
    """Transactions that were counted in them."""
    features: list[Shift]
    scores: list[Shift]
    flags: list[FlagShift]
    vintages: list[Vintage]
    unseen: list[UnseenValue]
    notes: list[str]

    @property
    def judged(self) -> bool:
        """Whether anything could be judged."""
        return any(state is not None for state in self.states.values())

    @property
    def worst(self) -> int:
        """The highest state of all; 0 where nothing could be judged."""
        return max((state or 0 for state in self.states.values()), default=0)

    @property
    def states(self) -> dict[tuple[str, str], int | None]:
        """State by kind and name."""
        shifts = {(str(each.kind), each.name): each.state for each in (*self.features, *self.scores)}
        return shifts | {("flag", each.name): each.state for each in self.flags}


def look(client: Client, export: Export, as_of: date, days: int = WINDOW_DAYS) -> Drift:
    """Measure the `days` full days before `as_of`. Raises ClickHouseUnavailable or Fatal."""
    reference, version = export.reference, export.reference.version
    store = DriftStore(client, reference.digest, export.counter)
    first = as_of - timedelta(days=days)
    earlier = first - timedelta(days=1)
    names = [entry.name for entry in export.model_set.models]
    counted = store.by_day(earlier, as_of)
    based = reference.flagged.keys() >= {RULES, *names}
    scored_from = earlier if based else first - timedelta(days=REFERENCE_DAYS)
    scored = scored_by_day(client, version, reference.scores, scored_from, as_of)
    now, before = (_window(counted, start, days) for start in (first, earlier))
    scored_now, scored_before = (_window(scored, start, days) for start in (first, earlier))
    seen = _sum(now)
    rows = max((each.rows for each in seen.values()), default=0)
    return Drift(
        version=version,
        digest=reference.digest,
        source=reference.source,
        as_of=as_of,
        first_day=first,
        rows=rows,
        features=judge_features(reference, seen, _sum(before), export.weights),
        scores=judge_scores(
            reference, names, _sum(day.cells for day in scored_now), _sum(day.cells for day in scored_before)
        ),
        flags=_flags(export, scored, scored_now, scored_before, first),
        vintages=vintages(client, version, as_of, export.term),
        unseen=store.unseen(as_of, UNSEEN_SHOWN),
        notes=_notes(store, as_of, days, len(now), rows),
    )


def document(found: Drift) -> dict[str, Any]:
    """What `bnpl-shadow drift --json` prints; days are dates."""
    return {"judged": found.judged, "worst": found.worst, **asdict(found)}


def results(drift: Drift) -> list[dict[str, Any]]:
    """Rows of table drift_results."""
    of_all = {
        "artifact_version": drift.version,
        "artifact_sha256": drift.digest,
        "as_of": drift.as_of,
        "measured_at": utc_now(),
    }
    empty = dict.fromkeys((*_MEASURES, "flagged_share", "flagged_before"))
    shifts = [
        {
            **of_all,
            "kind": each.kind,
            "name": each.name,
            **empty,
            **{name: getattr(each, name) for name in _MEASURES},
            "muted": each.muted or "",
            "not_measured": each.not_measured or "",
        }
        for each in (*drift.features, *drift.scores)
    ]
    flags = [
        {
            **of_all,
            "kind": "flag",
            "name": each.name,
            **empty,
            "rows": each.now.rows,
            "state": each.state,
            "window_state": each.window_state,
            "flagged_share": each.now.value,
            "flagged_before": each.base.value if each.base else None,
            "muted": "",
            "not_measured": each.not_measured or "",
        }
        for each in drift.flags
    ]
    return shifts + flags


def _window(by_day: Mapping[date, _T], first: date, days: int) -> list[_T]:
    return [by_day[day] for day in (first + timedelta(days=at) for at in range(days)) if day in by_day]


def _sum(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The parts added up by name."""
    total: dict[str, Any] = {}
    for part in parts:
        for name, count in part.items():
            total[name] = total[name] + count if name in total else count
    return total


def _flags(
    export: Export, scored: Mapping[date, ScoredDay], now: Iterable[ScoredDay], before: Iterable[ScoredDay], first: date
) -> list[FlagShift]:
    """Against the share in training; where that is not known, against the days before the window."""
    recent = _sum(day.flags for when, day in scored.items() if when < first)
    bases = {name: (share, f"the {REFERENCE_DAYS} days before") for name, share in recent.items()}
    bases |= {name: (share, "training") for name, share in export.reference.flagged.items()}
    return judge_flags(_sum(day.flags for day in now), _sum(day.flags for day in before), bases)


def _notes(store: DriftStore, as_of: date, days: int, days_counted: int, rows: int) -> list[str]:
    """What whoever reads the result must know of it."""
    if not rows:
        newest = store.newest_day()
        if newest is None:
            return ["nothing was counted by the bins of this export yet: `bnpl-shadow drift --every 60` counts"]
        return [
            f"nothing was counted in these days; the last counted day is {newest}: --as-of {newest + timedelta(days=1)}"
        ]
    if days_counted < days:
        return [f"only {days_counted} of {days} days have any transactions, so weekdays count unequally"]
    return []
