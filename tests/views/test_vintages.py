"""Weeks of origination counted by ClickHouse, against an evaluation of the same rows and against the simulation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from math import fsum

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from clickhouse_connect.driver.client import Client
from harness import fresh_settings
from history import BEGAN, store_outcomes, transactions

from consumer.champion.dossier import document
from consumer.champion.evaluate import evaluate_scope, read_terms
from consumer.champion.rows import APPROVED
from consumer.champion.scope import Scope, take_snapshot
from consumer.contracts.horizons import FULL_TERM, Horizons
from consumer.errors import NothingToEvaluate
from consumer.scoring.controller import ShadowModeController
from consumer.services import clickhouse
from consumer.settings import Settings
from consumer.stack.local import LocalStack
from consumer.system.bench.history import store_scores
from consumer.views.vintages import vintages, vintages_and_courses

COUNT, WEEKS = 12_000, 6
FIRST = datetime.combine(BEGAN, datetime.min.time(), UTC)
"""A Monday, so that weeks of the evaluation and ISO weeks are the same."""
WEEK, GRACE = timedelta(weeks=1), timedelta(weeks=1)
MATURE = FIRST + WEEKS * WEEK + 4 * WEEK + GRACE
"""When all weeks are old enough for d28."""


@dataclass(frozen=True)
class History:
    settings: Settings
    client: Client
    horizons: Horizons
    approved: pa.RecordBatch
    """What became of every approved transaction."""

    @property
    def week(self) -> npt.NDArray[np.int64]:
        since = self.approved.column("transaction_timestamp").to_numpy() // 1000 - int(FIRST.timestamp())
        return since // int(WEEK.total_seconds())  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def history(
    stack: LocalStack, controller: ShadowModeController, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[History]:
    with fresh_settings(stack, tmp_path_factory.mktemp("vintages")) as settings:
        events = transactions(COUNT, 7 * WEEKS, seed=3)
        horizons = Horizons.load(settings.horizons_file)
        with clickhouse.connect(settings) as client:
            store_scores(client, settings, controller, events)
            store_outcomes(client, events, horizons)
            yield History(settings, client, horizons, events.filter(events.column("will_default").is_valid()))


def test_mature_weeks_are_those_of_an_evaluation(history: History) -> None:
    found = vintages(history.client, history.horizons["d28"], MATURE, "v1")
    told = document(evaluate_scope(history.settings, Scope(MATURE, "v1"), read_terms(history.settings, "v1")))
    assert [each.week for each in found] == [f"2026-W{number}" for number in range(23, 29)]
    assert all(each.mature for each in found)
    for ours, theirs in zip(found, told["evaluation"]["vintages"], strict=True):
        assert ours.week == theirs["week"]
        assert ours.approved == ours.old_enough == theirs["approved"]
        assert asdict(ours.observed) == pytest.approx(theirs["observed"], rel=1e-12)
    assert sum(each.transactions for each in found) == COUNT
    assert sum(each.observed.rows for each in found) / history.approved.num_rows > 0.95


def test_young_weeks_are_marked_and_count_only_what_is_old_enough(history: History) -> None:
    found = vintages(history.client, history.horizons["d28"], FIRST + 3.5 * WEEK + 4 * WEEK + GRACE, "v1")
    assert [each.mature for each in found] == [True] * 3 + [False] * 3
    part, later = found[3], found[4]
    assert 0 < part.old_enough < part.approved
    assert part.observed.rows <= part.old_enough
    assert (later.old_enough, later.observed.rows, later.observed.rate, later.coverage) == (0, 0, None, None)
    assert later.approved > 0


def test_weeks_since_follow_the_simulation_week_by_week(history: History) -> None:
    missed = history.approved.column("days_to_first_missed_payment").fill_null(10**6).to_numpy()
    _, found = vintages_and_courses(history.client, history.horizons, FULL_TERM, FIRST + 80 * WEEK, "v1")
    longest = max(history.approved.column("installment_count").to_pylist())
    for number, course in enumerate(found):
        assert [each.weeks_since for each in course.cells] == list(range(1, 2 * longest + 1))
        assert all(each.mature for each in course.cells)
        ours = missed[history.week == number]
        for cell in course.cells:
            seen = (cell.defaulted.rows, cell.defaulted.defaults)
            assert seen == (len(ours), np.count_nonzero(ours <= 7 * cell.weeks_since))
    labels = [each.label for each in found[0].cells]
    assert labels[:6] == ["first_payment"] * 2 + ["d28"] * 2 + ["d42"] * 2
    assert set(labels[6:]) == {FULL_TERM}


def test_shorter_labels_tell_of_weeks_that_are_too_young_for_the_label(history: History) -> None:
    weeks, found = vintages_and_courses(history.client, history.horizons, "d42", MATURE, "v1")
    assert weeks == vintages(history.client, history.horizons["d42"], MATURE, "v1")
    assert [(each.label, each.mature) for each in found[-1].cells] == [
        *[("first_payment", True)] * 2,
        *[("d28", True)] * 2,
        *[("d42", False)] * 2,
    ]
    when_due = vintages(history.client, history.horizons["d28"], MATURE, "v1")
    for course, vintage in zip(found, when_due, strict=True):
        assert asdict(course.cells[3].defaulted) == pytest.approx(asdict(vintage.observed), rel=1e-12)
        assert course.cells[3].coverage == vintage.coverage


def test_weighted_rates_have_one_value_whatever_order_threads_meet_in(history: History) -> None:
    """Else an answer that has not changed would have another tag."""
    client, names = history.client, [row[0] for row in history.client.query("DESCRIBE shadow_scores").result_rows]
    changed = {
        "artifact_version": "'weighted'",
        "prediction_id": "concat(prediction_id, 'w')",
        "approval_propensity": "0.1 + 0.9 * (cityHash64(transaction_id) % 1000003) / 1000003",
    }
    columns = ", ".join(changed.get(name, f"`{name}`") for name in names)
    client.command(f"INSERT INTO shadow_scores (`{'`, `'.join(names)}`) SELECT {columns} FROM shadow_scores FINAL")
    rows = client.query(
        "SELECT toISOWeek(event_time), 1 / approval_propensity, defaulted FROM shadow_scores AS s FINAL "
        "INNER JOIN (SELECT transaction_id, defaulted FROM outcomes FINAL WHERE label = 'd28' "
        "AND observed_at <= {at:DateTime64(3)}) AS known "
        f"USING (transaction_id) WHERE artifact_version = 'weighted' AND {APPROVED}",
        {"at": MATURE},
    ).result_rows
    found = vintages(client, history.horizons["d28"], MATURE, "weighted")
    for each in found:
        number = int(each.week[-2:])
        known = fsum(weight for week, weight, _ in rows if week == number)
        bad = fsum(weight for week, weight, defaulted in rows if week == number and defaulted)
        assert each.observed.rate == bad / known


def test_one_plan_without_an_end_stops_no_table(history: History) -> None:
    """A number of instalments has no bound but that of 32 bits."""
    client, horizons = history.client, history.horizons
    client.command(
        "INSERT INTO shadow_scores (prediction_id, transaction_id, event_time, artifact_version, installment_count, "
        "business_decision) VALUES ('one', 'one', {at:DateTime64(3)}, 'long', 4, 'approve'), "
        "('two', 'two', {at:DateTime64(3)}, 'long', 2147483647, 'approve')",
        {"at": FIRST},
    )
    (week,) = vintages(client, horizons[FULL_TERM], MATURE + timedelta(weeks=20), "long")
    assert (week.approved, week.old_enough, week.mature) == (2, 1, False)
    _, (course,) = vintages_and_courses(client, horizons, FULL_TERM, MATURE, "long")
    assert len(course.cells) == 520
    asked = take_snapshot(client, Scope(MATURE, "long"), horizons[FULL_TERM])
    assert asked.scope.as_of - asked.wait < FIRST


def test_nothing_scored_is_told(history: History) -> None:
    with pytest.raises(NothingToEvaluate, match="no scores of artifact version v9"):
        vintages(history.client, history.horizons["d28"], MATURE, "v9")
