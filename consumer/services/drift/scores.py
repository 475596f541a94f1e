"""Stored scores, by day and by training's deciles; flags; and scores against outcomes: counted by ClickHouse in one
pass, so that no score leaves it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

import numpy as np
from clickhouse_connect.driver.client import Client

from consumer.contracts.horizons import Horizon
from consumer.evaluation.drift.judge import Vintage, vintage
from consumer.evaluation.drift.reference import RULES, Bins, Counts, Share
from consumer.services.clickhouse import errors_named
from consumer.services.rows import SCORES

_MISSING = -1
_BY_DAY = f"""
SELECT day, name, if(score IS NULL, {_MISSING}, arrayCount(cut -> assumeNotNull(score) >= cut, cuts)) AS cell,
    count(), countIf(flag IS NOT NULL), countIf(flag)
FROM (
    SELECT toDate(event_time) AS day, name, score, flag, [[], CUTS][1 + indexOf({{names:Array(String)}}, name)] AS cuts
    FROM {SCORES.name} FINAL
    ARRAY JOIN
        arrayPushBack(models.name, {{rules:String}}) AS name,
        arrayPushBack(models.score, NULL) AS score,
        arrayPushBack(models.flag, business_risk_flag = 'high') AS flag
    WHERE event_time >= {{first:Date}} AND event_time < {{after:Date}} AND artifact_version = {{version:String}}
)
GROUP BY day, name, cell
"""  # noqa: S608
_PARTS = 2**52
"""Scores are added up as whole numbers of such parts: their sum is the same in whatever order threads meet."""
_VINTAGES = f"""
SELECT toMonday(event_time) AS week, name, count(), countIf(defaulted),
    toFloat64(sum(toInt128(assumeNotNull(score) * {_PARTS}))) / {_PARTS}
FROM (
    SELECT event_time, models.name, models.score, models.score_kind, known.defaulted AS defaulted
    FROM (
        SELECT transaction_id, event_time, models.name, models.score, models.score_kind FROM {SCORES.name} FINAL
        WHERE event_time >= {{first:Date}} AND artifact_version = {{version:String}}
        AND event_time + toIntervalDay({{days:UInt16}} + {{days_an_instalment:UInt16}} * installment_count)
            < {{as_of:Date}}
    ) AS scored
    INNER JOIN (
        SELECT transaction_id, defaulted FROM outcomes
        WHERE label = {{label:String}} AND observed_at < {{as_of:Date}}
        ORDER BY transaction_id, version DESC, observed_at DESC, outcome_offset DESC LIMIT 1 BY transaction_id
    ) AS known USING transaction_id
)
ARRAY JOIN models.name AS name, models.score AS score, models.score_kind AS score_kind
WHERE score_kind = 'probability' AND score IS NOT NULL
GROUP BY week, name ORDER BY week, name
SETTINGS join_algorithm = 'full_sorting_merge,hash'
"""  # noqa: S608

_VINTAGES_BACK_DAYS = 366


@dataclass
class ScoredDay:
    """What was scored on one day."""

    cells: dict[str, Counts] = field(default_factory=dict)
    """Scores by model, counted into its bins."""
    flags: dict[str, Share] = field(default_factory=dict)
    """How many each model, and the rules, flagged, of those that it could."""


def scored_by_day(
    client: Client, version: str, bins: Mapping[str, Bins], first: date, after: date
) -> dict[date, ScoredDay]:
    """Scores and flags under an artifact version, for each day of [first, after) that has any.

    Raises ClickHouseUnavailable or Fatal.
    """
    cuts = ", ".join(f"[{', '.join(map(repr, each.cuts.tolist()))}]" for each in bins.values())
    query = _BY_DAY.replace("CUTS", cuts or "[0.0]")
    asked = {"names": list(bins), "rules": RULES, "first": first, "after": after, "version": version}
    found: dict[date, ScoredDay] = {}
    with errors_named():
        rows = client.query(query, asked).result_rows
    for day, name, cell, count, able, flagged in rows:
        scored = found.setdefault(day, ScoredDay())
        if name in bins:
            cells = scored.cells.setdefault(name, np.zeros(bins[name].cells, np.int64))
            cells[len(bins[name].edges) + 1 if cell == _MISSING else cell] += count
        if able:
            scored.flags[name] = scored.flags.get(name, Share(0, 0)) + Share(flagged, able)
    return found


def vintages(client: Client, version: str, as_of: date, horizon: Horizon) -> list[Vintage]:
    """Each week's defaults against its scores, of transactions old enough by then and known by then.

    Raises ClickHouseUnavailable or Fatal.
    """
    asked = {
        "first": as_of - timedelta(days=_VINTAGES_BACK_DAYS),
        "as_of": as_of,
        "version": version,
        "label": horizon.label,
        "days": (horizon.days or 0) + horizon.grace_days,
        "days_an_instalment": horizon.days_per_instalment or 0,
    }
    with errors_named():
        rows: Sequence[Sequence[object]] = client.query(_VINTAGES, asked).result_rows
    return [
        vintage(str(week), str(name), int(str(count)), int(str(observed)), float(str(expected)))
        for week, name, count, observed, expected in rows
        if float(str(expected)) > 0
    ]
