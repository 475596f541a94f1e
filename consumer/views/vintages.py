"""Default rates by week of origination, as known on a day: the very rows that an evaluation reads, counted by
ClickHouse, and also those of weeks that are too young to be judged, marked as such.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from clickhouse_connect.driver.client import Client

from consumer.champion.rows import APPROVED, bounded, statement
from consumer.champion.scope import Scope, Snapshot, take_snapshot
from consumer.contracts.horizons import Horizon, Horizons
from consumer.evaluation.rates import Rate, rates_of
from consumer.evaluation.sample import Floats
from consumer.evaluation.vintages import iso_week, monday
from consumer.services.clickhouse import errors_named

CONFIDENCE = 0.95

_WEEK = "intDiv(intDiv({milliseconds}, 86400000) + 3, 7)"
"""As `evaluation.vintages.weeks_of` counts them."""
_ORIGINATED = f"""
SELECT {_WEEK.format(milliseconds="toUnixTimestamp64Milli(event_time)")} AS week, count(), countIf({APPROVED})
FROM shadow_scores FINAL
WHERE artifact_version = {{artifact:String}} AND rule_set_version = {{rules:String}}
  AND feature_spec_version = {{features:String}} AND event_time < {{until:DateTime64(3)}} AND {{ends}}
GROUP BY week ORDER BY week
"""  # noqa: S608
_PARTS = 2**52
"""A weight is 1 or more, so a whole number of such parts, as is its square. Whole numbers have one sum, in whatever
order threads meet: an answer that has not changed is the same to its last digit.
"""
_WHOLE, _WHOLE_SQUARE = f"toInt256(weight * {_PARTS})", f"toInt256(weight * weight * {_PARTS})"
_MOST_WEEKS = 520
"""Ten years of a course: one plan of a million instalments must not make a million columns of it."""
_OLD_ENOUGH = f"""
SELECT
  week, defaulted_by, countIf(approved), countIf(observed),
  sumIf({_WHOLE}, observed), sumIf({_WHOLE_SQUARE}, observed)
