"""Agreement, the disagreement ledger, what cannot be seen, money and segments."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from made import CONFIDENCE, MODELS, POLICY, outcomes, sample
from scipy.stats import false_discovery_control, spearmanr
from sklearn.metrics import accuracy_score, cohen_kappa_score

from consumer.evaluation.agreement import agreements, disagreements
from consumer.evaluation.bands import HIGH, LOW, Banding, descending, match
from consumer.evaluation.money import Economics, money
from consumer.evaluation.observability import observability
from consumer.evaluation.outcomes import Clusters, Outcomes
from consumer.evaluation.ranking import mid_ranks
from consumer.evaluation.ratio import ratio
from consumer.evaluation.sample import Sample, Segment
from consumer.evaluation.segments import segments

ECONOMICS = Economics(margin=0.04, loss_given_default=0.6)


def bandings(made: Sample) -> dict[str, Banding]:
    return {
        model: match(descending(scores, made.order), scores, made.order, made.weight, made.rules_flag)
        for model, scores in made.scores.items()
    }


@pytest.mark.parametrize("weighted", [False, True])
def test_agreement_is_that_of_scikit_learn_and_scipy(weighted: bool) -> None:
    made = sample(2000, weighted=weighted, decimals=2)
    scores = {"rules": made.rules_score, **made.scores}
    bands = {"rules": made.rules_flag, **{name: each.bands for name, each in bandings(made).items()}}
    ranks = {name: mid_ranks(each, descending(each, made.order)) for name, each in scores.items()}
    found = agreements(bands, ranks, made.weight)
    assert len(found) == 10
    for each in found:
        a, b = (bands[name] == HIGH for name in (each.a, each.b))
        assert each.equal_flags == pytest.approx(accuracy_score(a, b, sample_weight=made.weight), rel=1e-9)
        assert each.kappa == pytest.approx(cohen_kappa_score(a, b, sample_weight=made.weight), rel=1e-9)
        assert each.spearman == pytest.approx(spearmanr(scores[each.a], scores[each.b]).statistic, rel=1e-9)


def test_scorers_that_flag_nothing_or_know_one_score_have_no_agreement_beyond_chance() -> None:
    bands = dict.fromkeys(("a", "b"), np.full(5, LOW, np.int8))
    (found,) = agreements(bands, dict.fromkeys(("a", "b"), np.full(5, 3.0)), np.ones(5))
    assert (found.equal_flags, found.kappa, found.spearman) == (1, None, None)


def test_the_ledger_names_what_one_model_flags_alone() -> None:
    made = sample(3000, decimals=3)
    of_models = bandings(made)
    somewhere = np.arange(3000) * 7 + 1
    ledger = disagreements(made, of_models, outcomes(made), somewhere, 5, CONFIDENCE)
    flags = np.array([of_models[model].bands == HIGH for model in MODELS])
    for at, each in enumerate(ledger):
        alone = flags[at] & (flags.sum(axis=0) == 1)
        assert each.model == MODELS[at]
        assert each.rate.rows == alone.sum() > 5
        assert each.rate.defaults == (alone & made.defaulted).sum()
        assert each.amount == pytest.approx(made.amount[alone].sum())
        rows = [(place - 1) // 7 for place in each.examples]
        assert all(alone[row] for row in rows)
        scores = made.scores[each.model]
        threshold = of_models[each.model].high
        assert threshold is not None
        assert each.distances == pytest.approx([scores[row] - threshold.score for row in rows])
        assert each.distances == sorted(each.distances, reverse=True)
        assert min(scores[rows]) >= np.sort(scores[alone])[-5]


def test_the_bounds_hold_whatever_the_unseen_flags_do() -> None:
    made = sample(6000, declined=0.25, pending=0.05)
    rows = made.evaluable(made.models)
    seen = made.only(rows)
    banding = bandings(seen)["ridge"]
    of_seen, _ = ratio(banding.bands, outcomes(seen), 20, CONFIDENCE)
    flagged = banding.flags(made.scores["ridge"], made.order)
    found = observability(made, flagged, of_seen)
    assert found.flagged == flagged.sum()
    assert found.declined == (flagged & ~made.approved).sum()
    assert found.pending == (flagged & made.approved & ~made.observed).sum()
    assert found.unobservable_share == pytest.approx(found.declined / found.flagged)
    assert 0.2 < found.declined / found.flagged < 0.3
    assert found.none_defaults is not None
    assert found.all_default is not None
    assert found.plausible_low is not None
    assert found.plausible_high is not None
    low = of_seen.low.rate
    high = of_seen.high.rate
    assert low is not None
    assert high is not None
    for bound, defaults in ((found.none_defaults, 0), (found.all_default, found.declined)):
        seen_flags = found.flagged - found.declined  # those that are pending stand in for at the rate that was seen
        assert bound.ratio == pytest.approx((high * seen_flags + defaults) / found.flagged / low, rel=1e-9)
    assert found.plausible_low.unseen_rate == low
    assert found.plausible_high.unseen_rate == pytest.approx(3 * high)
    assert of_seen.estimate is not None
    assert found.none_defaults.ratio < found.plausible_low.ratio < of_seen.estimate < found.plausible_high.ratio
    assert found.plausible_high.ratio < found.all_default.ratio


def test_when_nothing_was_declined_nothing_is_unseen() -> None:
    made = sample(3000)
    banding = bandings(made)["ridge"]
    of_seen, _ = ratio(banding.bands, outcomes(made), 20, CONFIDENCE)
    found = observability(made, banding.flags(made.scores["ridge"], made.order), of_seen)
    assert found.unobservable_share == 0
    assert found.none_defaults is not None
    assert found.all_default is not None
    assert found.none_defaults.ratio == pytest.approx(of_seen.estimate) == found.all_default.ratio


def test_money_is_the_difference_of_two_profits() -> None:
    made = sample(3000, rows_a_customer=2.0)
    bands = bandings(made)["ridge"].bands
    found = money(bands, made.amount, outcomes(made), ECONOMICS, CONFIDENCE)
    profit = np.where(made.defaulted, -0.6, 0.04) * made.amount
    assert found.opportunity == pytest.approx(profit[bands != HIGH].sum() - profit.sum(), rel=1e-9)
    assert found.opportunity == pytest.approx(found.loss_avoided - found.margin_forgone, rel=1e-9)
    assert found.declined == (bands == HIGH).sum()
    for each in found.sensitivity:
        profit = np.where(made.defaulted, -each.loss_given_default, each.margin) * made.amount
        assert each.opportunity == pytest.approx(profit[bands != HIGH].sum() - profit.sum(), rel=1e-9)
    assert {(each.margin, each.loss_given_default) for each in found.sensitivity} == {
        (0.04 * margin, 0.6 * loss) for margin in (0.5, 1.0, 1.5) for loss in (0.5, 1.0, 1.5)
    }


def test_the_interval_of_money_is_that_of_a_bootstrap_over_customers() -> None:
    made = sample(3000, rows_a_customer=3.0, weighted=True)
    bands = bandings(made)["ridge"].bands
    found = money(bands, made.amount, outcomes(made), ECONOMICS, CONFIDENCE)
    gains = np.where(bands == HIGH, np.where(made.defaulted, 0.6, -0.04) * made.amount * made.weight, 0.0)
    codes = np.unique(made.customer, return_inverse=True)[1]
    by_customer = np.bincount(codes, gains)
    times = np.random.default_rng(1).multinomial(
        len(by_customer), np.full(len(by_customer), 1 / len(by_customer)), 1000
    )
    half = (found.interval_high - found.interval_low) / 2
    assert half == pytest.approx(1.96 * (times @ by_customer).std(), rel=0.08)


def test_a_segment_is_judged_alone_where_it_is_large_enough() -> None:
    made = sample(6000, rows_a_customer=1.5)
    of_models = {model: each.bands for model, each in bandings(made).items()}
    cells = segments(made, made.rules_flag, of_models, POLICY.segments, CONFIDENCE)
    assert [(cell.segment, cell.label) for cell in cells] == [
        ("provider", "affirm"), ("provider", "klarna"), ("provider", "sezzle"), ("rare", "no"), ("rare", "yes"),
    ]  # fmt: skip
    assert cells[-1].why == "too few"
    assert cells[-1].models == {}
    assert cells[-1].rules is None
    rows = made.segments["provider"].codes == 1
    alone = Outcomes(made.defaulted[rows], made.weight[rows], Clusters(made.customer[rows]))
    for model, bands in of_models.items():
        assert cells[1].models[model].ratio == ratio(bands[rows], alone, 5, CONFIDENCE)[0]
    found = [each for cell in cells for each in cell.models.values() if each.difference]
    assert len(found) == 16
    oracle = false_discovery_control([each.difference.p for each in found if each.difference])
    assert [each.p_corrected for each in found] == pytest.approx(oracle.tolist(), rel=1e-9)


def test_a_band_with_too_few_defaults_in_a_segment_gives_no_ratio_there() -> None:
    made = sample(6000)
    none_high = np.where(made.rules_flag == HIGH, 1, 0).astype(np.int32)
    made = replace(made, segments={"flag": Segment(none_high, ("low or medium", "high"))})
    of_models = {model: each.bands for model, each in bandings(made).items()}
    first, second = segments(made, made.rules_flag, of_models, POLICY.segments, CONFIDENCE)
    assert first.why is second.why is None
    assert first.rules is not None
    assert first.rules.why is not None
    assert all(each.difference is None and each.p_corrected is None for each in first.models.values())
    assert math.isfinite(first.models["ridge"].ratio.estimate or math.nan)
