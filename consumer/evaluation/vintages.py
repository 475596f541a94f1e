"""Default rates by week of origination, and the course of defaults over the days since."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
from scipy.stats import CensoredData, ecdf

from consumer.evaluation.calibration import ObservedExpected, observed_expected
from consumer.evaluation.rates import Rate, rates
from consumer.evaluation.sample import Floats, Mask, Sample, Times

_FIRST_MONDAY = datetime(1969, 12, 29, tzinfo=UTC)
"""of the week of 1970-01-01, a Thursday"""
_DAYS_BEFORE_EPOCH = 3


@dataclass(frozen=True)
class Vintage:
    """The approved transactions of one ISO week."""

    week: str
    """as 2026-W31"""
    approved: int
    observed: Rate
    observed_expected: dict[str, ObservedExpected]
    """of every model whose score claims to be a probability, on the observed rows it scored"""


@dataclass(frozen=True)
class FollowUp:
    """How long each row was watched: until its default, or until the watch ended.

    Plans of few instalments are fully seen long before the others, so the watch ends at different times.
    """

    days: Floats
    defaulted: Mask


@dataclass(frozen=True)
class Curve:
    """Share defaulted by each day since origination at which one defaulted."""

    days: list[float]
    share: list[float]
    interval_low: list[float | None]
    interval_high: list[float | None]


def monday(week: int) -> datetime:
    """Midnight at which a week (of `weeks_of`) begins."""
    return _FIRST_MONDAY + timedelta(weeks=week)


def iso_week(week: int) -> str:
    year, number, _ = monday(week).isocalendar()
    return f"{year}-W{number:02d}"


def weeks_of(times: Times) -> npt.NDArray[np.int64]:
    """Weeks since the one of 1970-01-01, Monday first, in UTC."""
    days = times.astype("datetime64[D]").astype(np.int64)
    return (days + _DAYS_BEFORE_EPOCH) // 7


def vintages(sample: Sample, confidence: float) -> list[Vintage]:
    """Oldest first. Weeks without an approved transaction are left out."""
    if not sample.approved.any():
        return []
    weeks = weeks_of(sample.event_time)
    first = int(weeks.min())
    weeks -= first
    count = int(weeks.max()) + 1
    approved = np.bincount(weeks[sample.approved], minlength=count)
    seen = sample.observed
    observed = rates(weeks[seen], count, sample.defaulted[seen], sample.weight[seen], confidence)
    against = {
        model: _by_week(sample, model, weeks, count, confidence)
        for model, claimed in sample.probability.items()
        if claimed
    }
    return [
        Vintage(
            iso_week(first + week),
            int(approved[week]),
            observed[week],
            {model: found[week] for model, found in against.items()},
        )
        for week in np.flatnonzero(approved).tolist()
    ]


def _by_week(
    sample: Sample, model: str, weeks: npt.NDArray[np.int64], count: int, confidence: float
) -> list[ObservedExpected]:
    rows = sample.evaluable((model,))
    expected = np.bincount(weeks[rows], sample.weight[rows] * sample.scores[model][rows], count)
    bad = rows & sample.defaulted
    week, weight = weeks[bad], sample.weight[bad]
    return [observed_expected(weight[week == each], float(expected[each]), confidence) for each in range(count)]


def cumulative_default(watched: FollowUp, confidence: float) -> Curve:
    """Kaplan & Meier's (1958) estimate, with log-log intervals."""
    ended = CensoredData(uncensored=watched.days[watched.defaulted], right=watched.days[~watched.defaulted])
    survival = ecdf(ended).sf
    interval = survival.confidence_interval(confidence, method="log-log")
    fell = np.diff(survival.probabilities, prepend=1.0) < 0
    return Curve(
        survival.quantiles[fell].tolist(),
        (1 - survival.probabilities[fell]).tolist(),
        _finite(1 - interval.high.probabilities[fell]),
        _finite(1 - interval.low.probabilities[fell]),
    )


def _finite(values: Floats) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
