"""The rows of a stored evaluation, as ClickHouse sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from consumer.champion.dossier import snapshot_of
from consumer.champion.rows import statement
from consumer.champion.scope import Snapshot
from consumer.errors import Fatal
from consumer.evaluation.sample import RULES

Document = Mapping[str, Any]
"""An evaluation, as `champion.dossier.document` makes it."""

_ROWS = """
SELECT row_order, event_time_ms, amount, defaulted, {scores}
FROM ({statement})
WHERE approved AND seen AND event_time_ms < {{until_ms:Int64}} AND {scored}
"""


@dataclass(frozen=True)
class EvaluatedRows:
    """SQL of the rows that an evaluation compared everybody on: row_order, event_time_ms, amount, defaulted, and
    `score_of` each model.
    """

    sql: str
    parameters: dict[str, Any]
    score_of: dict[str, str]
    """Column by model, in the evaluation's order; no column is null."""


def evaluated_rows(told: Document) -> EvaluatedRows:
    """Of the whole weeks of an evaluation: approved, observed, and scored by every model that was not left out.

    Raises Fatal when the document is damaged.
    """
    try:
        snapshot = snapshot_of(dict(told))
        models = [name for name in told["evaluation"]["scorers"] if name != RULES]
        until = _end(told)
    except (KeyError, TypeError, ValueError) as error:
        raise Fatal(f"the stored evaluation is damaged ({type(error).__name__} at {error}): evaluate again") from error
    place = {name: f"score_{at}" for at, name in enumerate(snapshot.models)}
    score_of = {name: place[name] for name in models}
    return EvaluatedRows(
        _ROWS.format(
            scores=", ".join(f"assumeNotNull({column}) AS {column}" for column in score_of.values()) or "1",
            statement=statement(snapshot),
            scored=" AND ".join(f"isNotNull({column})" for column in score_of.values()) or "true",
        ),
        _asked(snapshot) | {"until_ms": int(until.timestamp() * 1000)},
        score_of,
    )


def _asked(snapshot: Snapshot) -> dict[str, Any]:
    return snapshot.parameters() | {f"model_{at}": name for at, name in enumerate(snapshot.models)}


def _end(told: Document) -> datetime:
    """Where the last of its whole weeks ends; before the first week is whole, that one."""
    weeks = max(told["evaluation"]["rows"]["week"], 1)
    return datetime.fromisoformat(told["data"]["weeks_from"]) + timedelta(weeks=weeks)
