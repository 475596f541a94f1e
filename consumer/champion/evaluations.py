"""Stored evaluations: what pages, API and gauges show, so that they say what `bnpl-shadow evaluate` said.

Beside each its curves are kept (`evaluation/curves.py`), which are of the same rows and in no dossier.

The newest `evaluated_at` of the same artifact version, label and `as_of` counts. None is changed; interim ones, of a
day that has another, go after thirty days by the table's TTL.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from clickhouse_connect.driver.client import Client

from consumer.champion.dossier import to_bytes
from consumer.champion.report.wording import headline
from consumer.errors import Fatal, NothingToEvaluate
from consumer.evaluation.curves import Curves, Distribution, Roc, Shares
from consumer.evaluation.plain import plain
from consumer.services.clickhouse import errors_named

TABLE = "evaluations"
_COLUMNS = (
    "artifact_version",
    "label",
    "as_of",
    "evaluated_at",
    "since",
    "until",
    "promote",
    "says",
    "sha256",
)
_OF = "artifact_version = {artifact:String} AND label = {label:String}"
_NEWEST = f"""
SELECT {", ".join(_COLUMNS)}, document FROM {TABLE}
WHERE {_OF} AND (as_of, evaluated_at) IN (
  SELECT as_of, evaluated_at FROM {TABLE}
  WHERE {_OF} AND as_of <= fromUnixTimestamp64Micro({{as_of:Int64}}, 'UTC')
  ORDER BY since IS NULL AND until IS NULL DESC, as_of DESC, evaluated_at DESC LIMIT 1
)
LIMIT 1
"""  # noqa: S608
"""Found without the documents: each may hold a quarter of a megabyte."""
_LISTED = f"""
SELECT {", ".join(_COLUMNS)} FROM {TABLE}
WHERE ({{artifact:String}} = '' OR artifact_version = {{artifact:String}})
  AND ({{label:String}} = '' OR label = {{label:String}})
ORDER BY as_of DESC, evaluated_at DESC LIMIT 1 BY artifact_version, label, as_of LIMIT {{most:UInt32}}
"""  # noqa: S608
_CURVES = f"""
SELECT curves FROM {TABLE}
WHERE artifact_version = {{artifact:String}} AND label = {{label:String}} AND sha256 = {{sha256:String}}
  AND curves != '' LIMIT 1
"""  # noqa: S608


@dataclass(frozen=True)
class Listed:
    """A stored evaluation without its figures."""

    artifact_version: str
    label: str
    as_of: datetime
    evaluated_at: datetime
    since: datetime | None
    until: datetime | None
    """Bounds of the transactions that were asked for; None did not bound them."""
    promote: str | None
    """The model that may be promoted on it, if any."""
    says: str
    """What it comes to, in a sentence."""
    sha256: str
    """Of the file that `evaluate --json` or `dossier make` writes of it."""

    @property
    def is_whole(self) -> bool:
        """Whether it is of all transactions, and not of those of a period."""
        return self.since is None and self.until is None


@dataclass(frozen=True)
class Stored:
    """An evaluation with all of its figures."""

    listed: Listed
    document: dict[str, Any]
    """As `champion.dossier.document` made it."""


def store(client: Client, document: dict[str, Any], curves: Curves | None, *, interim: bool = False) -> Listed:
    """Add an evaluation (of `champion.dossier.document`) and its curves; an interim one is kept for thirty days.

    Raises ClickHouseUnavailable or Fatal.
    """
    content = to_bytes(document)
    listed = _described(document, hashlib.sha256(content).hexdigest())
    row = [*(getattr(listed, name) for name in _COLUMNS), content.decode(), json.dumps(plain(curves)), interim]
    with errors_named():
        client.insert(TABLE, [row], column_names=[*_COLUMNS, "document", "curves", "interim"])
    return listed


def newest(client: Client, artifact_version: str, label: str, as_of: datetime) -> Stored | None:
    """The evaluation with the newest as_of that is not after `as_of`; None when there is none. One of all transactions
    comes before any of a period.

    Raises ClickHouseUnavailable or Fatal.
    """
    asked = {"artifact": artifact_version, "label": label, "as_of": _microseconds(as_of)}
    with errors_named():
        rows = client.query(_NEWEST, asked).result_rows
    return Stored(_listed(rows[0][:-1]), json.loads(rows[0][-1])) if rows else None


def curves_of(client: Client, listed: Listed) -> Curves:
    """The curves of a stored evaluation.

    Raises NothingToEvaluate when no outcome of its transactions was known, ClickHouseUnavailable, or Fatal, also when
    it was stored without.
    """
    asked = {"artifact": listed.artifact_version, "label": listed.label, "sha256": listed.sha256}
    with errors_named():
        rows = client.query(_CURVES, asked).result_rows
    if not rows:
        raise Fatal(
            f"the evaluation of {listed.evaluated_at:%Y-%m-%d %H:%M} is not stored any more, or without curves by an "
            "older version: evaluate again with `bnpl-shadow evaluate --store`"
        )
    told = json.loads(rows[0][0])
    if told is None:
        raise NothingToEvaluate("no outcome of the evaluated transactions is known yet, so none can be drawn")
    return _drawn(told)


def stored(
    client: Client, artifact_version: str | None = None, label: str | None = None, most: int = 500
) -> list[Listed]:
    """What there is, the newest as_of first; of all artifact versions and labels unless told.

    Raises ClickHouseUnavailable or Fatal.
    """
    asked = {"artifact": artifact_version or "", "label": label or "", "most": most}
    with errors_named():
        return [_listed(row) for row in client.query(_LISTED, asked).result_rows]


def _described(document: dict[str, Any], sha256: str) -> Listed:
    question = document["question"]
    return Listed(
        artifact_version=question["artifact_version"],
        label=question["label"],
        as_of=datetime.fromisoformat(question["as_of"]),
        evaluated_at=datetime.fromisoformat(document["made_at"]),
        since=question["since"] and datetime.fromisoformat(question["since"]),
        until=question["until"] and datetime.fromisoformat(question["until"]),
        promote=document["recommendation"]["promote"],
        says=headline(document)[0],
        sha256=sha256,
    )


def _drawn(told: dict[str, Any]) -> Curves:
    shares = told["shares"]
    high, low = ({name: np.array(sums, np.float64) for name, sums in shares[band].items()} for band in ("high", "low"))
    return Curves(
        Shares(tuple(shares["shares"]), shares["own"], np.array(shares["total"], np.float64), high, low),
        [Roc(**each) for each in told["roc"]],
        [Distribution(**each) for each in told["distributions"]],
    )


def _listed(row: Sequence[Any]) -> Listed:
    return Listed(*(_plain(value) for value in row))


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):  # a FixedString
        return value.decode()
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value


def _microseconds(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
