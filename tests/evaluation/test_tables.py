"""Rates, deciles, vintages and the curve of defaults, against statsmodels, pandas and lifelines."""

from __future__ import annotations

from datetime import date

import lifelines
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import CONFIDENCE, outcomes, sample
from scipy.stats import binomtest
from statsmodels.stats.proportion import proportion_confint

from consumer.evaluation.bands import descending
from consumer.evaluation.deciles import deciles
from consumer.evaluation.rates import rates
from consumer.evaluation.vintages import FollowUp, cumulative_default, iso_week, vintages, weeks_of


@given(st.integers(1, 500), st.data())
def test_rates_have_wilsons_interval(n: int, data: st.DataObject) -> None:
    bad = data.draw(st.integers(0, n))
    (found,) = rates(np.zeros(n, np.int64), 1, np.arange(n) < bad, np.ones(n), CONFIDENCE)
    low, high = proportion_confint(bad, n, method="wilson")
    assert (found.rows, found.defaults, found.rate) == (n, bad, pytest.approx(bad / n))
    assert [found.interval_low, found.interval_high] == pytest.approx([low, high], rel=1e-9, abs=1e-12)
    oracle = binomtest(bad, n).proportion_ci(CONFIDENCE, method="wilson")
    assert [found.interval_low, found.interval_high] == pytest.approx([oracle.low, oracle.high], rel=1e-9, abs=1e-12)


def test_equal_weights_change_no_rate_and_unequal_ones_widen_it() -> None:
    made = sample(1000)
    codes = made.segments["provider"].codes
    plain = rates(codes, 3, made.defaulted, np.ones(1000), CONFIDENCE)
    assert rates(codes, 3, made.defaulted, np.full(1000, 4.0), CONFIDENCE) == plain
    weight = np.where(made.defaulted, 1.0, np.tile([0.2, 1.8], 500))
    wider = rates(codes, 3, made.defaulted, weight, CONFIDENCE)
    for before, after in zip(plain, wider, strict=True):
        assert (after.rows, after.defaults) == (before.rows, before.defaults)
        assert after.interval_high - after.interval_low > before.interval_high - before.interval_low  # type: ignore[operator]


def test_an_empty_group_has_no_rate() -> None:
    found = rates(np.array([0, 2]), 4, np.array([True, False]), np.ones(2), CONFIDENCE)
    assert [each.rate for each in found] == [1.0, None, 0.0, None]
    assert found[1].interval_low is None


@pytest.mark.parametrize("weighted", [False, True])
def test_deciles_are_those_of_pandas(weighted: bool) -> None:
    made = sample(4321, weighted=weighted, decimals=2)
    scores = made.scores["ridge"]
    positions = descending(scores, made.order)
    table = deciles(scores, positions, outcomes(made), made.amount, CONFIDENCE)
    frame = pd.DataFrame(
        {
            "y": made.defaulted, "w": made.weight, "p": made.scores["ridge"], "a": made.amount,
            "bad": made.defaulted * made.weight, "pw": scores * made.weight, "aw": made.amount * made.weight,
        }
    ).iloc[positions]  # fmt: skip
    frame["decile"] = np.arange(len(frame)) * 10 // len(frame) + 1
    by = frame.groupby("decile").sum()
    assert [each.decile for each in table] == list(by.index)
    assert [each.rate.rows for each in table] == frame.groupby("decile").size().tolist()
    assert [each.rate.defaults for each in table] == by["y"].tolist()
    assert [each.rate.rate for each in table] == pytest.approx((by["bad"] / by["w"]).tolist(), rel=1e-9)
    assert [each.mean_score for each in table] == pytest.approx((by["pw"] / by["w"]).tolist(), rel=1e-9)
    assert [each.amount for each in table] == pytest.approx(by["aw"].tolist(), rel=1e-9)
    upto, everything = by.cumsum(), by.sum()
    assert [each.capture for each in table] == pytest.approx((upto["bad"] / everything["bad"]).tolist(), rel=1e-9)
    overall = everything["bad"] / everything["w"]
    assert [each.lift for each in table] == pytest.approx((by["bad"] / by["w"] / overall).tolist(), rel=1e-9)
    rest = everything - upto
    ratio = (upto["bad"] / upto["w"]) / (rest["bad"] / rest["w"])
    assert [each.cumulative_ratio for each in table[:-1]] == pytest.approx(ratio.tolist()[:-1], rel=1e-9)
    assert table[-1].cumulative_ratio is None


@pytest.mark.parametrize("n", [0, 1, 7])
def test_few_rows_have_few_deciles(n: int) -> None:
    made = sample(n or 1)
    scores = made.scores["ridge"][:n]
    known = outcomes(made if n else made.only(np.zeros(1, np.bool_)))
    table = deciles(scores, descending(scores, made.order[:n]), known, made.amount[:n], CONFIDENCE)
    assert [each.rate.rows for each in table] == [1] * n


@given(st.dates(date(1970, 1, 1), date(2100, 1, 1)))
def test_weeks_are_the_calendars(day: date) -> None:
    (week,) = weeks_of(np.array([day], "datetime64[ms]")).tolist()
    year, number, _ = day.isocalendar()
    assert iso_week(week) == f"{year}-W{number:02d}"


def test_a_vintage_counts_its_own_week() -> None:
    made = sample(4000, declined=0.2, pending=0.1, weeks=5, weighted=True)
    made.scores["ridge"][:100] = np.nan
    found = vintages(made, CONFIDENCE)
    assert [each.week for each in found] == ["2026-W32", "2026-W33", "2026-W34", "2026-W35", "2026-W36"]
    assert sum(each.approved for each in found) == made.approved.sum()
    assert sum(each.observed.rows for each in found) == made.observed.sum()
    week = (made.event_time >= np.datetime64("2026-08-10")) & (made.event_time < np.datetime64("2026-08-17"))
    second = found[1]
    assert second.approved == (week & made.approved).sum()
    assert second.observed.defaults == (week & made.defaulted).sum()
    scored = week & made.observed & ~np.isnan(made.scores["ridge"])
    expected = made.weight[scored] @ made.scores["ridge"][scored]
    against = second.observed_expected["ridge"]
    assert against.expected == pytest.approx(expected, rel=1e-9)
    assert against.observed == pytest.approx(made.weight[scored & made.defaulted].sum(), rel=1e-9)


def test_the_curve_of_defaults_is_kaplan_and_meiers() -> None:
    """As lifelines draws it: plans of 4 to 24 instalments are watched for 56 to 336 days."""
    random = np.random.default_rng(6)
    days = 14.0 * random.integers(1, 24, 3000)
    ends = 14.0 * random.integers(4, 25, 3000)
    defaulted = (days <= ends) & (random.random(3000) < 0.2)
    watched = np.where(defaulted, days, ends)
    curve = cumulative_default(FollowUp(watched, defaulted), CONFIDENCE)
    fitted = lifelines.KaplanMeierFitter(alpha=1 - CONFIDENCE).fit(watched, defaulted)
    assert curve.days == sorted(set(watched[defaulted].tolist()))
    oracle = 1 - fitted.survival_function_at_times(curve.days).to_numpy()
    assert curve.share == pytest.approx(oracle.tolist(), rel=1e-9)
    bounds = fitted.confidence_interval_survival_function_.loc[curve.days]
    assert curve.interval_low == pytest.approx((1 - bounds.iloc[:, 1]).tolist(), rel=1e-9)
    assert curve.interval_high == pytest.approx((1 - bounds.iloc[:, 0]).tolist(), rel=1e-9)
    assert defaulted.mean() < curve.share[-1], "censored rows would make the plain share too low"
