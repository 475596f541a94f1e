"""What the measures amount to: a state for each feature and score, and why there is none where there is none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from consumer.evaluation.drift.measures import (
    difference_of_shares,
    jensen_shannon,
    poisson_interval,
    scaled_wasserstein,
    stability,
)
from consumer.evaluation.drift.reference import Bins, Counts, Feature, Reference, Share
from consumer.scoring.features import CALENDAR, TIME_OF_DAY

OK, WARNING, ALARM = 0, 1, 2
State = int

ALPHA = 0.05
"""Of all features (scores, flags) together; each gets an equal part."""
FEWEST_ROWS = 1000
"""In a window with fewer nothing is judged."""
PSI_WARNING, PSI_ALARM = 0.10, 0.25
SHIFT_WARNING, SHIFT_ALARM = 0.2, 0.5
"""Of the mean, in standard deviations of training. 0.5 is where the PSI of two normal distributions is 0.25."""
VARIANCE_RATIOS = (0.8, 1.25)
FLAG_WARNING, FLAG_ALARM = 1.25, 2.0
"""How many times a share of flags must be another, either way."""

_MONTHS = "a week cannot look like the months of training"
_WEEKS = "every window has whole weeks"
_HOURS = "follows the clock (UTC), not who buys"
MUTED: Mapping[str, str] = {
    "week_of_month": _MONTHS,
    "is_weekend": _WEEKS,
    "is_month_end": _MONTHS,
    "is_holiday_season": "two months of the year have it, whatever happens",
    "is_business_hours": _HOURS,
    "is_late_night": _HOURS,
    **{f"time_of_day_{value}": _HOURS for value in TIME_OF_DAY},
}
"""Features that drift by construction, and why: measured and shown, never alarmed."""
assert set(CALENDAR) <= MUTED.keys()  # noqa: S101 a calendar feature that were not muted would alarm for ever


@dataclass(frozen=True)
class Seen:
    """One number in one window: its cells, and sums over what is neither missing nor unseen."""

    cells: Counts
    total: float = math.nan
    squares: float = math.nan

    def __add__(self, other: Seen) -> Seen:
        return Seen(self.cells + other.cells, self.total + other.total, self.squares + other.squares)

    @property
    def rows(self) -> int:
        return int(self.cells.sum())

    @property
    def mean(self) -> float:
        return float(self.total) / max(1, self._numbers)

    @property
    def variance(self) -> float:
        return max(0.0, float(self.squares) / max(1, self._numbers) - self.mean**2)

    @property
    def _numbers(self) -> int:
        return int(self.cells[:-2].sum())


@dataclass(frozen=True)
class Shift:
    """One feature or score in the window against training. None: could not be measured; `not_measured` says why."""

    kind: Literal["feature", "score"]
    name: str
    rows: int
    state: State | None = None
    """What two windows in a row agree on; None when it cannot be judged."""
    window_state: State | None = None
    """What this window alone says."""
    muted: str | None = None
    not_measured: str | None = None
    psi: float | None = None
    critical: float | None = None
    wasserstein: float | None = None
    jensen_shannon: float | None = None
    out_of_range: float | None = None
    unseen: float | None = None
    missing: float | None = None
    mean: float | None = None
    mean_in_training: float | None = None
    mean_shift: float | None = None
    variance_ratio: float | None = None
    weight: float | None = None
    """How much a standard deviation of it moves the champion's linear form."""

    @property
    def rank(self) -> tuple[float, float]:
        """What to look at first has the highest."""
        size = self.psi if self.psi is not None else (self.mean_shift or 0.0) ** 2
        weight = 1e-6 if self.weight is None else self.weight
        return float(-1 if self.window_state is None else self.window_state), size * weight


@dataclass(frozen=True)
class FlagShift:
    """The share that a model, or the rules, flag."""

    name: str
    now: Share
    base: Share | None = None
    against: str | None = None
    """What `base` is of."""
    low: float | None = None
    high: float | None = None
    """Interval of the difference of the two."""
    state: State | None = None
    window_state: State | None = None
    not_measured: str | None = None


@dataclass(frozen=True)
class Vintage:
    """Defaults of one week's transactions against the sum of one model's scores, with the exact Poisson interval."""

    week: str
    model: str
    rows: int
    observed: int
    expected: float
    ratio: float
    low: float
    high: float


def judge_features(
    reference: Reference, now: Mapping[str, Seen], before: Mapping[str, Seen], weights: Mapping[str, float]
) -> list[Shift]:
    """All features, what to look at first in front. `before` is the window of a day earlier."""
    judged = sum(feature.name not in MUTED for feature in reference.features)
    alpha = ALPHA / max(1, judged)
    shifts = []
    for feature in reference.features:
        if feature.name in now:
            shift = _feature(feature, now[feature.name], alpha)
            earlier = before.get(feature.name)
            shift = _lasting(shift, _feature(feature, earlier, alpha).window_state if earlier else None)
            shifts.append(replace(shift, weight=weights.get(feature.name)))
    shifts += [
        Shift("feature", name, 0, not_measured="the export says nothing of it, so it cannot be measured")
        for name in reference.untold
    ]
    return sorted(shifts, key=lambda shift: shift.rank, reverse=True)


def judge_scores(
    reference: Reference, models: Sequence[str], now: Mapping[str, Counts], before: Mapping[str, Counts]
) -> list[Shift]:
    """The scores of each model against its deciles in training."""
    alpha = ALPHA / max(1, len(models))
    shifts = []
    for model in models:
        bins = reference.scores.get(model)
        if bins is None:
            why = "the export has no score bins of it; adopting it with --sample makes them"
            shifts.append(Shift("score", model, 0, not_measured=why))
        elif model not in now:
            shifts.append(Shift("score", model, 0, not_measured="no score of it is stored in the window"))
        else:
            shift = _binned(Shift("score", model, int(now[model].sum())), bins, now[model], alpha)
            earlier = before.get(model)
            then = None if earlier is None else _binned(shift, bins, earlier, alpha).window_state
            shifts.append(_lasting(shift, then))
    return shifts


