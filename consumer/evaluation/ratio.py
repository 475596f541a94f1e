"""The discrimination ratio: default rate of the high band over that of the low band, and differences of two."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr
from scipy.stats import fisher_exact

from consumer.evaluation.bands import HIGH, LOW, Bands
from consumer.evaluation.outcomes import Outcomes, quantile
from consumer.evaluation.rates import Rate, rates
from consumer.evaluation.sample import Floats, Mask
from consumer.scoring.rules import RISK_FLAGS


@dataclass(frozen=True)
class Ratio:
    """`estimate` and its interval are None where the high or the low band has too few defaults (`why`)."""

    high: Rate
    medium: Rate
    low: Rate
    estimate: float | None
    interval_low: float | None
    interval_high: float | None
    standard_error: float | None
    """of ln(estimate)"""
    why: str | None


@dataclass(frozen=True)
class Linearised:
    """A ratio's logarithm, and what each row adds to its error: what two ratios of the same rows are compared by."""

    logarithm: float
    influence: Floats


@dataclass(frozen=True)
class Difference:
    """ln ratio of A - ln ratio of B on the same rows, as the ratio of the two ratios."""

    estimate: float
    """ratio of A / ratio of B"""
    interval_low: float
    interval_high: float
    logarithm: float
    standard_error: float
    probability_greater: float
    """that A's ratio is the greater one: Φ(ln difference / standard error)"""
    p: float
    """two-sided, of no difference"""


@dataclass(frozen=True)
class Discordant:
    """Rows that exactly one of A and B flags (high band), and Fisher's exact test of their default rates."""

    rows_a: int
    rows_b: int
    defaults_a: int
    defaults_b: int
    p: float

    @property
    def defaults(self) -> int:
        return self.defaults_a + self.defaults_b


def ratio(
    bands: Bands, outcomes: Outcomes, minimum_defaults: int, confidence: float
) -> tuple[Ratio, Linearised | None]:
    """A banding's ratio. Without weights and clusters the interval is Katz' (1978), ln DR ± z √(1/d1-1/n1+1/d0-1/n0).

    A row's influence on ln DR is w (y/d1 - 1/n1) in the high band and -w (y/d0 - 1/n0) in the low one.
    """
    low, medium, high = rates(bands, len(RISK_FLAGS), outcomes.defaulted, outcomes.weight, confidence)
    lacking = [
        f"{band.defaults} defaults in the {name} band, {minimum_defaults} are wanted"
        for name, band in (("high", high), ("low", low))
        if band.defaults < max(minimum_defaults, 1)
    ]
    if lacking:
        return Ratio(high, medium, low, None, None, None, None, "insufficient: " + "; ".join(lacking)), None
    (log_high, moves_high), (log_low, moves_low) = (_log_rate(bands == band, outcomes) for band in (HIGH, LOW))
    found = Linearised(log_high - log_low, moves_high - moves_low)
    error = math.sqrt(outcomes.clusters.variance(found.influence))
    interval = ends(found.logarithm, error, confidence)
    return Ratio(high, medium, low, math.exp(found.logarithm), *interval, error, None), found


def difference(a: Linearised, b: Linearised, outcomes: Outcomes, confidence: float) -> Difference:
    """Paired: rows that both band alike cancel, so that near clones differ by little and know it."""
    logarithm = a.logarithm - b.logarithm
    error = math.sqrt(outcomes.clusters.variance(a.influence - b.influence))
    z = _standardised(logarithm, error)
    interval = ends(logarithm, error, confidence)
    return Difference(math.exp(logarithm), *interval, logarithm, error, float(ndtr(z)), float(2 * ndtr(-abs(z))))


def equivalence(logarithm: float, error: float, margin: float) -> float:
    """The p of two one-sided tests (Schuirmann 1987) that two ratios differ by a factor of `margin` or more.

    Below α when the 1-2α interval of the factor lies within 1/margin … margin.
    """
    return float(ndtr(-_standardised(math.log(margin) - abs(logarithm), error)))


def discordant(a: Bands, b: Bands, defaulted: Mask) -> Discordant:
    """Of A and B at the same share: when their low bands are all other rows, A's ratio is the greater one exactly when
    `defaults_a` > `defaults_b`. The test keeps its level however few there are, but knows no weights and no customers.
    """
    only_a, only_b = (a == HIGH) & (b != HIGH), (b == HIGH) & (a != HIGH)
    rows = [int(np.count_nonzero(only)) for only in (only_a, only_b)]
    defaults = [int(np.count_nonzero(only & defaulted)) for only in (only_a, only_b)]
    table = [[d, n - d] for d, n in zip(defaults, rows, strict=True)]
    p = float(fisher_exact(table).pvalue) if min(rows) else 1.0
    return Discordant(rows[0], rows[1], defaults[0], defaults[1], p)


def _log_rate(side: Mask, outcomes: Outcomes) -> tuple[float, Floats]:
    """ln(default rate) of one side, and every row's influence on it."""
    weight = np.where(side, outcomes.weight, 0.0)
    bad = np.where(outcomes.defaulted, weight, 0.0)
    all_of_it, bad_of_it = float(weight.sum()), float(bad.sum())
    bad /= bad_of_it
    weight /= all_of_it
    return math.log(bad_of_it / all_of_it), bad - weight


def ends(logarithm: float, error: float, confidence: float) -> tuple[float, float]:
    """Interval of a factor whose logarithm has this error."""
    half = quantile(confidence) * error
    return math.exp(logarithm - half), (math.exp(logarithm + half) if half < 700 else math.inf)


def _standardised(value: float, error: float) -> float:
    """In units of the error; two bandings that are one differ by nothing, with no error."""
    if error > 0:
        return value / error
    return math.copysign(math.inf, value) if value else 0.0
