"""What was scored in the last minutes, by the time at which it was scored and not that of the checkout."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import isnan

from clickhouse_connect.driver.client import Client

from consumer.services.clickhouse import errors_named

_NEWEST = """
SELECT
  max(scored_at), argMax(champion, scored_at), argMax(mode, scored_at), argMax(artifact_version, scored_at), count()
FROM shadow_scores
"""
_SERIES = """
SELECT
  intDiv(toUnixTimestamp64Milli(scored_at), {step_ms:Int64}) AS step,
  count(), countIf(coalesce(decision, business_decision) = 'decline'), countIf(business_risk_flag = 'high')
FROM shadow_scores WHERE scored_at >= {since:DateTime64(3)} AND scored_at < {until:DateTime64(3)}
GROUP BY step ORDER BY step
"""
_SCORES = """
SELECT
  name, count(), countIf(score IS NULL), countIf(flag), avg(score),
  stddevSamp(score) / sqrt(countIf(score IS NOT NULL)),
  quantileExactIf(0.1)(assumeNotNull(score), score IS NOT NULL),
  quantileExactIf(0.5)(assumeNotNull(score), score IS NOT NULL),
  quantileExactIf(0.9)(assumeNotNull(score), score IS NOT NULL)
FROM shadow_scores ARRAY JOIN models.name AS name, models.score AS score, models.flag AS flag
WHERE scored_at >= {since:DateTime64(3)} AND scored_at < {until:DateTime64(3)}
GROUP BY name ORDER BY name
"""


@dataclass(frozen=True)
class Newest:
    """The shadow event that was scored last, and what it counted by."""

    scored_at: datetime
    champion: str
    mode: str
    artifact_version: str
    rows: int
    """of the table, those not yet merged with a later row of the same prediction among them"""


@dataclass(frozen=True)
class Step:
    """What was scored from `begins` on."""

    begins: datetime
    events: int
    declined: int
    """by the decision that stood"""
    flagged: int
    """high by the rules"""


@dataclass(frozen=True)
class ModelScores:
    """One model's scores of the period; None where it gave none."""

    model: str
    events: int
    failed: int
    flagged: int
    """at the threshold it was exported with"""
    mean: float | None
    standard_error: float | None
    """of the mean"""
    tenth: float | None
    median: float | None
    ninetieth: float | None


@dataclass(frozen=True)
class Live:
    since: datetime
    until: datetime
    step_seconds: int
    steps: list[Step]
    """those with events, oldest first"""
    scores: list[ModelScores]

    @property
    def events(self) -> int:
        return sum(each.events for each in self.steps)

    @property
    def declined(self) -> int:
        return sum(each.declined for each in self.steps)

    @property
    def flagged(self) -> int:
        return sum(each.flagged for each in self.steps)

    def rate(self, seconds: int) -> float:
        """Events a second over the last so many whole seconds of the period."""
        from_then_on = self.until - timedelta(seconds=seconds)
        return sum(each.events for each in self.steps if each.begins >= from_then_on) / seconds


def newest(client: Client) -> Newest | None:
    """None while nothing is stored. Raises ClickHouseUnavailable or Fatal."""
    with errors_named():
        ((at, champion, mode, version, rows),) = client.query(_NEWEST).result_rows
    return Newest(_aware(at), champion, mode, version, rows) if rows else None


def live(client: Client, until: datetime, seconds: int, step_seconds: int) -> Live:
    """The `seconds` before `until`, both moved to whole steps. A record that the sink read again counts twice until its
    rows are merged.

    Raises ClickHouseUnavailable or Fatal.
    """
    until = datetime.fromtimestamp(int(until.timestamp()) // step_seconds * step_seconds, UTC)
    asked = {"since": until - timedelta(seconds=seconds), "until": until}
    with errors_named():
        steps = client.query(_SERIES, asked | {"step_ms": step_seconds * 1000}).result_rows
        scores = client.query(_SCORES, asked).result_rows
    return Live(
        asked["since"],
        until,
        step_seconds,
        [Step(datetime.fromtimestamp(step * step_seconds, UTC), *counts) for step, *counts in steps],
        [
            ModelScores(
                name, events, failed, flagged, *(None if each is None or isnan(each) else each for each in figures)
            )
            for name, events, failed, flagged, *figures in scores
        ],
    )


def _aware(at: datetime) -> datetime:
    return at if at.tzinfo else at.replace(tzinfo=UTC)
