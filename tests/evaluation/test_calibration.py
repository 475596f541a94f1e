"""Calibration against scikit-learn and statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from made import CONFIDENCE, outcomes, sample
from scipy.special import logit
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss
from statsmodels.stats.rates import confint_poisson

from consumer.evaluation.bands import descending
from consumer.evaluation.calibration import Calibration, calibration, observed_expected
from consumer.evaluation.outcomes import Clusters, Outcomes
from consumer.evaluation.sample import Sample


def calibrated(made: Sample) -> Calibration:
    scores = made.scores["ridge"]
    return calibration(scores, descending(scores, made.order), outcomes(made), CONFIDENCE)


@pytest.mark.parametrize("weighted", [False, True])
def test_figures_are_those_of_scikit_learn_and_statsmodels(weighted: bool) -> None:
    made = sample(5000, weighted=weighted)
    scores, weight = made.scores["ridge"], made.weight
    found = calibrated(made)
    fit = sm.GLM(
        made.defaulted.astype(float),
        sm.add_constant(logit(scores)),
        family=sm.families.Binomial(),
        freq_weights=weight,
    ).fit(tol=1e-14, maxiter=100)
    assert found.intercept == pytest.approx(fit.params[0], rel=1e-9)
    assert found.slope == pytest.approx(fit.params[1], rel=1e-9)
    assert found.brier == pytest.approx(brier_score_loss(made.defaulted, scores, sample_weight=weight), rel=1e-9)
    assert found.log_loss == pytest.approx(log_loss(made.defaulted, scores, sample_weight=weight), rel=1e-9)
    assert found.observed_expected.estimate == pytest.approx(weight[made.defaulted].sum() / (weight @ scores), rel=1e-9)


def test_bins_are_those_of_the_calibration_curve() -> None:
    made = sample(5000)
    rate, mean = calibration_curve(made.defaulted, made.scores["ridge"], n_bins=10, strategy="quantile")
    assert calibrated(made).ece == pytest.approx(np.abs(rate - mean).mean(), rel=1e-9)


@pytest.mark.parametrize("defaults", [0, 1, 7, 240])
def test_observed_over_expected_has_the_exact_poisson_interval(defaults: int) -> None:
    found = observed_expected(np.ones(defaults), 50.0, CONFIDENCE)
    low, high = confint_poisson(defaults, 50.0, method="exact-c", alpha=1 - CONFIDENCE)
    assert found.estimate == defaults / 50
    assert found.interval_low == pytest.approx(0 if defaults == 0 else low, rel=1e-9)
    assert found.interval_high == pytest.approx(high, rel=1e-9)


def test_weights_widen_the_interval_of_observed_over_expected() -> None:
    even = observed_expected(np.full(100, 2.0), 100.0, CONFIDENCE)
    uneven = observed_expected(np.repeat([1.0, 7.0], [500 // 6, 20 - 500 // 6 // 7]), 100.0, CONFIDENCE)
    assert even.estimate == 2
    assert even.interval_high == pytest.approx(2 * observed_expected(np.ones(100), 100.0, CONFIDENCE).interval_high)
    assert uneven.interval_high is not None
    assert uneven.estimate is not None
    assert uneven.interval_high / uneven.estimate > even.interval_high / even.estimate  # type: ignore[operator]
    assert observed_expected(np.ones(3), 0.0, CONFIDENCE).estimate is None


def test_spiegelhalters_z_is_normal_for_true_probabilities_and_far_off_for_others() -> None:
    random = np.random.default_rng(4)
    drawn = []
    for _ in range(60):
        p = random.beta(1, 15, 600)
        known = Outcomes(random.random(600) < p, np.ones(600), Clusters(np.arange(600)))
        positions = descending(p, np.arange(600, dtype=np.uint64))
        found = calibration(p, positions, known, CONFIDENCE)
        drawn.append(found.spiegelhalter_z)
    assert np.mean(drawn) == pytest.approx(0, abs=0.4)
    assert np.std(drawn) == pytest.approx(1, abs=0.25)
    wrong = calibration(p / 3, positions, known, CONFIDENCE)
    assert wrong.spiegelhalter_p is not None
    assert wrong.spiegelhalter_p < 1e-6


@pytest.mark.parametrize("defaulted", [False, True])
def test_one_kind_of_outcome_gives_neither_slope_nor_fault(defaulted: bool) -> None:
    p = np.array([0.0, 0.2, 1.0])
    known = Outcomes(np.full(3, defaulted), np.ones(3), Clusters(np.arange(3)))
    found = calibration(p, descending(p, np.arange(3, dtype=np.uint64)), known, CONFIDENCE)
    assert found.slope is found.intercept is None
    assert np.isfinite([found.brier, found.log_loss, found.ece]).all()
