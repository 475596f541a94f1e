"""The transactions that decide between models: those that exactly one of them flags, down to one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from clickhouse_connect.driver.client import Client

from consumer.champion.dossier import snapshot_of
from consumer.errors import Fatal
from consumer.services.clickhouse import errors_named
from consumer.views.evaluated import Document, evaluated_rows

_ALONE = """
SELECT row_order, event_time_ms, amount, defaulted, {score} AS score, {score} - {{threshold:Float64}} AS distance
FROM ({rows}) WHERE {alone}
ORDER BY distance DESC, row_order LIMIT {{most:UInt32}}
"""
_NAMES = """
SELECT
  cityHash64(transaction_id) AS row_order, transaction_id, business_risk_flag, business_risk_score, reason_codes,
  installment_count
FROM shadow_scores FINAL
WHERE artifact_version = {artifact:String} AND rule_set_version = {rules:String}
  AND feature_spec_version = {features:String} AND cityHash64(transaction_id) IN {orders:Array(UInt64)}
"""
_OUTCOMES = """
SELECT label, version, defaulted, days_to_resolution, loss_amount, observed_at, source FROM outcomes FINAL
WHERE transaction_id = {id:String} AND observed_at <= {as_of:DateTime64(3)}
ORDER BY label, version, observed_at
"""

_IS_STORED = "SELECT count() > 0 FROM shadow_scores WHERE transaction_id = {id:String}"


@dataclass(frozen=True)
class Alone:
    """A transaction that one model flags and no other does, at the rules' share."""

    transaction_id: str
    event_time: datetime
    amount: float
    installments: int
    score: float
    distance: float
    """above the model's threshold"""
    rules_flag: str
    rules_score: float
    reason_codes: list[str]
    """of the rules"""
    defaulted: bool
    """by the evaluation's label, as known on its day"""


@dataclass(frozen=True)
class KnownOutcome:
    """One version of one label's outcome."""

    label: str
    version: int
    defaulted: bool
    days_to_resolution: int | None
    loss_amount: float | None
    observed_at: datetime
    source: str


def flagged_alone(client: Client, told: Document, model: str, most: int) -> list[Alone]:
    """Those that only `model` flags, the farthest above its threshold first; the thresholds are the evaluation's own.

    Raises ClickHouseUnavailable or Fatal.
    """
    rows = evaluated_rows(told)
    thresholds = {name: told["evaluation"]["scorers"][name]["threshold"] for name in rows.score_of}
    if model not in thresholds:
        raise Fatal(f"{model} is not in this evaluation, which has {', '.join(thresholds) or 'no model'}")
    if thresholds[model] is None:
        return []
    flags = {name: _flags(rows.score_of[name], at, thresholds[name]) for at, name in enumerate(rows.score_of)}
    query = _ALONE.format(
        rows=rows.sql,
        score=rows.score_of[model],
        alone=" AND ".join(flag if name == model else f"NOT {flag}" for name, flag in flags.items()),
    )
    asked = rows.parameters | {"threshold": thresholds[model]["score"], "most": most}
    for at, threshold in enumerate(thresholds.values()):
        if threshold:
            asked |= {f"flag_score_{at}": threshold["score"], f"flag_order_{at}": threshold["order"]}
    with errors_named():
        found = client.query(query, asked).result_rows
        named = snapshot_of(dict(told)).parameters() | {"orders": [order for order, *_ in found]}
        names = {row[0]: row[1:] for row in client.query(_NAMES, named).result_rows} if found else {}
    return [
        Alone(
            transaction_id=names[order][0],
            event_time=datetime.fromtimestamp(at / 1000, UTC),
            amount=amount,
            installments=names[order][4],
            score=score,
            distance=distance,
            rules_flag=names[order][1],
            rules_score=names[order][2],
            reason_codes=list(names[order][3]),
            defaulted=bool(defaulted),
        )
        for order, at, amount, defaulted, score, distance in found
        if order in names
    ]


def is_stored(client: Client, transaction_id: str) -> bool:
    """Whether any score of a transaction is. Raises ClickHouseUnavailable or Fatal."""
    with errors_named():
        return bool(client.query(_IS_STORED, {"id": transaction_id}).result_rows[0][0])


def outcomes_of(client: Client, transaction_id: str, as_of: datetime) -> list[KnownOutcome]:
    """Every version of every label that was observed by then. Raises ClickHouseUnavailable or Fatal."""
    with errors_named():
        found: Any = client.query(_OUTCOMES, {"id": transaction_id, "as_of": as_of}).result_rows
    return [KnownOutcome(*row) for row in found]


def _flags(score: str, at: int, threshold: dict[str, Any] | None) -> str:
    """Whether a row stands where the threshold does, or higher (`evaluation.bands.Threshold`)."""
    if threshold is None:
        return "false"
    return (
        f"({score} > {{flag_score_{at}:Float64}} OR ({score} = {{flag_score_{at}:Float64}} AND row_order <= "
        f"{{flag_order_{at}:UInt64}}))"
    )
