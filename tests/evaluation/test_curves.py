"""Curves and distributions against scikit-learn and numpy. What shares are is tested with the thresholds."""

from __future__ import annotations

import made
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from consumer.evaluation.curves import Curves, curves
from consumer.evaluation.sample import RULES, Floats, Sample


@pytest.fixture(scope="module", params=[None, 2], ids=["distinct scores", "ties"])
def sample(request: pytest.FixtureRequest) -> Sample:
    return made.sample(8_000, 7, weighted=True, decimals=request.param)


@pytest.fixture(scope="module")
def drawn(sample: Sample) -> Curves:
    found = curves(sample)
    assert found is not None
    return found


def scores_of(sample: Sample) -> dict[str, Floats]:
    return {RULES: sample.rules_score, **sample.scores}


def test_every_point_of_a_roc_curve_lies_on_that_of_scikit_learn(sample: Sample, drawn: Curves) -> None:
    assert [each.scorer for each in drawn.roc] == list(scores_of(sample))
    for each in drawn.roc:
        scores = scores_of(sample)[each.scorer]
        others, defaulters, _ = roc_curve(
            sample.defaulted, scores, sample_weight=sample.weight, drop_intermediate=False
        )
        assert (each.others[0], each.defaulters[0]) == (0, 0)
        assert (each.others[-1], each.defaulters[-1]) == (1, 1)
        distances = np.hypot(np.subtract.outer(each.others, others), np.subtract.outer(each.defaulters, defaulters))
        assert distances.min(axis=1).max() < 1e-9
        area = roc_auc_score(sample.defaulted, scores, sample_weight=sample.weight)
        assert np.trapezoid(each.defaulters, each.others) == pytest.approx(area, abs=2e-3)


def test_a_distribution_is_the_histogram_of_its_bins(sample: Sample, drawn: Curves) -> None:
    assert [each.scorer for each in drawn.distributions] == list(scores_of(sample))
    for each in drawn.distributions:
        scores = scores_of(sample)[each.scorer]
        assert each.begins[1:] == each.ends[:-1]
        edges = [-np.inf, *each.begins[1:], np.inf]
        assert np.mean((scores < each.begins[0]) | (scores > each.ends[-1])) < 0.003
        for kind, shares in ((sample.defaulted, each.defaulters), (~sample.defaulted, each.others)):
            weights, _ = np.histogram(scores[kind], edges, weights=sample.weight[kind])
            assert shares == pytest.approx(weights / weights.sum(), abs=1e-12)


def test_all_alike_or_none_at_all() -> None:
    sample = made.sample(500)
    for outcome in (True, False):
        found = curves(made.sample(500, defaulted=np.full(500, outcome)))
        assert found is not None
        assert not found.roc, "nothing is to be told apart"
        assert all(sum(each.defaulters) == pytest.approx(float(outcome)) for each in found.distributions)
    one_score = curves(made.sample(500, rules_score=np.full(500, 0.25)))
    assert one_score is not None
    assert one_score.roc[0].others == [0, 1]
    assert sum(one_score.distributions[0].others) == pytest.approx(1)
    assert curves(sample.only(np.zeros(500, np.bool_))) is None


def test_bands_at_every_share_hold_their_part_of_the_weight(sample: Sample, drawn: Curves) -> None:
    shares, heaviest = drawn.shares, sample.weight.max()
    whole, high_flags = sample.weight.sum(), sample.weight[sample.rules_flag == 2].sum()
    assert shares.shares[shares.own] == pytest.approx(high_flags / whole)
    assert shares.total == pytest.approx(
        [
            len(sample), sample.defaulted.sum(),
            whole, sample.weight @ sample.defaulted,
            sample.weight @ sample.weight, sample.weight**2 @ sample.defaulted,
            sample.weight @ sample.amount, (sample.weight * sample.amount) @ sample.defaulted,
            ((sample.weight * sample.amount) ** 2).sum(), (sample.weight * sample.amount) ** 2 @ sample.defaulted,
        ]
    )  # fmt: skip
    for each in shares.high.values():
        assert each[:, 2] == pytest.approx(np.array(shares.shares) * whole, abs=heaviest)
