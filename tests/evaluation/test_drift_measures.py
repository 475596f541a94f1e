"""The formulas of drift against scipy, statsmodels, second formulas and numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import examples
from scipy.stats import entropy, poisson, wasserstein_distance
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from consumer.evaluation.drift.measures import (
    difference_of_shares,
    jensen_shannon,
    poisson_interval,
    scaled_wasserstein,
    smoothed,
    stability,
    wilson,
)
from consumer.evaluation.drift.reference import Bins, Share

ALPHA = 0.05
counts = st.lists(st.integers(0, 10_000), min_size=2, max_size=14).map(np.array).filter(lambda held: held.sum() > 0)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    one = draw(counts)
    other = st.lists(st.integers(0, 10_000), min_size=len(one), max_size=len(one)).map(np.array)
    return one, draw(other.filter(lambda held: held.sum() > 0))


def test_psi_by_hand() -> None:
    found = stability(np.array([10, 20, 30]), np.array([30, 20, 10]), ALPHA)
    # shares 10.5/61.5, 20.5/61.5, 30.5/61.5 and the same the other way round
    assert found.psi == pytest.approx(2 * (20 / 61.5) * math.log(30.5 / 10.5), rel=1e-12)
    # χ²(2 degrees, 0.95) is −2·ln 0.05
    assert found.critical == pytest.approx(-2 * math.log(0.05) * (1 / 60 + 1 / 60), rel=1e-9)


@pytest.mark.parametrize(("rows", "critical"), [(500, 0.034), (5_000, 0.0037), (100_000, 0.0005)])
def test_the_critical_value_for_ten_bins_is_the_published_one(rows: int, critical: float) -> None:
    found = stability(np.full(10, 5_000), np.full(10, rows // 10), ALPHA)
    assert found.critical == pytest.approx(critical, rel=0.05)


@examples(200)
@given(pairs())
def test_psi_is_the_sum_of_both_relative_entropies(pair: tuple[np.ndarray, np.ndarray]) -> None:
    one, other = pair
    used = (one > 0) | (other > 0)
    p, q = smoothed(one[used]), smoothed(other[used])
    assert p.sum() == pytest.approx(1)
    assert stability(one, other, ALPHA).psi == pytest.approx(entropy(p, q) + entropy(q, p), rel=1e-9, abs=1e-12)


@examples(200)
@given(pairs())
def test_distances_are_symmetric_and_never_negative(pair: tuple[np.ndarray, np.ndarray]) -> None:
    one, other = pair
    assert stability(one, other, ALPHA).psi == pytest.approx(stability(other, one, ALPHA).psi, abs=1e-12)
    assert stability(one, other, ALPHA).psi >= 0
    assert jensen_shannon(one, other) == pytest.approx(jensen_shannon(other, one), abs=1e-9)


@examples(100)
@given(counts)
def test_equal_counts_are_no_drift_and_empty_cells_say_nothing(held: np.ndarray) -> None:
    assert stability(held, held, ALPHA).psi == 0
    assert jensen_shannon(held, held) == pytest.approx(0, abs=1e-7)
    shifted = held[::-1]
    padded = [np.append(each, [0, 0, 0]) for each in (held, shifted)]
    assert stability(*padded, ALPHA) == stability(held, shifted, ALPHA)


def test_by_chance_psi_exceeds_its_critical_value_as_often_as_alpha_says() -> None:
    rng = np.random.default_rng(7)
    shares = np.array([0.3, 0.25, 0.2, 0.15, 0.1])
    pairs = zip(rng.multinomial(50_000, shares, 2_000), rng.multinomial(5_000, shares, 2_000), strict=True)
    found = [stability(one, other, ALPHA) for one, other in pairs]
    exceeded = float(np.mean([each.psi > each.critical for each in found]))
    assert 0.035 < exceeded < 0.065


@examples(100)
@given(pairs())
def test_jensen_shannon_is_its_definition(pair: tuple[np.ndarray, np.ndarray]) -> None:
    p, q = (each / each.sum() for each in pair)
    middle = (p + q) / 2
    expected = math.sqrt(max(0.0, (entropy(p, middle, base=2) + entropy(q, middle, base=2)) / 2))
    assert jensen_shannon(*pair) == pytest.approx(expected, abs=1e-7)
    assert jensen_shannon(np.array([5, 0]), np.array([0, 9])) == pytest.approx(1)


def test_wasserstein_is_the_distance_the_middles_moved_in_standard_deviations() -> None:
    bins = Bins(np.array([0.0, 10.0, 20.0, 30.0]), None)
    lower, upper = np.array([0, 7, 3, 0, 0, 0, 0]), np.array([0, 0, 7, 3, 0, 0, 0])
    assert scaled_wasserstein(bins, lower, upper, 5.0) == pytest.approx(10 / 5)
    outside = np.array([0, 0, 0, 0, 10, 0, 0])
    assert scaled_wasserstein(bins, lower, outside, 1.0) == pytest.approx(0.7 * 25 + 0.3 * 15)
    assert scaled_wasserstein(bins, lower, np.array([0, 0, 0, 0, 0, 4, 4]), 1.0) is None, "nothing has a place"


@examples(60)
@given(pairs())
def test_wasserstein_of_counts_is_that_of_the_rows_they_count(pair: tuple[np.ndarray, np.ndarray]) -> None:
    one, other = (np.minimum(each, 40) for each in pair)
    bins = Bins(np.cumsum(np.arange(1.0, len(one))), None)
    cells = bins.middles
    padded = [np.append(each, [0] * (len(cells) + 2 - len(each))) for each in (one, other)]
    rows = [np.repeat(cells, each[: len(cells)]) for each in padded]
    if len(rows[0]) and len(rows[1]):
        expected = wasserstein_distance(*rows) / 2.0
        assert scaled_wasserstein(bins, *padded, 2.0) == pytest.approx(expected, abs=1e-9)


@examples(100)
@given(st.integers(1, 5_000), st.integers(1, 5_000), st.data())
def test_intervals_of_shares_are_those_of_statsmodels(n: int, m: int, data: st.DataObject) -> None:
    now = Share(data.draw(st.integers(0, n)), n)
    before = Share(data.draw(st.integers(0, m)), m)
    z = 1.959963984540054
    assert wilson(now, z) == pytest.approx(proportion_confint(now.count, n, 0.05, "wilson"), abs=1e-9)
    expected = confint_proportions_2indep(now.count, n, before.count, m, method="newcomb", compare="diff", alpha=0.05)
    assert difference_of_shares(now, before, 0.05) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("observed", [0, 1, 7, 250])
def test_the_poisson_interval_leaves_half_of_alpha_on_either_side(observed: int) -> None:
    low, high = poisson_interval(observed, ALPHA)
    assert poisson.cdf(observed, high) == pytest.approx(ALPHA / 2, rel=1e-6)
    assert low == 0 if observed == 0 else poisson.sf(observed - 1, low) == pytest.approx(ALPHA / 2, rel=1e-6)
