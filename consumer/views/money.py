"""Opportunity cost as the view shadow_predictions_as_of has it: of the champions that decided, or would have, at the
thresholds they were exported with. (What policies at the rules' share would be worth, `evaluate` says.)
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from clickhouse_connect.driver.client import Client

from consumer.services.clickhouse import errors_named

_BY_CHAMPION = """
SELECT
  champion, min(timestamp), max(timestamp), count(), countIf(opportunity_cost IS NULL), countIf(opportunity_cost != 0),
  sum(opportunity_cost)
FROM shadow_predictions_as_of(as_of = {as_of:DateTime64(3)})
WHERE artifact_version = {artifact:String} AND timestamp < {as_of:DateTime64(3)}
GROUP BY champion ORDER BY champion
"""


@dataclass(frozen=True)
class Opportunity:
    """Sum of column opportunity_cost over the transactions that counted one champion."""

    champion: str
    first: datetime
    last: datetime
    transactions: int
    unknown: int
    """their opportunity is null: not known (yet), so not in `total`"""
    differing: int
    """known, and not 0: champion and decision differ"""
    total: float | None
    """None where nothing is known"""


def opportunities(client: Client, artifact_version: str, as_of: datetime) -> list[Opportunity]:
    """By champion, of transactions before `as_of` with the outcomes known then. Reads all rows of the version.

    Raises ClickHouseUnavailable or Fatal.
    """
    asked = {"artifact": artifact_version, "as_of": as_of}
    with errors_named():
        return [Opportunity(*row) for row in client.query(_BY_CHAMPION, asked).result_rows]
