"""A season's plan decides all of it: its checkouts, when their outcomes are known, and what is hidden in it."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from consumer.clock import utc_now
from consumer.contracts.horizons import Horizons
from consumer.errors import ConfigurationError
from consumer.evaluation.sample import RULES
from consumer.evaluation.verdict import BETTER, CONTINUE, EQUIVALENT, WORSE, Verdict
from consumer.research.season import (
    DRIFT_FROM_WEEK,
    DRIFTING,
    TAUGHT,
    TRAFFIC_WEEKS,
    Plan,
    Scenario,
    after_the_season,
    missed,
    of_week,
    outcomes,
    traffic,
)
from consumer.research.simulate import PLANTED_PROVIDER
from consumer.settings import Settings

CLONES = Plan("clones", events_a_week=2_000)
HORIZONS = Horizons.load(Settings().horizons_file)
CHAMPION = "ridge"


@pytest.fixture(scope="module")
def checkouts() -> pa.RecordBatch:
    return traffic(CLONES)


def test_the_same_plan_is_the_same_season_and_another_seed_another(checkouts: pa.RecordBatch) -> None:
    assert traffic(CLONES).equals(checkouts)
    assert outcomes(CLONES, checkouts, HORIZONS).equals(outcomes(CLONES, checkouts, HORIZONS))
    assert not traffic(replace(CLONES, seed=7)).equals(checkouts)


def test_weeks_hold_all_checkouts_of_six_weeks_each_in_its_own(checkouts: pa.RecordBatch) -> None:
    weeks = [of_week(checkouts, "transaction_timestamp", CLONES, week) for week in range(1, TRAFFIC_WEEKS + 1)]
    assert pa.Table.from_batches(weeks).combine_chunks().to_batches()[0].equals(checkouts)
    assert min(each.num_rows for each in weeks) > 1_500
    for week, each in enumerate(weeks, 1):
        times = each.column("transaction_timestamp").to_numpy() / 1000
        assert CLONES.week_start(week).timestamp() <= times.min() <= times.max() < CLONES.week_end(week).timestamp()


def test_an_outcome_stands_in_the_week_in_which_it_is_known(checkouts: pa.RecordBatch) -> None:
    known = outcomes(CLONES, checkouts, HORIZONS)
    weeks = CLONES.weeks(HORIZONS, "d28")
    for week in range(1, weeks + 1):
        observed = of_week(known, "observed_at", CLONES, week).column("observed_at").to_numpy() / 1000
        assert (observed >= CLONES.week_start(week).timestamp()).all()
        assert (observed < CLONES.week_end(week).timestamp()).all()
    assert of_week(known, "observed_at", CLONES, 2).num_rows == 0, "the first label is due after two weeks"
    assert of_week(known, "observed_at", CLONES, 3).num_rows > 0


def test_nobody_learns_what_would_have_become_of_a_declined_checkout(checkouts: pa.RecordBatch) -> None:
    declined = checkouts.filter(pc.equal(checkouts.column("business_decision"), "decline")).column("transaction_id")
    known = outcomes(CLONES, checkouts, HORIZONS).column("transaction_id")
    assert len(declined) > 0
    assert not pc.any(pc.is_in(declined, value_set=known.unique())).as_py()


@pytest.mark.parametrize(("label", "weeks"), [("first_payment", 9), ("d28", 11), ("d42", 13), ("full_term", 31)])
def test_a_season_lasts_until_the_last_checkout_is_old_enough(label: str, weeks: int) -> None:
    assert CLONES.weeks(HORIZONS, label) == weeks
    last = int(CLONES.week_end(TRAFFIC_WEEKS).timestamp() * 1000) - 1
    ends = [CLONES.week_end(week) for week in (weeks, weeks - 1)]
    at_the_end, before = (HORIZONS.mature(label, [last], [12], end) for end in ends)
    assert at_the_end.all()
    assert not before.any()


def test_the_planted_effect_changes_outcomes_of_one_provider_and_nothing_else(checkouts: pa.RecordBatch) -> None:
    planted = traffic(replace(CLONES, scenario="better"))
    labels = ["will_default", "days_to_first_missed_payment"]
    assert planted.drop_columns(labels).equals(checkouts.drop_columns(labels))
    through = pc.equal(planted.column("payment_provider"), PLANTED_PROVIDER)
    others = pc.invert(through)
    for label in labels:
        assert planted.column(label).filter(others).equals(checkouts.column(label).filter(others))
    with_it, without = (pc.mean(each.column("will_default").filter(through)).as_py() for each in (planted, checkouts))
    assert with_it > 2.5 * without


def test_the_drift_moves_one_feature_from_one_week_on_and_nothing_else(checkouts: pa.RecordBatch) -> None:
    drifted = traffic(replace(CLONES, scenario="drift"))
    assert drifted.drop_columns([DRIFTING]).equals(checkouts.drop_columns([DRIFTING]))
    since = CLONES.week_start(DRIFT_FROM_WEEK).timestamp() * 1000
    first = int(np.searchsorted(checkouts.column("transaction_timestamp").to_numpy(), since))
    before, after = (each.column(DRIFTING).to_numpy() for each in (checkouts, drifted))
    assert 0 < first < len(before)
    assert (before[:first] == after[:first]).all()
    assert after[first:].mean() < 0.5 * before[first:].mean()


def test_checkouts_after_the_season_are_new_ones_of_the_day_it_is_over(checkouts: pa.RecordBatch) -> None:
    once, again = (after_the_season(CLONES, 11, 50, turn) for turn in (0, 1))
    ids = [set(each.column("transaction_id").to_pylist()) for each in (once, again, checkouts)]
    assert not ids[0] & ids[1] | ids[0] & ids[2] | ids[1] & ids[2]
    times = once.column("transaction_timestamp").to_numpy() / 1000
    assert times.min() >= CLONES.week_end(11).timestamp()
    assert times.max() < CLONES.week_end(11).timestamp() + 86_400


def test_a_season_that_is_not_over_or_too_old_is_refused_with_the_days_that_it_may_start_on() -> None:
    CLONES.require_past(11, 1825)
    today = utc_now().date()
    for start in (today - timedelta(weeks=10), today - timedelta(days=1830)):
        with pytest.raises(ConfigurationError, match=rf"starts on {start} lasts 11 weeks.* --start between") as refused:
            replace(CLONES, start=start).require_past(11, 1825)
        days = re.findall(r"\d{4}-\d\d-\d\d", str(refused.value))
        for good in days[-2:]:
            replace(CLONES, start=date.fromisoformat(good)).require_past(11, 1825)


def verdicts(of_champion: str, of_rules: str, **others: str) -> list[Verdict]:
    """Of every model against the champion and the rules; `others` are verdicts of single models against both."""

    def verdict(model: str, against: str, usual: str) -> Verdict:
        return Verdict(model, against, others.get(model, usual), "", None, None, None, None)

    challengers = ("logistic", "elastic", "ensemble")
    return [
        *(verdict(model, CHAMPION, of_champion) for model in challengers),
        *(verdict(model, RULES, of_rules) for model in (CHAMPION, *challengers)),
    ]


@pytest.mark.parametrize(
    ("scenario", "found", "promote", "moved", "faults"),
    [
        ("better", verdicts(EQUIVALENT, EQUIVALENT, elastic=BETTER), TAUGHT, [], []),
        ("better", verdicts(EQUIVALENT, CONTINUE, elastic=CONTINUE), None, [], ["is nobody", "not found better"]),
        ("better", verdicts(BETTER, BETTER), "logistic", [], ["recommended is logistic, and it should be elastic"]),
        ("better", verdicts(EQUIVALENT, EQUIVALENT, elastic=BETTER), TAUGHT, ["amount"], ["drift was found in amount"]),
        ("clones", verdicts(EQUIVALENT, WORSE), None, [], []),
        ("clones", verdicts(EQUIVALENT, WORSE, elastic=CONTINUE), None, [], ["near clones: elastic"]),
        ("clones", [], None, [], ["near clones: all"]),
        ("clones", verdicts(EQUIVALENT, BETTER), "ridge", [], ["recommended is ridge, and it should be nobody"]),
        ("drift", verdicts(EQUIVALENT, WORSE), None, [DRIFTING], []),
        ("drift", verdicts(EQUIVALENT, WORSE), None, [], [f"found in nothing, and it is in {DRIFTING}"]),
        ("drift", verdicts(EQUIVALENT, WORSE), None, [DRIFTING, "amount"], ["found in amount, price"]),
    ],
)  # fmt: skip
def test_what_was_hidden_and_not_found_is_told(
    scenario: Scenario, found: list[Verdict], promote: str | None, moved: list[str], faults: list[str]
) -> None:
    told = missed(scenario, CHAMPION, found, promote, moved)
    assert len(told) == len(faults)
    for said, wanted in zip(told, faults, strict=True):
        assert wanted in said