FROM (
  SELECT
    {_WEEK.format(milliseconds="event_time_ms")} AS week,
    approved,
    approved AND seen AS observed,
    1 / propensity AS weight,
    multiIf(
      NOT (observed AND defaulted), 0,
      days_to_resolution > 0, least(intDiv(days_to_resolution + 6, 7), {{last_week:Int64}}),
      {{last_week:Int64}}
    ) AS defaulted_by
  FROM ({{rows}})
)
GROUP BY week, defaulted_by
"""  # noqa: S608

_Originated = dict[int, tuple[int, int]]
"""Transactions and approved ones by week."""


@dataclass(frozen=True)
class Vintage:
    """The transactions of one ISO week (UTC), as known on a day."""

    week: str
    """as 2026-W31"""
    begins: date
    transactions: int
    approved: int
    old_enough: int
    """approved, and the label and its grace are over: what coverage and rate are of"""
    observed: Rate
    """of those whose outcome is known"""
    coverage: float | None
    """share of the old enough whose outcome is known"""
    mature: bool
    """the whole week is old enough, also for the longest plan; else its figures will change"""


@dataclass(frozen=True)
class Cell:
    """What a week had defaulted so many weeks after its transactions, of those whose outcome is known."""

    weeks_since: int
    label: str
    """Whose outcomes it is of: the label that is due first at or after that time."""
    defaulted: Rate
    coverage: float | None
    """share of the old enough whose outcome is known"""
    mature: bool
    """the whole week is old enough for that label"""


@dataclass(frozen=True)
class Course:
    """How the defaults of one ISO week accumulate."""

    week: str
    begins: date
    approved: int
    cells: list[Cell]
    """1, 2, 3 … weeks since the transaction"""


def vintages(
    client: Client, horizon: Horizon, as_of: datetime, artifact_version: str, confidence: float = CONFIDENCE
) -> list[Vintage]:
    """All weeks, oldest first, of the artifact's newest rules and feature spec.

    Raises NothingToEvaluate when nothing is scored, ClickHouseUnavailable or Fatal.
    """
    asked = take_snapshot(client, Scope(as_of, artifact_version), horizon)
    weeks = _originated(client, asked)
    return _vintages(weeks, _Look(client, asked, list(weeks)), confidence)


def vintages_and_courses(
    client: Client,
    horizons: Horizons,
    label: str,
    as_of: datetime,
    artifact_version: str,
    confidence: float = CONFIDENCE,
) -> tuple[list[Vintage], list[Course]]:
    """The same, and the course of each week until `label` is due, of which labels due before it tell of young weeks.

    The denominator of a cell is all transactions of the week whose outcome is known, defaulted before or not. At the
    time that a label is due, a cell is the rate of `vintages` for that label. Raises as `vintages` does.
    """
    asked = take_snapshot(client, Scope(as_of, artifact_version), horizons[label])
    weeks = _originated(client, asked)
    looks = [_Look(client, replace(asked, horizon=each), list(weeks)) for each in _due_until(horizons, asked)]
    return _vintages(weeks, looks[-1], confidence), _courses(weeks, looks, confidence)


def _originated(client: Client, snapshot: Snapshot) -> _Originated:
    with errors_named():
        query = _ORIGINATED.replace("{ends}", bounded("shadow", snapshot.score_ends))
        rows: Sequence[Any] = client.query(query, snapshot.parameters()).result_rows
    return {week: (transactions, approved) for week, transactions, approved in rows}


def _vintages(weeks: _Originated, look: _Look, confidence: float) -> list[Vintage]:
    observed = look.rates(look.last_week, confidence)
    return [
        Vintage(
            week=iso_week(week),
            begins=monday(week).date(),
            transactions=transactions,
            approved=approved,
            old_enough=old_enough,
            observed=rate,
            coverage=coverage,
            mature=look.is_mature(week),
        )
        for (week, (transactions, approved)), old_enough, rate, coverage in zip(
            weeks.items(), look.approved.tolist(), observed, look.coverage, strict=True
        )
    ]


def _courses(weeks: _Originated, looks: list[_Look], confidence: float) -> list[Course]:
    columns: list[tuple[int, _Look, list[Rate], list[float | None]]] = []
    for since in range(1, looks[-1].last_week + 1):
        look = next(each for each in looks if each.last_week >= since)
        columns.append((since, look, look.rates(since, confidence), look.coverage))
    return [
        Course(
            week=iso_week(week),
            begins=monday(week).date(),
            approved=approved,
            cells=[
                Cell(since, look.label, defaulted[row], coverage[row], look.is_mature(week))
                for since, look, defaulted, coverage in columns
            ],
        )
        for row, (week, (_, approved)) in enumerate(weeks.items())
    ]


class _Look:
    """What is old enough for a label, by week and by when it defaulted."""

    def __init__(self, client: Client, snapshot: Snapshot, weeks: list[int]) -> None:
        self._snapshot, self.label = snapshot, snapshot.horizon.label
        due = -(-int(snapshot.horizon.due_days(snapshot.longest_plan)) // 7)
        self.last_week = min(due, _MOST_WEEKS)
        """Weeks after which the label is due; a default whose day is not known, or beyond it, counts there."""
        query = _OLD_ENOUGH.replace("{rows}", statement(replace(snapshot, models={})))
        with errors_named():
            found: Sequence[Any] = client.query(
                query, snapshot.parameters() | {"last_week": self.last_week}
            ).result_rows
        row_of = {week: row for row, week in enumerate(weeks)}
        shape = (len(weeks), self.last_week + 1)
        self._rows, approved = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self._weight, self._squares = np.zeros(shape, object), np.zeros(shape, object)
        for week, defaulted_by, *figures in found:
            at = row_of[week], defaulted_by
            approved[at], self._rows[at], self._weight[at], self._squares[at] = figures
        self.approved = approved.sum(1)

    @property
    def coverage(self) -> list[float | None]:
        """Of each week; None where nothing is old enough."""
        known = self._rows.sum(1).tolist()
        return [seen / old if old else None for seen, old in zip(known, self.approved.tolist(), strict=True)]

    def is_mature(self, week: int) -> bool:
        return monday(week + 1) + self._snapshot.wait <= self._snapshot.scope.as_of

    def rates(self, since: int, confidence: float) -> list[Rate]:
        """Of each week: defaulted within so many weeks. Column 0 holds what did not."""
        early = slice(1, since + 1)
        return rates_of(
            self._rows.sum(1),
            self._rows[:, early].sum(1),
            _added(self._weight),
            _added(self._weight[:, early]),
            _added(self._squares),
            confidence,
        )


def _added(parts: npt.NDArray[np.object_]) -> Floats:
    """By row, from whole numbers of parts."""
    added: Floats = (parts.sum(1) / _PARTS).astype(np.float64)
    return added


def _due_until(horizons: Horizons, asked: Snapshot) -> list[Horizon]:
    """The labels that are due before the asked one, and it, the earliest first."""

    def due(horizon: Horizon) -> int:
        return int(horizon.due_days(asked.longest_plan))

    before = [horizons[each] for each in horizons.labels if due(horizons[each]) < due(asked.horizon)]
    return [*sorted(before, key=due), asked.horizon]
