"""What is stored, and what is missing in it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from clickhouse_connect.driver.client import Client

from consumer.services.clickhouse import errors_named

_STORED = """
SELECT artifact_version, rule_set_version, feature_spec_version, count(), min(event_time), max(event_time), max(scored_at)
FROM shadow_scores WHERE event_time < {until:DateTime64(3)}
GROUP BY artifact_version, rule_set_version, feature_spec_version ORDER BY max(scored_at) DESC
"""
_FAILED = """
SELECT artifact_version, name, ifNull(error, 'no score'), count(), max(scored_at)
FROM shadow_scores ARRAY JOIN models.name AS name, models.score AS score, models.error AS error
WHERE score IS NULL AND event_time < {until:DateTime64(3)}
GROUP BY 1, 2, 3 ORDER BY count() DESC, 1, 2, 3
"""


@dataclass(frozen=True)
class Identity:
    """Rows of one model set under one rule set and feature spec."""

    artifact_version: str
    rule_set_version: str
    feature_spec_version: str
    rows: int
    """those not yet merged with a later row of the same prediction among them"""
    first: datetime
    """transaction"""
    last: datetime
    last_scored: datetime


@dataclass(frozen=True)
class FailedScores:
    """Scores that a model did not give."""

    artifact_version: str
    model: str
    error: str
    rows: int
    last_scored: datetime


def stored(client: Client, until: datetime) -> list[Identity]:
    """What shadow_scores holds of transactions before `until`, the newest scored first.

    Raises ClickHouseUnavailable or Fatal.
    """
    with errors_named():
        return [Identity(*row) for row in client.query(_STORED, {"until": until}).result_rows]


def failed_scores(client: Client, until: datetime) -> list[FailedScores]:
    """The most frequent first. Raises ClickHouseUnavailable or Fatal."""
    with errors_named():
        return [FailedScores(*row) for row in client.query(_FAILED, {"until": until}).result_rows]
