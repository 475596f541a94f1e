"""Rules and models at one share, counted by ClickHouse: against `evaluate` at the rules' own share, and against the
very rows at every other one.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from clickhouse_connect.driver.client import Client
from evaluated_past import evaluated, fill
from harness import fresh_settings

from consumer.champion.dossier import snapshot_of
from consumer.champion.rows import read_rows
from consumer.errors import Fatal
from consumer.evaluation.bands import HIGH, LOW, MEDIUM, descending
from consumer.evaluation.money import Economics, money
from consumer.evaluation.outcomes import Clusters, Outcomes
from consumer.evaluation.ratio import ratio
from consumer.evaluation.sample import RULES, Sample
from consumer.scoring.controller import ShadowModeController
from consumer.services import clickhouse
from consumer.settings import Settings
from consumer.stack.local import LocalStack
from consumer.views.buckets import Scored, read_buckets
from consumer.views.scores import distributions, roc_curves
from consumer.views.thresholds import Thresholds, read_thresholds

SEEDS = (1, 2, 3)
CLOSE = {"rel": 1e-9, "abs": 1e-9}


class World:
    """One seed's rows, as the evaluation has them and as the view does."""

    def __init__(self, settings: Settings, client: Client) -> None:
        self.client = client
        self.told = evaluated(settings)
        self.scored: Scored = read_buckets(client, self.told)
        self.thresholds: Thresholds = read_thresholds(client, self.told, self.scored)
        whole = read_rows(client, snapshot_of(self.told)).sample
        self.sample: Sample = whole.only(whole.evaluable(whole.models))


@pytest.fixture(scope="module", params=SEEDS)
def world(
    request: pytest.FixtureRequest,
    stack: LocalStack,
    controller: ShadowModeController,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    with (
        fresh_settings(stack, tmp_path_factory.mktemp("world")) as settings,
        clickhouse.connect(settings) as client,
    ):
        fill(client, settings, controller, 12_000, request.param)
        yield World(settings, client)


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
    sample, thresholds = world.sample, world.thresholds
    assert len(np.unique(sample.customer)) < len(sample), "rows of one customer are what makes intervals differ"
    assert len(np.unique(sample.weight)) > 1
    lows = sample.weight[sample.rules_flag == LOW].sum()
    outcomes = Outcomes(sample.defaulted, sample.weight, Clusters(np.arange(len(sample))))
    known = 0
    for place in range(0, len(thresholds.shares), 7):
        if place == thresholds.own:
            continue
        for each in thresholds.at(place):
            scores = sample.rules_score if each.scorer == RULES else sample.scores[each.scorer]
            order = descending(scores, sample.order)
            weight = sample.weight[order]
            middle = np.cumsum(weight) - weight / 2
            highs = int((middle <= thresholds.shares[place] * weight.sum()).sum())
            bands = np.full(len(sample), MEDIUM, np.int8)
            bands[order[max(highs, int((middle < weight.sum() - lows).sum())) :]] = LOW
            bands[order[:highs]] = HIGH
            expected, _ = ratio(bands, outcomes, thresholds.minimum_defaults, thresholds.confidence)
            assert (each.high.rows, each.high.defaults) == (expected.high.rows, expected.high.defaults)
            assert (each.low.rows, each.low.defaults) == (expected.low.rows, expected.low.defaults)
            assert each.why == expected.why
            assert each.ratio == (None if expected.estimate is None else pytest.approx(expected.estimate, **CLOSE))
            if expected.standard_error is not None and each.ratio_low is not None and each.ratio is not None:
                known += 1
                effect = np.sqrt(thresholds.ratio_effect[each.scorer])
                error = np.log(each.ratio / each.ratio_low) / 1.959963984540054
                assert error == pytest.approx(expected.standard_error * effect, rel=1e-6)
            worth = money(bands, sample.amount, outcomes, thresholds.economics, thresholds.confidence)
            assert each.opportunity == pytest.approx(worth.opportunity, **CLOSE)
            half, by_rows = each.opportunity_high - each.opportunity, worth.interval_high - worth.opportunity
            assert half == pytest.approx(by_rows * np.sqrt(thresholds.money_effect[each.scorer]), rel=1e-6)
    assert known > len(thresholds.high), "too few defaults to say anything"


def test_other_economics_change_money_alone(world: World) -> None:
    place, thresholds = world.thresholds.own, world.thresholds
    told = world.told["evaluation"]["scorers"]["ridge"]["money"]["sensitivity"][0]
    economics = Economics(margin=told["margin"], loss_given_default=told["loss_given_default"])
    before, after = (
        next(each for each in thresholds.at(place, given) if each.scorer == "ridge") for given in (None, economics)
    )
    assert after.opportunity == pytest.approx(told["opportunity"], **CLOSE)
    unmoved = {name: getattr(after, name) for name in vars(after) if name.startswith(("opp", "loss", "margin"))}
    assert replace(before, **unmoved) == after


def test_curves_and_distributions_are_of_the_same_rows(world: World) -> None:
    told = world.told["evaluation"]["scorers"]
    for curve in roc_curves(world.scored, points=2000):
        area = float(np.trapezoid(curve.defaulters, curve.others))
        assert area == pytest.approx(told[curve.scorer]["ranking"]["auc"], abs=2e-3)
    rows = {each.scorer: each for each in distributions(world.scored)}
    assert list(rows) == list(told)
    for name, each in rows.items():
        assert sum(each.defaulters) == pytest.approx(1)
        assert sum(each.others) == pytest.approx(1)
        middles = (np.array(each.begins) + np.array(each.ends)) / 2
        assert middles @ each.defaulters > middles @ each.others, name


def test_rows_that_changed_since_are_refused(world: World) -> None:
    other: dict[str, Any] = copy.deepcopy(world.told)
    other["evaluation"]["rows"]["defaults"] += 1
    with pytest.raises(Fatal, match="sent again since"):
        read_buckets(world.client, other)
    del other["evaluation"]
    with pytest.raises(Fatal, match="damaged"):
        read_buckets(world.client, other)