def judge_flags(
    now: Mapping[str, Share], before: Mapping[str, Share], bases: Mapping[str, tuple[Share, str]]
) -> list[FlagShift]:
    """Each share of flags against its base, of which the text says what it is. `before` is the window of a day
    earlier.
    """
    alpha = ALPHA / max(1, len(now))
    shifts = []
    for name, share in sorted(now.items()):
        if name not in bases:
            why = "its share in training is not known, and there are no earlier rows to compare with"
            shifts.append(FlagShift(name, share, not_measured=why))
            continue
        base, against = bases[name]
        low, high = difference_of_shares(share, base, alpha)
        seen = _flag_state(share, base, alpha)
        earlier = before.get(name)
        state = _both(seen, _flag_state(earlier, base, alpha) if earlier else None)
        why_not = _too_few(share.rows) if seen is None else None
        shifts.append(FlagShift(name, share, base, against, low, high, state, seen, why_not))
    return shifts


def vintage(week: str, model: str, rows: int, observed: int, expected: float) -> Vintage:
    """One week of one model; `expected` is the sum of its scores over the same rows, above 0."""
    low, high = poisson_interval(observed, ALPHA)
    return Vintage(week, model, rows, observed, expected, observed / expected, low / expected, high / expected)


def _feature(feature: Feature, seen: Seen, alpha: float) -> Shift:
    rows, cells = seen.rows, seen.cells
    shift = Shift(
        "feature",
        feature.name,
        rows,
        muted=MUTED.get(feature.name),
        out_of_range=_share(cells[0] + cells[-3], rows),
        missing=_share(cells[-2], rows),
        unseen=_share(cells[-1], rows) if feature.column else None,
        mean=seen.mean,
        mean_in_training=feature.mean,
    )
    if feature.mean is not None and feature.std:
        shift = replace(
            shift,
            mean_shift=(seen.mean - feature.mean) / feature.std,
            variance_ratio=seen.variance / feature.std**2,
        )
    if feature.bins.counts is None:
        shift = _by_moments(shift)
    else:
        shift = _binned(shift, feature.bins, cells, alpha, feature.std)
    return replace(shift, window_state=OK) if shift.muted and shift.window_state else shift


def _binned(shift: Shift, bins: Bins, cells: Counts, alpha: float, sigma: float | None = None) -> Shift:
    """Measured bin by bin, against what training had in them."""
    rows = int(cells.sum())
    if not rows or bins.counts is None:
        return replace(shift, not_measured=_too_few(rows))
    found = stability(bins.counts, cells, alpha)
    shift = replace(
        shift,
        psi=found.psi,
        critical=found.critical,
        jensen_shannon=jensen_shannon(bins.counts, cells),
        wasserstein=scaled_wasserstein(bins, bins.counts, cells, sigma or _sigma(bins)),
        out_of_range=_share(cells[0] + cells[-3], rows),
        missing=_share(cells[-2], rows),
    )
    if rows < FEWEST_ROWS:
        return replace(shift, not_measured=_too_few(rows))
    return replace(shift, window_state=_level(found.psi if found.psi > found.critical else 0.0, PSI_WARNING, PSI_ALARM))


def _by_moments(shift: Shift) -> Shift:
    """Measured by mean and spread, for an export without bins."""
    why = "no bins in the export: no PSI, Wasserstein or Jensen-Shannon, but mean, spread and range"
    if shift.mean_shift is None or shift.variance_ratio is None:
        return replace(shift, not_measured=f"{why}; and it does not spread in training, or the export does not say")
    if shift.rows < FEWEST_ROWS:
        return replace(shift, not_measured=f"{_too_few(shift.rows)}; {why}")
    low, high = VARIANCE_RATIOS
    by_spread = WARNING if not low <= shift.variance_ratio <= high else OK
    by_mean = _level(abs(shift.mean_shift), SHIFT_WARNING, SHIFT_ALARM)
    return replace(shift, window_state=max(by_spread, by_mean), not_measured=why)


def _flag_state(now: Share, base: Share, alpha: float) -> State | None:
    if now.rows < FEWEST_ROWS:
        return None
    low, high = difference_of_shares(now, base, alpha)
    if low <= 0 <= high:
        return OK
    times = now.value / base.value if base.count else math.inf
    return _level(max(times, 1 / times) if times else math.inf, FLAG_WARNING, FLAG_ALARM)


def _lasting(shift: Shift, before: State | None) -> Shift:
    return replace(shift, state=_both(shift.window_state, before))


def _both(now: State | None, before: State | None) -> State | None:
    """The lower of two windows: one alone alarms nobody."""
    return None if now is None else min(now, before or OK)


def _level(value: float, warning: float, alarm: float) -> State:
    return ALARM if value >= alarm else WARNING if value >= warning else OK


def _sigma(bins: Bins) -> float:
    """The standard deviation of training's bin middles."""
    if bins.counts is None:
        return 0.0
    held = bins.counts[: len(bins.middles)]
    mean = np.average(bins.middles, weights=held)
    return float(np.sqrt(np.average((bins.middles - mean) ** 2, weights=held)))


def _share(count: int, rows: int) -> float | None:
    return float(count) / rows if rows else None


def _too_few(rows: int) -> str:
    return f"too few: {rows:,} rows in the window, {FEWEST_ROWS:,} are needed"
