"""The discrimination ratio and its differences, against scipy, statsmodels and a bootstrap over customers."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from made import CONFIDENCE, outcomes, sample
from scipy.stats import fisher_exact
from scipy.stats.contingency import relative_risk

from consumer.evaluation.bands import HIGH, LOW, MEDIUM, Bands, descending, match
from consumer.evaluation.outcomes import Clusters, Outcomes
from consumer.evaluation.ratio import Linearised, difference, discordant, ends, equivalence, ratio
from consumer.evaluation.sample import Floats, Sample


def of_counts(d1: int, n1: int, d0: int, n0: int, medium: int = 0) -> tuple[Bands, Outcomes]:
    bands = np.repeat([HIGH, LOW, MEDIUM], [n1, n0, medium]).astype(np.int8)
    defaulted = np.concatenate([np.arange(n1) < d1, np.arange(n0) < d0, np.zeros(medium, np.bool_)])
    n = len(bands)
    return bands, Outcomes(defaulted, np.ones(n), Clusters(np.arange(n)))


def model_bands(made: Sample, model: str) -> Bands:
    scores = made.scores[model]
    return match(descending(scores, made.order), scores, made.order, made.weight, made.rules_flag).bands


def linearised(bands: Bands, given_outcomes: Outcomes) -> Linearised:
    found = ratio(bands, given_outcomes, 1, CONFIDENCE)[1]
    assert found is not None
    return found


@given(st.integers(1, 60), st.integers(0, 400), st.integers(1, 60), st.integers(0, 400), st.integers(0, 50))
def test_without_weights_and_clusters_it_is_katz(d1: int, more1: int, d0: int, more0: int, medium: int) -> None:
    n1, n0 = d1 + more1, d0 + more0
    bands, known = of_counts(d1, n1, d0, n0, medium)
    found = ratio(bands, known, 1, CONFIDENCE)[0]
    oracle = relative_risk(d1, n1, d0, n0)
    interval = oracle.confidence_interval(CONFIDENCE)
    assert found.estimate == pytest.approx(oracle.relative_risk, rel=1e-9)
    assert found.interval_low == pytest.approx(interval.low, rel=1e-9)
    assert found.interval_high == pytest.approx(interval.high, rel=1e-9)
    assert (found.high.rows, found.high.defaults, found.low.rows, found.low.defaults) == (n1, d1, n0, d0)


def test_the_published_example() -> None:
    bands, known = of_counts(90, 1000, 32, 1000)
    found = ratio(bands, known, 32, CONFIDENCE)[0]
    assert [found.estimate, found.interval_low, found.interval_high] == pytest.approx([2.81, 1.90, 4.17], abs=0.005)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rows_a_customer", [1.0, 2.5])
def test_with_weights_and_customers_it_is_the_sandwich_of_a_poisson_regression(
    weighted: bool, rows_a_customer: float
) -> None:
    """Zou's (2004) modified Poisson regression on the two bands has the same ratio and the same variance."""
    made = sample(4000, rows_a_customer=rows_a_customer, weighted=weighted)
    bands = model_bands(made, "ridge")
    known = outcomes(made)
    found, _ = ratio(bands, known, 1, CONFIDENCE)
    ends = bands != MEDIUM
    fit = sm.GEE(
        made.defaulted[ends].astype(float),
        sm.add_constant((bands[ends] == HIGH).astype(float)),
        groups=made.customer[ends],
        family=sm.families.Poisson(),
        cov_struct=sm.cov_struct.Independence(),
        weights=made.weight[ends],
    ).fit(ctol=1e-13, maxiter=200, first_dep_update=0)
    factor = known.clusters.count / (known.clusters.count - 1) * (len(made) - 1) / len(made)
    assert found.estimate is not None
    assert math.log(found.estimate) == pytest.approx(fit.params[1], rel=1e-9)
    assert found.standard_error == pytest.approx(fit.bse[1] * math.sqrt(factor), rel=1e-9)


def test_the_interval_of_ratios_and_their_difference_is_that_of_a_bootstrap_over_customers() -> None:
    """The customers are many and alike within, so that independence would understate both errors."""
    made = sample(6000, rows_a_customer=3.0, seed=5)
    codes = np.unique(made.customer, return_inverse=True)[1]
    first = np.unique(codes, return_index=True)[1][codes]
    made = replace(
        made,
        defaulted=made.defaulted[first],
        rules_flag=made.rules_flag[first],
        scores={name: values[first] for name, values in made.scores.items()},
    )
    random = np.random.default_rng(1)
    rules, model = made.rules_flag, model_bands(made, "ridge")
    known = outcomes(made)
    a, b = linearised(model, known), linearised(rules, known)
    found = difference(a, b, known, CONFIDENCE)
    draws = np.empty((2000, 2))
    for at in range(len(draws)):
        times = random.multinomial(codes.max() + 1, np.full(codes.max() + 1, 1 / (codes.max() + 1)))[codes]
        for which, bands in enumerate((model, rules)):
            rate = [times[(bands == band) & made.defaulted].sum() / times[bands == band].sum() for band in (HIGH, LOW)]
            draws[at, which] = math.log(rate[0] / rate[1])
    assert math.sqrt(known.clusters.variance(a.influence)) == pytest.approx(draws[:, 0].std(), rel=0.06)
    assert found.standard_error == pytest.approx((draws[:, 0] - draws[:, 1]).std(), rel=0.06)
    assert found.probability_greater == pytest.approx((draws[:, 0] > draws[:, 1]).mean(), abs=0.03)
    independent = Outcomes(made.defaulted, made.weight, Clusters(np.arange(len(made))))
    assert math.sqrt(independent.clusters.variance(a.influence)) < 0.9 * draws[:, 0].std()


