"""Rules and models at one share: against `evaluate` at the rules' own share, and against the very rows at every other
one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import made
import numpy as np
import pytest

from consumer.evaluation.bands import HIGH, LOW, MEDIUM, descending
from consumer.evaluation.curves import curves
from consumer.evaluation.evaluate import evaluate
from consumer.evaluation.money import Economics, money
from consumer.evaluation.outcomes import Clusters, Outcomes
from consumer.evaluation.plain import plain
from consumer.evaluation.ratio import ratio
from consumer.evaluation.sample import RULES
from consumer.evaluation.thresholds import Thresholds, thresholds

CLOSE = {"rel": 1e-9, "abs": 1e-9}


class World:
    """Rows with ties, weights, and customers that come twice, as the evaluation has them and as the view does."""

    def __init__(self, seed: int) -> None:
        whole = made.sample(
            12_000, seed, rows_a_customer=1.4, weighted=True, declined=0.1, pending=0.1, decimals=(None, 3, 1)[seed % 3]
        )
        evaluation = evaluate(whole, made.POLICY, made.TARGETS, 4)
        self.told: dict[str, Any] = {"terms": {"policy": plain(made.POLICY)}, "evaluation": evaluation.as_json()}
        self.sample = whole.only(whole.evaluable(whole.models))
        drawn = curves(self.sample)
        assert drawn is not None
        self.thresholds: Thresholds = thresholds(self.told, drawn.shares)


@pytest.fixture(scope="module", params=(1, 2, 3))
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param)


def test_at_the_rules_own_share_the_figures_are_those_of_evaluate(world: World) -> None:
    scorers = world.told["evaluation"]["scorers"]
    found = {each.scorer: each for each in world.thresholds.at(world.thresholds.own)}
    assert list(found) == list(scorers)
    for name, each in found.items():
        told, worth = scorers[name]["ratio"], scorers[name]["money"]
        assert (each.high.rows, each.high.defaults) == (told["high"]["rows"], told["high"]["defaults"])
        assert (each.low.rows, each.low.defaults) == (told["low"]["rows"], told["low"]["defaults"])
        assert (each.flagged, each.why) == (worth["declined"], told["why"])
        assert each.high.interval_low == pytest.approx(told["high"]["interval_low"], **CLOSE)
        for ours, theirs in (("ratio", "estimate"), ("ratio_low", "interval_low"), ("ratio_high", "interval_high")):
            expected = told[theirs]
            assert getattr(each, ours) == (None if expected is None else pytest.approx(expected, **CLOSE))
        for ours, theirs in (
            ("loss_avoided", "loss_avoided"),
            ("margin_forgone", "margin_forgone"),
            ("opportunity", "opportunity"),
            ("opportunity_low", "interval_low"),
            ("opportunity_high", "interval_high"),
        ):
            assert getattr(each, ours) == pytest.approx(worth[theirs], **CLOSE)


def test_at_any_share_the_bands_are_exact_to_the_row(world: World) -> None:
    sample, found = world.sample, world.thresholds
    assert len(np.unique(sample.customer)) < len(sample), "rows of one customer are what makes intervals differ"
    assert len(np.unique(sample.weight)) > 1
    lows = sample.weight[sample.rules_flag == LOW].sum()
    outcomes = Outcomes(sample.defaulted, sample.weight, Clusters(np.arange(len(sample))))
    known = 0
    for place in range(0, len(found.shares), 7):
        if place == found.own:
            continue
        for each in found.at(place):
            scores = sample.rules_score if each.scorer == RULES else sample.scores[each.scorer]
            order = descending(scores, sample.order)
            weight = sample.weight[order]
            middle = np.cumsum(weight) - weight / 2
            highs = int((middle <= found.shares[place] * weight.sum()).sum())
            bands = np.full(len(sample), MEDIUM, np.int8)
            bands[order[max(highs, int((middle < weight.sum() - lows).sum())) :]] = LOW
            bands[order[:highs]] = HIGH
            expected, _ = ratio(bands, outcomes, found.minimum_defaults, found.confidence)
            assert (each.high.rows, each.high.defaults) == (expected.high.rows, expected.high.defaults)
            assert (each.low.rows, each.low.defaults) == (expected.low.rows, expected.low.defaults)
            assert each.why == expected.why
            assert each.ratio == (None if expected.estimate is None else pytest.approx(expected.estimate, **CLOSE))
            if expected.standard_error is not None and each.ratio_low is not None and each.ratio is not None:
                known += 1
                effect = np.sqrt(found.ratio_effect[each.scorer])
                error = np.log(each.ratio / each.ratio_low) / 1.959963984540054
                assert error == pytest.approx(expected.standard_error * effect, rel=1e-6)
            worth = money(bands, sample.amount, outcomes, found.economics, found.confidence)
            assert each.opportunity == pytest.approx(worth.opportunity, **CLOSE)
            half, by_rows = each.opportunity_high - each.opportunity, worth.interval_high - worth.opportunity
            assert half == pytest.approx(by_rows * np.sqrt(found.money_effect[each.scorer]), rel=1e-6)
    assert known > len(found.sums.high), "too few defaults to say anything"


def test_other_economics_change_money_alone(world: World) -> None:
    place, found = world.thresholds.own, world.thresholds
    told = world.told["evaluation"]["scorers"]["ridge"]["money"]["sensitivity"][0]
    economics = Economics(margin=told["margin"], loss_given_default=told["loss_given_default"])
    before, after = (
        next(each for each in found.at(place, given) if each.scorer == "ridge") for given in (None, economics)
    )
    assert after.opportunity == pytest.approx(told["opportunity"], **CLOSE)
    unmoved = {name: getattr(after, name) for name in vars(after) if name.startswith(("opp", "loss", "margin"))}
    assert replace(before, **unmoved) == after


def _edge(**changes: Any) -> tuple[dict[str, Any], Thresholds]:
    sample = made.sample(600, 5, **changes)
    policy = made.POLICY.model_copy(update={"minimum_defaults": 1})
    evaluation = evaluate(sample, policy, made.TARGETS, 4)
    told = {"terms": {"policy": plain(policy)}, "evaluation": evaluation.as_json()}
    drawn = curves(sample)
    assert drawn is not None
    return told["evaluation"]["scorers"], thresholds(told, drawn.shares)


def test_of_one_customer_nothing_is_inferred_at_any_share() -> None:
    scorers, found = _edge(customer=np.zeros(600, np.int64))
    for place in range(len(found.shares)):
        for each in found.at(place):
            assert (each.opportunity_low, each.opportunity_high, each.ratio_high) == (None, None, None)
    for each in found.at(found.own):
        assert each.ratio == pytest.approx(scorers[each.scorer]["ratio"]["estimate"])
        assert each.ratio_low == scorers[each.scorer]["ratio"]["interval_low"]


def test_one_row_that_outweighs_all_others_does_not_blot_out_the_low_band() -> None:
    weight = np.ones(600)
    weight[made.sample(600, 5).rules_flag.argmax()] = 1e12  # flagged high, of a propensity next to nothing
    scorers, found = _edge(weight=weight)
    each = next(each for each in found.at(found.own) if each.scorer == RULES)
    told = scorers[RULES]["ratio"]
    assert each.low.rate == pytest.approx(told["low"]["rate"], **CLOSE)
    assert each.low.interval_high == pytest.approx(told["low"]["interval_high"], **CLOSE)
    assert each.ratio == pytest.approx(told["estimate"], **CLOSE)


def test_where_every_row_defaulted_a_ratio_is_known_without_error() -> None:
    scorers, found = _edge(defaulted=np.ones(600, np.bool_), weight=np.full(600, 1 / 0.3))
    for place in range(len(found.shares)):
        for each in found.at(place):
            assert each.ratio is None or each.ratio == pytest.approx(1)
    assert next(iter(scorers.values()))["ratio"]["estimate"] == pytest.approx(1)
