"""Which rows an evaluation sees: what is asked, and the exact state of the tables that answered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from clickhouse_connect.driver.client import Client

from consumer.contracts.horizons import Horizon
from consumer.errors import NothingToEvaluate
from consumer.services.clickhouse import errors_named

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FAR = datetime(2299, 1, 1, tzinfo=UTC)
_DAY_MS = 86_400_000
_CENTURY_DAYS = 36_525

_IDENTITIES = """
SELECT rule_set_version, feature_spec_version, count(), max(installment_count), max(event_time) AS newest
FROM shadow_scores FINAL
WHERE artifact_version = {artifact:String}
  AND event_time >= {since:DateTime64(3)} AND event_time < {until:DateTime64(3)}
GROUP BY rule_set_version, feature_spec_version ORDER BY newest DESC
"""
_VERSIONS = "SELECT artifact_version, count() FROM shadow_scores GROUP BY artifact_version ORDER BY artifact_version"
_ENDS = "SELECT {place}_partition, max({place}_offset) FROM {table} GROUP BY {place}_partition"
_MODELS = """
SELECT models.name, models.score_kind FROM shadow_scores
WHERE artifact_version = {artifact:String} AND rule_set_version = {rules:String}
  AND feature_spec_version = {features:String}
  AND event_time >= {since:DateTime64(3)} AND event_time < {until:DateTime64(3)}
LIMIT 1 BY models.name, models.score_kind
"""


@dataclass(frozen=True)
class Scope:
    """What is asked: of which transactions, and as known at which time."""

    as_of: datetime
    """Outcomes observed later are not seen, and transactions not yet old enough for the label do not count."""
    artifact_version: str
    since: datetime | None = None
    until: datetime | None = None
    """Times of transactions, `until` excluded; None does not bound them."""

    @property
    def period(self) -> dict[str, datetime]:
        return {"since": self.since or _EPOCH, "until": min(self.until or _FAR, self.as_of)}


@dataclass(frozen=True)
class Snapshot:
    """What answered: one identity of scores, and the tables up to the last offsets that they held then.

    Later rows do not change what is read again by it, for tables only grow by offset.
    """

    scope: Scope
    horizon: Horizon
    rule_set_version: str
    feature_spec_version: str
    models: dict[str, str]
    """Kind of its score (`probability`, …) by model, in the events' order."""
    longest_plan: int
    """Most instalments of any transaction of the period, old enough or not."""
    other_identities: int
    """Rows of the same model set and period under other rules or another feature spec: not evaluated."""
    score_ends: dict[int, int]
    """Last shadow_offset by shadow_partition."""
    outcome_ends: dict[int, int]
    """Last outcome_offset by outcome_partition."""

    @property
    def wait(self) -> timedelta:
        """How long after its checkout a transaction of the longest plan is old enough; a century for any longer one."""
        days = int(self.horizon.due_days(self.longest_plan)) + self.horizon.grace_days
        return timedelta(days=min(days, _CENTURY_DAYS))

    def parameters(self) -> dict[str, Any]:
        """What the statements of `rows` are asked with."""
        horizon = self.horizon
        return {
            "artifact": self.scope.artifact_version,
            "rules": self.rule_set_version,
            "features": self.feature_spec_version,
            "label": horizon.label,
            "as_of": self.scope.as_of,
            "due_ms": ((horizon.days or 0) + horizon.grace_days) * _DAY_MS,
            "due_ms_per_instalment": (horizon.days_per_instalment or 0) * _DAY_MS,
            **self.scope.period,
        }


def take_snapshot(client: Client, scope: Scope, horizon: Horizon) -> Snapshot:
    """Fix what is read. Raises NothingToEvaluate, naming what there is instead."""
    period = {"artifact": scope.artifact_version, **scope.period}
    with errors_named():
        identities = client.query(_IDENTITIES, period).result_rows
        if not identities:
            raise NothingToEvaluate(_nothing(client, scope))
        rules, features, _, longest_plan, _ = identities[0]
        told = client.query(_MODELS, {**period, "rules": rules, "features": features}).result_rows
        score_ends, outcome_ends = table_ends(client)
    models: dict[str, str] = {}
    for names, kinds in told:
        models |= {name: kind for name, kind in zip(names, kinds, strict=True) if name not in models}
    return Snapshot(
        scope,
        horizon,
        rules,
        features,
        models,
        longest_plan,
        sum(count for _, _, count, *_ in identities[1:]),
        score_ends,
        outcome_ends,
    )


def table_ends(client: Client) -> tuple[dict[int, int], dict[int, int]]:
    """The last offset by partition of scores and of outcomes. Raises ClickHouseUnavailable or Fatal."""
    with errors_named():
        return _ends(client, "shadow", "shadow_scores"), _ends(client, "outcome", "outcomes")


def _ends(client: Client, place: str, table: str) -> dict[int, int]:
    rows = client.query(_ENDS.format(place=place, table=table)).result_rows
    return {int(partition): int(end) for partition, end in rows}


def _nothing(client: Client, scope: Scope) -> str:
    stored = ", ".join(f"{version} ({count:,})" for version, count in client.query(_VERSIONS).result_rows)
    period = "".join(
        f", {word} {at:%Y-%m-%d %H:%M}" for word, at in (("since", scope.since), ("until", scope.until)) if at
    )
    return (
        f"no scores of artifact version {scope.artifact_version}{period}, as of {scope.as_of:%Y-%m-%d %H:%M}, to "
        f"evaluate; shadow_scores holds {stored or 'nothing'}. Name another with --artifact, or let score and sink run"
    )
