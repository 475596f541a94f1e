"""What is stored, and what is missing in it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from clickhouse_connect.driver.client import Client

from consumer.services.clickhouse import errors_named
from consumer.settings import Settings
from consumer.watch.letter_story import survey
from consumer.watch.letters import Filter

_STORED = """
SELECT
  artifact_version, rule_set_version, feature_spec_version, count(), min(event_time), max(event_time), max(scored_at)
FROM shadow_scores WHERE event_time < {until:DateTime64(3)}
GROUP BY artifact_version, rule_set_version, feature_spec_version ORDER BY max(scored_at) DESC
"""
_VERSIONS = "SELECT artifact_version FROM shadow_scores GROUP BY artifact_version ORDER BY max(scored_at) DESC"
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


@dataclass(frozen=True)
class Refused:
    """Dead letters of one kind."""

    stage: str
    error: str
    state: str
    """as `consumer/watch/letters.py` names them"""
    letters: int
    first: datetime
    last: datetime


@dataclass(frozen=True)
class Letter:
    """One dead letter; its record's values are never shown."""

    place: str
    """as `bnpl-shadow dlq show` takes it"""
    arrived: datetime
    stage: str
    error: str
    state: str
    message: str


@dataclass(frozen=True)
class DeadLetters:
    topic: str
    kinds: list[Refused]
    newest: list[Letter]

    @property
    def total(self) -> int:
        return sum(each.letters for each in self.kinds)


def artifact_versions(client: Client) -> list[str]:
    """Those whose scores are stored, the newest scored first. Raises ClickHouseUnavailable or Fatal."""
    with errors_named():
        return [version for (version,) in client.query(_VERSIONS).result_rows]


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


def dead_letters(settings: Settings, since: datetime, most: int) -> DeadLetters:
    """Records that were refused since then, counted, and the newest `most`. Reads the settings' `topic_dead_letters`.

    Raises KafkaUnavailable, or Fatal when there is no such topic.
    """
    found = survey(settings, Filter(since=since), most, lambda *_: None)
    kinds = [
        Refused(stage, error, state, each.letters, each.first, each.last)
        for (stage, error, state), each in sorted(found.counts.items())
    ]
    newest = [
        Letter(each.place, each.arrived, *each.kind, each.state, each.refusal.message if each.refusal else "")
        for each in found.newest
    ]
    return DeadLetters(found.topic, kinds, newest)