@pytest.mark.parametrize(("d1", "d0", "told"), [(49, 200, "49 defaults in the high band, 50 are wanted"),
                                                (80, 0, "0 defaults in the low band")])  # fmt: skip
def test_too_few_defaults_give_no_number(d1: int, d0: int, told: str) -> None:
    bands, known = of_counts(d1, 300, d0, 2000)
    found, moves = ratio(bands, known, 50, CONFIDENCE)
    assert moves is None
    assert found.estimate is found.interval_low is found.interval_high is found.standard_error is None
    assert found.why is not None
    assert found.why.startswith("insufficient")
    assert told in found.why
    assert found.high.defaults == d1


def test_an_empty_band_gives_no_number_either() -> None:
    bands, known = of_counts(0, 0, 5, 100)
    found, _ = ratio(bands, known, 1, CONFIDENCE)
    assert found.estimate is None
    assert found.high.rate is None


def test_two_bandings_that_are_one_do_not_differ_and_know_it() -> None:
    made = sample(2000, rows_a_customer=2.0)
    known = outcomes(made)
    a = linearised(made.rules_flag, known)
    found = difference(a, a, known, CONFIDENCE)
    assert (found.estimate, found.interval_low, found.interval_high, found.p) == (1, 1, 1, 1)
    assert found.probability_greater == 0.5
    assert equivalence(found.logarithm, found.standard_error, 1.1) == 0


def test_a_difference_is_the_mirror_of_the_other_way_round() -> None:
    made = sample(3000, rows_a_customer=1.5, weighted=True)
    known = outcomes(made)
    a, b = (linearised(bands, known) for bands in (model_bands(made, "ridge"), made.rules_flag))
    there, back = difference(a, b, known, CONFIDENCE), difference(b, a, known, CONFIDENCE)
    assert there.estimate == pytest.approx(1 / back.estimate, rel=1e-12)
    assert there.interval_low == pytest.approx(1 / back.interval_high, rel=1e-12)
    assert there.p == pytest.approx(back.p, rel=1e-12)
    assert there.probability_greater == pytest.approx(1 - back.probability_greater, rel=1e-12)


@given(st.floats(-0.2, 0.2), st.floats(0.001, 0.2), st.sampled_from([0.05, 0.01]))
def test_equivalence_is_the_narrow_interval_within_the_margin(logarithm: float, error: float, alpha: float) -> None:
    low, high = ends(logarithm, error, 1 - 2 * alpha)
    assert (low > 1 / 1.1 and high < 1.1) == (equivalence(logarithm, error, 1.1) < alpha)


def test_the_rows_that_one_of_two_flags_are_tested_exactly() -> None:
    made = sample(3000)
    a, b = model_bands(made, "ridge"), made.rules_flag
    found = discordant(a, b, made.defaulted)
    table = [
        [
            int((made.defaulted & (mine == HIGH) & (other != HIGH)).sum()),
            int((~made.defaulted & (mine == HIGH) & (other != HIGH)).sum()),
        ]
        for mine, other in ((a, b), (b, a))
    ]
    assert found.rows_a == sum(table[0]) == found.rows_b
    assert [found.defaults_a, found.defaults_b] == [table[0][0], table[1][0]]
    assert found.defaults == table[0][0] + table[1][0]
    assert found.p == pytest.approx(fisher_exact(table).pvalue, rel=1e-9)


def test_at_one_share_the_greater_ratio_is_that_with_more_defaults_of_its_own() -> None:
    """When the low band is all the rest, as the docstring says."""
    made = sample(2000, rules_flag=np.where(np.arange(2000) % 10 == 0, HIGH, LOW).astype(np.int8))
    known = outcomes(made)
    bandings = [model_bands(made, model) for model in made.models]
    for a, b in pairwise(bandings):
        alone = discordant(a, b, made.defaulted)
        gain = linearised(a, known).logarithm - linearised(b, known).logarithm
        assert np.sign(round(gain, 12)) == np.sign(alone.defaults_a - alone.defaults_b)


def test_bandings_without_a_difference_have_nothing_to_test() -> None:
    bands, known = of_counts(10, 100, 10, 100)
    assert discordant(bands, bands, known.defaulted).p == 1


def test_of_a_single_customer_nothing_is_inferred() -> None:
    bands, known = of_counts(20, 100, 10, 100)
    one = Outcomes(known.defaulted, known.weight, Clusters(np.zeros(200, np.int64)))
    found, moves = ratio(bands, one, 1, CONFIDENCE)
    assert found.estimate == pytest.approx(2)
    assert (found.interval_low, found.interval_high) == (0, math.inf)
    assert moves is not None
    other: Floats = moves.influence * 0
    assert difference(moves, Linearised(0.0, other), one, CONFIDENCE).p == pytest.approx(1)
