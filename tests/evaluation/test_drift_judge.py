"""What is called drift, and what is not: on simulated weeks against the shipped export."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pyarrow as pa
import pytest
from drifting import ENGINEER, adopted, replaced, seen, shipped, told, week

from consumer.evaluation.drift.judge import (
    ALARM,
    ALPHA,
    FEWEST_ROWS,
    MUTED,
    OK,
    WARNING,
    Seen,
    Shift,
    judge_features,
    judge_flags,
    judge_scores,
    vintage,
)
from consumer.evaluation.drift.measures import difference_of_shares, poisson_interval
from consumer.evaluation.drift.reference import Reference, Share
from consumer.research.measures import training_statistics
from consumer.scoring.features import FEATURE_NAMES

REFERENCE = shipped()
WEIGHTS = {"amount": 0.07, "risk_score": 0.4}


def judged(reference: Reference, now: pa.RecordBatch, before: pa.RecordBatch | None = None) -> dict[str, Shift]:
    found = seen(reference, now)
    earlier = found if before is None else seen(reference, before)
    return {shift.name: shift for shift in judge_features(reference, found, earlier, WEIGHTS)}


def named(shifts: dict[str, Shift], least: int = WARNING) -> set[str]:
    return {name for name, shift in shifts.items() if (shift.state or OK) >= least}


def dearer(batch: pa.RecordBatch, times: float = 2.0) -> pa.RecordBatch:
    return replaced(batch, "amount", batch.column("amount").to_numpy() * times)


def test_a_planted_drift_is_named_and_nothing_else_is() -> None:
    shifts = judged(REFERENCE, dearer(week(1)))
    assert named(shifts) == {"amount"}
    assert shifts["amount"].state == ALARM
    assert next(iter(shifts)) == "amount", "what to look at first comes first"
    assert shifts["amount"].mean_shift == pytest.approx(0.8, abs=0.1)
    assert (shifts["amount"].wasserstein or 0) > 0.5
    assert (shifts["amount"].jensen_shannon or 0) > 0.1


def test_a_category_that_training_did_not_have_is_named_with_all_that_is_made_of_it() -> None:
    batch = week(2)
    devices = np.array(batch.column("device_type").to_pylist(), object)
    devices[::20] = "hologram"
    shifts = judged(REFERENCE, replaced(batch, "device_type", devices))
    assert named(shifts) == {"device_type_mobile", "device_type_tablet"}
    for name in named(shifts):
        assert shifts[name].unseen == pytest.approx(0.05)
        assert shifts[name].out_of_range == 0
    assert shifts["amount"].unseen is None, "a number has no unseen values"


def test_a_shift_of_shares_of_known_categories_is_named() -> None:
    batch = week(3)
    providers = np.array(batch.column("payment_provider").to_pylist(), object)
    providers[providers == "klarna"] = "sezzle"
    assert named(judged(REFERENCE, replaced(batch, "payment_provider", providers)), ALARM) == {
        "payment_provider_klarna",
        "payment_provider_sezzle",
    }


@pytest.mark.parametrize("start", [date(2026, 11, 23), date(2026, 12, 24), date(2027, 2, 22)])
def test_the_calendar_does_not_alarm_when_the_season_changes(start: date) -> None:
    shifts = judged(REFERENCE, week(4, start))
    assert named(shifts) == set()
    moved = {name for name, shift in shifts.items() if shift.muted and (shift.psi or 0) > 0.25}
    assert "week_of_month" in moved, "it is measured all the same"
    assert ("is_holiday_season" in moved) == (start.month >= 11)
    for name in moved:
        assert shifts[name].muted == MUTED[name]


def test_what_is_made_of_the_clock_alone_is_muted_and_nothing_else() -> None:
    assert set(MUTED) & set(FEATURE_NAMES) == {
        name for name in FEATURE_NAMES if name.startswith(("week_", "is_", "time_of_day_"))
    }


def test_no_drift_over_stationary_traffic_of_many_seeds() -> None:
    """Weeks of different people who are made and who shop as those of training; any of 27 features may alarm."""
    trained = week(0, rows=50_000)
    statistics = training_statistics(FEATURE_NAMES, ENGINEER.engineer(trained).matrix, trained, None, {}, "a test")
    reference = told(statistics)
    weeks, rows = 40, 1_500
    alarms = [named(judged(reference, week(100 + seed, rows=rows, customers=rows))) for seed in range(weeks)]
    false = sum(map(len, alarms))
    print(f"{false} false alarms in {weeks} weeks of {rows} rows, 27 features each")
    assert false == 0, alarms


def test_one_window_alone_alarms_nobody() -> None:
    shifts = judged(REFERENCE, dearer(week(1)), before=week(1))
    assert shifts["amount"].window_state == ALARM
    assert shifts["amount"].state == OK
    slowly = judged(REFERENCE, dearer(week(1)), before=dearer(week(1), 1.35))
    assert slowly["amount"].state == WARNING, "the lower of two windows"


def test_the_first_window_of_all_has_none_before_it() -> None:
    found = seen(REFERENCE, dearer(week(1)))
    (amount,) = [shift for shift in judge_features(REFERENCE, found, {}, {}) if shift.name == "amount"]
    assert (amount.window_state, amount.state) == (ALARM, OK)


def test_a_window_of_few_rows_is_measured_and_not_judged() -> None:
    rows = FEWEST_ROWS - 1
    shifts = judged(REFERENCE, dearer(week(1)).slice(0, rows))
    assert shifts["amount"].psi is not None
    assert {shift.state for shift in shifts.values()} == {None}
    assert shifts["amount"].not_measured == "too few: 999 rows in the window, 1,000 are needed"
    assert named(judged(REFERENCE, dearer(week(1)).slice(0, FEWEST_ROWS))) == {"amount"}


def test_a_large_psi_that_chance_explains_is_no_drift() -> None:
    features = {"amount": {"mean": 0.5, "std": 0.5, "bin_edges": [0.0, 1.0, 1.0], "bin_counts": [8, 6]}}
    reference = told({"features": features})
    found = {"amount": Seen(np.array([0, 400, 800, 0, 0, 0]), 800.0, 800.0)}
    (amount, *_) = judge_features(reference, found, found, {})
    assert amount.psi is not None and amount.critical is not None
    assert 0.1 < amount.psi < amount.critical
    assert amount.state == OK


def test_rank_is_psi_times_what_the_champion_makes_of_it() -> None:
    batch = week(1)
    scores = np.clip(batch.column("risk_score").to_numpy() + 0.06, 0, 1)
    both = replaced(dearer(batch, 1.8), "risk_score", scores)
    shifts = judged(REFERENCE, both)
    assert shifts["amount"].state == shifts["risk_score"].state == ALARM
    products = {name: (shifts[name].psi or 0) * WEIGHTS[name] for name in ("amount", "risk_score")}
    assert sorted(products, key=lambda name: -products[name]) == list(shifts)[:2] == ["risk_score", "amount"]


def test_an_export_without_bins_is_measured_by_mean_spread_and_range() -> None:
    reference = adopted()
    shifts = judged(reference, week(1))
    assert named(shifts) == set()
    amount = shifts["amount"]
    assert (amount.psi, amount.wasserstein, amount.jensen_shannon) == (None, None, None)
    assert amount.not_measured is not None
    assert "no PSI, Wasserstein or Jensen-Shannon" in amount.not_measured
    drifted = judged(reference, dearer(week(1)))
    assert named(drifted) == {"amount"}
    assert drifted["amount"].state == ALARM
    assert drifted["amount"].out_of_range is not None and drifted["amount"].out_of_range > 0
    flat = replaced(week(1), "price_comparison_time", np.full(20_000, 105))
    spread = judged(reference, flat)["price_comparison_time"]
    assert spread.state == WARNING, "the mean stands, the spread is gone"
    assert spread.variance_ratio == pytest.approx(0)


def test_an_export_that_tells_of_some_features_says_of_which_not() -> None:
    reference = told({"features": {"amount": {"mean": 170.0, "std": 140.0, "min": 5.0, "max": 3_000.0}}})
    shifts = judged(reference, week(1))
    assert len(shifts) == 36
    assert shifts["risk_score"].state is None
    assert shifts["risk_score"].not_measured == "the export says nothing of it, so it cannot be measured"
    assert shifts["amount"].state is not None


def scores_of(shares: list[int]) -> np.ndarray:
    return np.array([0, *shares, 0, 0, 0])


def test_scores_are_judged_by_their_deciles_in_training() -> None:
    even, skewed = scores_of([500] * 10), scores_of([900] * 5 + [100] * 5)
    found = judge_scores(
        REFERENCE, ["ridge", "logistic", "newer"], {"ridge": even, "logistic": skewed}, {"ridge": even}
    )
    ridge, logistic, newer = found
    assert (ridge.state, ridge.window_state) == (OK, OK)
    assert (logistic.state, logistic.window_state) == (OK, ALARM), "the window before had no scores"
    assert newer.state is None
    assert newer.not_measured is not None and "no score bins" in newer.not_measured
    (gone,) = judge_scores(REFERENCE, ["ridge"], {}, {})
    assert gone.not_measured == "no score of it is stored in the window"


def test_missing_scores_are_a_cell_of_their_own() -> None:
    cells = scores_of([450] * 10)
    cells[-2] = 500
    (ridge,) = judge_scores(REFERENCE, ["ridge"], {"ridge": cells}, {"ridge": cells})
    assert ridge.missing == pytest.approx(0.1)
    assert ridge.state == ALARM


@pytest.mark.parametrize(
    ("flagged", "state"),
    [(640, OK), (700, OK), (900, WARNING), (1_500, ALARM), (480, WARNING), (200, ALARM), (0, ALARM)],
)
def test_flags_are_judged_by_how_many_times_their_share_is_another(flagged: int, state: int) -> None:
    base = Share(2507, 39046)
    now = {"rules": Share(flagged, 10_000)}
    (found,) = judge_flags(now, now, {"rules": (base, "training")})
    assert found.state == state
    assert (found.low, found.high) == difference_of_shares(now["rules"], base, ALPHA)
    (once,) = judge_flags(now, {"rules": Share(640, 10_000)}, {"rules": (base, "training")})
    assert once.state == OK and once.window_state == state


def test_flags_without_a_base_or_with_few_rows_are_not_judged() -> None:
    (unknown,) = judge_flags({"ridge": Share(5, 5_000)}, {}, {})
    assert unknown.state is None
    assert unknown.not_measured is not None and "not known" in unknown.not_measured
    few = {"ridge": Share(500, 900)}
    (early,) = judge_flags(few, few, {"ridge": (Share(60, 1_000), "training")})
    assert early.state is None
    assert early.not_measured is not None and early.not_measured.startswith("too few")


def test_defaults_of_a_vintage_against_its_scores() -> None:
    found = vintage("2026-06-01", "ridge", 2_000, 120, 100.0)
    low, high = poisson_interval(120, ALPHA)
    assert (found.ratio, found.low, found.high) == (1.2, low / 100, high / 100)
    assert found.low < 1.2 < found.high


def test_windows_add_up() -> None:
    one, two = seen(REFERENCE, week(1, rows=2_000)), seen(REFERENCE, week(2, rows=3_000))
    both = {name: one[name] + two[name] for name in one}
    assert both["amount"].rows == 5_000
    assert both["amount"].mean == pytest.approx((2 * one["amount"].mean + 3 * two["amount"].mean) / 5)
    numbers = np.concatenate(
        [week(each, rows=rows).column("amount").to_numpy() for each, rows in ((1, 2_000), (2, 3_000))]
    )
    assert both["amount"].variance == pytest.approx(numbers.var())


def test_all_that_is_muted_is_shown_with_its_reason_and_state_ok() -> None:
    shift = judged(REFERENCE, week(4, date(2026, 12, 7)))["is_holiday_season"]
    assert shift.state == OK
    assert replace(shift, muted=None).psi == shift.psi and (shift.psi or 0) > 1
