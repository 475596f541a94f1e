"""The register of promotion policies: a policy counts from when its hash was written down, and for data after that."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from clickhouse_connect.driver.client import Client

from consumer.evaluation.policy import load_policy
from consumer.services.clickhouse import errors_named

_TABLE = "promotion_policies"
_FIRST = f"SELECT min(registered_at) FROM {_TABLE} WHERE sha256 = {{sha256:String}} HAVING count() > 0"  # noqa: S608
_ALL = f"""
SELECT sha256, min(registered_at) AS first, any(content) FROM {_TABLE} GROUP BY sha256 ORDER BY first, sha256
"""  # noqa: S608


@dataclass(frozen=True)
class Registered:
    sha256: str
    at: datetime
    content: str


def register(client: Client, path: Path, at: datetime) -> Registered:
    """Write the policy's hash down, unless it already is; gives since when it is registered.

    Raises ArtifactError for a file that is no policy, ClickHouseUnavailable or Fatal.
    """
    _, sha256 = load_policy(path)
    content = path.read_text()
    known = registered_at(client, sha256)
    if known is None or at < known:
        with errors_named():
            client.insert(_TABLE, [[sha256, at, content]], column_names=["sha256", "registered_at", "content"])
        known = at
    return Registered(sha256, known, content)


def registered_at(client: Client, sha256: str) -> datetime | None:
    """When a policy was first registered; None when it never was."""
    with errors_named():
        rows = client.query(_FIRST, {"sha256": sha256}).result_rows
    return _utc(rows[0][0]) if rows else None


def all_registered(client: Client) -> list[Registered]:
    """The first registration of each policy, oldest first."""
    with errors_named():
        return [Registered(sha256, _utc(at), content) for sha256, at, content in client.query(_ALL).result_rows]


def _utc(at: datetime) -> datetime:
    return at if at.tzinfo else at.replace(tzinfo=UTC)
