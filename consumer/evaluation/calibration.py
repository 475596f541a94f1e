"""Whether scores that claim to be probabilities are: only such scores come here."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from scipy.special import logit, ndtr
from scipy.stats import chi2
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss

from consumer.evaluation.outcomes import Outcomes
from consumer.evaluation.sample import Floats, Positions, effective_size

BINS = 10
_EDGE = 1e-12
"""Keeps log-odds finite for scores of exactly 0 or 1."""


@dataclass(frozen=True)
class ObservedExpected:
    """Defaults over the sum of the probabilities, with an exact Poisson interval; None where none is expected."""

    observed: float
    expected: float
    estimate: float | None
    interval_low: float | None
    interval_high: float | None


@dataclass(frozen=True)
class Calibration:
    """Slope and intercept are None where only one kind of outcome was seen, or the score parts both perfectly."""

    brier: float
    log_loss: float
    slope: float | None
    """below 1: the scores lie too far apart"""
    intercept: float | None
    observed_expected: ObservedExpected
    spiegelhalter_z: float | None
    spiegelhalter_p: float | None
    ece: float
    """expected calibration error: mean distance of rate and mean probability in ten bins of equal counts"""


def calibration(scores: Floats, positions: Positions, outcomes: Outcomes, confidence: float) -> Calibration:
    """Every figure of a probability's calibration, weighted."""
    label, weight = outcomes.defaulted, outcomes.weight
    clipped = np.clip(scores, _EDGE, 1 - _EDGE)
    slope, intercept = _fit(clipped, outcomes)
    z = _spiegelhalter(scores, outcomes)
    return Calibration(
        float(brier_score_loss(label, scores, sample_weight=weight, pos_label=True)),
        float(log_loss(label, clipped, sample_weight=weight, labels=[False, True])),
        slope,
        intercept,
        observed_expected(weight[label], float(weight @ scores), confidence),
        z,
        None if z is None else float(2 * ndtr(-abs(z))),
        _expected_error(scores, positions, outcomes),
    )


def observed_expected(defaults: Floats, expected: float, confidence: float) -> ObservedExpected:
    """O/E, from the weights of the rows that defaulted and the sum of the weighted probabilities of all.

    The interval of O is exact by χ² quantiles (Garwood 1936; Ulm 1990). With weights it is that of the effective number
    of defaults (Kish), scaled to O.
    """
    observed = float(defaults.sum())
    if not expected:
        return ObservedExpected(observed, expected, None, None, None)
    size = effective_size(defaults)
    tail = (1 - confidence) / 2
    low = float(chi2.ppf(tail, 2 * size)) / 2 if size else 0.0
    high = float(chi2.ppf(1 - tail, 2 * size + 2)) / 2
    scale = (observed / size if size else 1.0) / expected
    return ObservedExpected(observed, expected, observed / expected, low * scale, high * scale)


def _fit(scores: Floats, outcomes: Outcomes) -> tuple[float | None, float | None]:
    """Unpenalised logistic regression of the outcome on the score's log-odds (Cox 1958).

    None also where it finds no end: a score that parts defaulters from others perfectly has no finite slope.
    """
    log_odds = logit(scores)
    if outcomes.defaulted.all() or not outcomes.defaulted.any() or not np.ptp(log_odds):
        return None, None
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            model.fit(log_odds[:, None], outcomes.defaulted, sample_weight=outcomes.weight)
        except ConvergenceWarning:
            return None, None
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def _spiegelhalter(scores: Floats, outcomes: Outcomes) -> float | None:
    """Z = Σ(y-p)(1-2p) / √Σ(1-2p)²p(1-p) (Spiegelhalter 1986); weights count in both sums."""
    tilt = outcomes.weight * (1 - 2 * scores)
    variance = float(np.square(tilt) @ (scores * (1 - scores)))
    return float(tilt @ (outcomes.defaulted - scores)) / math.sqrt(variance) if variance else None


def _expected_error(scores: Floats, positions: Positions, outcomes: Outcomes) -> float:
    starts = np.unique(np.arange(BINS) * len(positions) // BINS)
    gap = (outcomes.weight * (outcomes.defaulted - scores))[positions]
    return float(np.abs(np.add.reduceat(gap, starts)).sum() / outcomes.weight.sum())
