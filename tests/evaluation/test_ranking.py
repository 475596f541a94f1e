"""AUC, Gini and KS against scikit-learn and scipy; their intervals against DeLong's formula and a bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import CONFIDENCE, outcomes, sample
from scipy.stats import ks_2samp, norm, rankdata
from sklearn.metrics import roc_auc_score, roc_curve

from consumer.evaluation.bands import descending
from consumer.evaluation.outcomes import Clusters, Outcomes
from consumer.evaluation.ranking import Ranking, auc_difference, mid_ranks, ranking
from consumer.evaluation.sample import Floats, Mask, Sample


def ranked(made: Sample, model: str) -> tuple[Ranking, Floats]:
    scores = made.scores[model]
    found, influence = ranking(scores, descending(scores, made.order), outcomes(made), CONFIDENCE)
    assert influence is not None
    return found, influence


def placements(defaulted: Mask, scores: Floats) -> tuple[Floats, Floats]:
    """Of every defaulter among the others and the other way round, pair by pair, as DeLong wrote them."""
    pairs = np.heaviside(scores[defaulted][:, None] - scores[~defaulted][None, :], 0.5)
    return pairs.mean(axis=1), pairs.mean(axis=0)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("decimals", [None, 2])
def test_figures_are_those_of_scikit_learn(weighted: bool, decimals: int | None) -> None:
    made = sample(3000, weighted=weighted, decimals=decimals)
    found, _ = ranked(made, "ridge")
    auc = roc_auc_score(made.defaulted, made.scores["ridge"], sample_weight=made.weight)
    false, true, _ = roc_curve(made.defaulted, made.scores["ridge"], sample_weight=made.weight, drop_intermediate=False)
    assert found.auc == pytest.approx(auc, rel=1e-9)
    assert found.gini == pytest.approx(2 * auc - 1, rel=1e-9)
    assert found.ks == pytest.approx((true - false).max(), rel=1e-9)


def test_ks_is_scipys() -> None:
    made = sample(3000, decimals=2)
    scores = made.scores["elastic"]
    oracle = ks_2samp(scores[made.defaulted], scores[~made.defaulted])
    assert ranked(made, "elastic")[0].ks == pytest.approx(oracle.statistic, rel=1e-9)


@pytest.mark.parametrize("decimals", [None, 1])
def test_the_interval_is_delongs_from_all_pairs(decimals: int | None) -> None:
    made = sample(900, decimals=decimals)
    found, _ = ranked(made, "ridge")
    assert found.auc is not None
    of_bad, of_good = placements(made.defaulted, made.scores["ridge"])
    error = np.sqrt(np.var(of_bad, ddof=1) / len(of_bad) + np.var(of_good, ddof=1) / len(of_good))
    assert found.auc == pytest.approx(of_bad.mean(), rel=1e-9)
    assert found.auc_high == pytest.approx(found.auc + norm.ppf(0.975) * error, rel=1e-9)
    assert found.auc_low == pytest.approx(found.auc - norm.ppf(0.975) * error, rel=1e-9)


def test_the_difference_is_delongs_from_all_pairs() -> None:
    made = sample(900, decimals=2)
    known = outcomes(made)
    (a, moves_a), (b, moves_b) = ranked(made, "ridge"), ranked(made, "logistic")
    assert a.auc is not None
    assert b.auc is not None
    found = auc_difference((a.auc, moves_a), (b.auc, moves_b), known, CONFIDENCE)
    both = [placements(made.defaulted, made.scores[model]) for model in ("ridge", "logistic")]
    variance = sum(np.var(both[0][side] - both[1][side], ddof=1) / len(both[0][side]) for side in (0, 1))
    z = (a.auc - b.auc) / np.sqrt(variance)
    assert found.p == pytest.approx(2 * norm.sf(abs(z)), rel=1e-9)
    assert found.interval_high - found.estimate == pytest.approx(norm.ppf(0.975) * np.sqrt(variance), rel=1e-9)


def test_with_customers_the_error_is_that_of_a_bootstrap_over_them() -> None:
    made = sample(900, rows_a_customer=3.0, weighted=True)
    codes = np.unique(made.customer, return_inverse=True)[1]
    scores = made.scores["ridge"] + 0.02 * np.sin(codes)
    defaulted = made.defaulted | (codes % 11 == 0)
    known = Outcomes(defaulted, made.weight, Clusters(made.customer))
    _, influence = ranking(scores, descending(scores, made.order), known, CONFIDENCE)
    assert influence is not None
    random = np.random.default_rng(2)
    count = codes.max() + 1
    pairs = np.heaviside(scores[defaulted][:, None] - scores[~defaulted][None, :], 0.5)
    draws = []
    for times in random.multinomial(count, np.full(count, 1 / count), size=500):
        weight = made.weight * times[codes]
        bad, good = weight[defaulted], weight[~defaulted]
        draws.append(bad @ pairs @ good / (bad.sum() * good.sum()))
    assert np.sqrt(known.clusters.variance(influence)) == pytest.approx(np.std(draws), rel=0.1)


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=40))
def test_any_rows_have_figures_within_their_range_or_none(rows: list[tuple[int, bool]]) -> None:
    scores = np.array([float(score) for score, _ in rows])
    defaulted = np.array([bad for _, bad in rows])
    order = np.arange(len(rows), dtype=np.uint64)
    positions = descending(scores, order)
    known = Outcomes(defaulted, np.ones(len(rows)), Clusters(np.arange(len(rows))))
    found, influence = ranking(scores, positions, known, CONFIDENCE)
    assert mid_ranks(scores, positions).tolist() == rankdata(scores).tolist()
    if defaulted.all() or not defaulted.any():
        assert found == Ranking(None, None, None, None, None)
        assert influence is None
        return
    assert found.auc == pytest.approx(roc_auc_score(defaulted, scores), abs=1e-12)
    assert found.auc_low is not None
    assert found.auc_high is not None
    assert 0 <= found.auc_low <= found.auc <= found.auc_high <= 1
    reverse, _ = ranking(-scores, descending(-scores, order), known, CONFIDENCE)
    assert reverse.auc == pytest.approx(1 - found.auc, abs=1e-12)
