"""Predictions with what became of their transactions, as known on a day: of one transaction, or page by page.

Both ask `shadow_predictions_as_of` (`deploy/clickhouse/0017_predictions_merged.sql`) for named transactions, which it
finds by the order of both tables. A page first finds its places by time alone, without reading anything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from clickhouse_connect.driver.client import Client

from consumer.services.clickhouse import errors_named

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = -(2**62), 2**62
_COLUMNS = (
    "transaction_id",
    "prediction_id",
    "timestamp",
    "scored_at",
    "amount",
    "installment_count",
    "business_decision",
    "business_risk_flag",
    "business_risk_score",
    "reason_codes",
    "rule_set_version",
    "consensus",
    "champion",
    "champion_score",
    "mode",
    "decision",
    "decided_by",
    "advisory",
    "checkout_decision",
    "actual_default",
    "days_to_resolution",
    "opportunity_cost",
    "artifact_version",
    "feature_spec_version",
    "source_topic",
    "source_partition",
    "source_offset",
)
_MODEL_COLUMNS = ("names", "versions", "roles", "scores", "score_kinds", "flags", "errors")
_SELECT = f"""
SELECT
  toUnixTimestamp64Milli(timestamp), shadow_partition, shadow_offset,
  {", ".join(_COLUMNS)}, {", ".join(f"model_{each}" for each in _MODEL_COLUMNS)}
FROM shadow_predictions_as_of(as_of = {{as_of:DateTime64(3)}})
"""  # noqa: S608
_OF_ONE = _SELECT + "WHERE transaction_id = {id:String} ORDER BY scored_at, prediction_id"
_OF_MANY = _SELECT + "WHERE transaction_id IN {ids:Array(String)}"
_PLACES = """
SELECT toUnixTimestamp64Milli(event_time), shadow_partition, shadow_offset, transaction_id
FROM shadow_scores
WHERE event_time >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
  AND event_time < fromUnixTimestamp64Milli({until:Int64}, 'UTC')
  AND (toUnixTimestamp64Milli(event_time), shadow_partition, shadow_offset)
      > ({since:Int64}, {partition:Int64}, {offset:Int64})
  AND ({artifact:String} = '' OR artifact_version = {artifact:String})
ORDER BY event_time, shadow_partition, shadow_offset LIMIT {most:UInt32}
"""
_BY_KEY = {"optimize_move_to_prewhere_if_final": 1}
"""Only rows of the ids are read whole: that condition is on the key, by which FINAL keeps rows."""


@dataclass(frozen=True)
class ModelScore:
    """What one model said."""

    version: str
    role: str
    score: float | None
    score_kind: str
    flag: bool | None
    error: str | None
    """why there is no score"""


@dataclass(frozen=True)
class Prediction:
    """One row of `shadow_predictions_as_of`; docs/outcomes.md defines what is known of the outcome."""

    transaction_id: str
    prediction_id: str
    timestamp: datetime
    scored_at: datetime
    amount: float
    installment_count: int
    business_decision: str
    business_risk_flag: str
    business_risk_score: float
    reason_codes: list[str]
    rule_set_version: str
    consensus: float | None
    champion: str
    champion_score: float | None
    mode: str
    decision: str
    decided_by: str
    advisory: bool
    checkout_decision: str | None
    actual_default: bool | None
    days_to_resolution: int | None
    opportunity_cost: float | None
    artifact_version: str
    feature_spec_version: str
    source_topic: str
    source_partition: int
    source_offset: int
    models: dict[str, ModelScore]


class Place(NamedTuple):
    """Where a page ended: a time in milliseconds since 1970, and the place in the topic of shadow events."""

    at: int
    partition: int
    offset: int


@dataclass(frozen=True)
class Page:
    """Some predictions in order of their transactions' times."""

    predictions: list[Prediction]
    end: Place | None
    """from where the next one goes on; None when there is nothing more"""


def of_transaction(client: Client, transaction_id: str, as_of: datetime) -> list[Prediction]:
    """All predictions of a transaction, one for each model set and rule set, the oldest first; none when it was never
    scored. Raises ClickHouseUnavailable or Fatal.
    """
    return [each for _, each in _read(client, _OF_ONE, {"id": transaction_id, "as_of": as_of})]


def page(
    client: Client,
    as_of: datetime,
    since: datetime | None = None,
    until: datetime | None = None,
    after: Place | None = None,
    most: int = 100,
    artifact_version: str | None = None,
) -> Page:
    """The first predictions of transactions in [since, until), or those behind `after`, `most` places at a time.

    A row that was written again is left out where it was, and found where it is: also when that lies within this page,
    and happened while it was read. Raises ClickHouseUnavailable or Fatal.
    """
    begins = after or Place(_milliseconds(since) if since else 0, _FIRST, _FIRST)
    asked = {
        "since": begins.at,
        "partition": begins.partition,
        "offset": begins.offset,
        "until": _milliseconds(until) if until else _milliseconds(_EPOCH + timedelta(days=120_000)),
        "artifact": artifact_version or "",
        "most": most,
    }
    with errors_named():
        places: Sequence[Any] = client.query(_PLACES, asked).result_rows
    ends = [Place(*row[:3]) for row in places]
    if not ends:
        return Page([], None)
    ids = sorted({row[3] for row in places})
    found = dict(_read(client, _OF_MANY, {"ids": ids, "as_of": as_of}))
    here = sorted(
        place
        for place, each in found.items()
        if begins < place <= ends[-1] and artifact_version in (None, each.artifact_version)
    )
    return Page([found[place] for place in here], ends[-1] if len(ends) == most else None)


def _read(client: Client, statement: str, asked: dict[str, Any]) -> list[tuple[Place, Prediction]]:
    with errors_named():
        rows: Sequence[Any] = client.query(statement, asked, settings=_BY_KEY).result_rows
    return [(Place(*row[:3]), _prediction(row[3:])) for row in rows]


def _prediction(row: Sequence[Any]) -> Prediction:
    count = len(_COLUMNS)
    facts = dict(zip(_COLUMNS, row[:count], strict=True))
    facts["timestamp"], facts["scored_at"] = _utc(facts["timestamp"]), _utc(facts["scored_at"])
    names, *columns = row[count:]
    models = {name: ModelScore(*rest) for name, *rest in zip(names, *columns, strict=True)}
    return Prediction(**facts, models=models)


def _utc(at: datetime) -> datetime:
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _milliseconds(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(milliseconds=1)
