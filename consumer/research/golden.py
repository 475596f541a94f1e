"""Golden rows: events whose features and scores are written down at export and must come out again wherever
the set runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from consumer.contracts.transaction import REQUIRED, columns_from_dicts
from consumer.research.simulate import rows
from consumer.scoring.artifacts import ModelSet
from consumer.scoring.features import ONE_HOT, ORDINAL
from consumer.scoring.manifest import GoldenRow

EVERYDAY = 20
"""Rows taken from the data, evenly spaced in time; the edges below are added to them."""
BOUNDARY_TIMES = (
    "2025-01-01T00:00:00.000Z",
    "2025-02-28T23:59:59.999Z",
    "2024-02-29T06:59:59.999Z",
    "2025-10-31T23:59:59.999Z",
    "2025-11-01T00:00:00.000Z",
    "2025-12-31T23:59:59.999Z",
    "2025-06-24T21:59:59.999Z",
    "2025-06-25T22:00:00.000Z",
    "2025-06-06T23:59:59.999Z",
    "2025-06-07T00:00:00.000Z",
    "2025-06-09T12:59:59.999Z",
    "2025-06-08T13:00:00.000Z",
    "2025-06-29T18:59:59.999Z",
    "2025-06-29T19:00:00.000Z",
)
"""Where a month, season, weekend, part of day or business hour begins or ends."""
UNKNOWN = "never_seen_in_training"


def golden_events(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Everyday events of `batch` and every edge of the feature definitions, without anybody's identity."""
    step = max(1, batch.num_rows // EVERYDAY)
    picked = batch.take(pa.array(range(0, batch.num_rows, step)[:EVERYDAY]))
    events = rows(picked.select(list(REQUIRED)))
    usual = events[0]
    events += [usual | {"transaction_timestamp": moment} for moment in BOUNDARY_TIMES]
    events += [usual | {name: UNKNOWN} for name in (*ORDINAL, *ONE_HOT)]
    events += [
        usual | {"risk_level": "very_high", "risk_score": 0.86},
        usual | {"amount": 0.0, "risk_score": 0.0, "customer_tenure_days": 0, "price_comparison_time": 0},
        usual | {"amount": 25_000.0, "risk_score": 1.0, "installment_count": 24, "payment_credit_limit": 50_000.0},
    ]
    return [
        event | {"transaction_id": f"golden_{number:02}", "customer_id": "golden"}
        for number, event in enumerate(events, 1)
    ]


def golden_rows(model_set: ModelSet, events: Sequence[dict[str, Any]]) -> tuple[GoldenRow, ...]:
    """The events with the features and scores that `model_set` gives them now."""
    features = model_set.engineer.engineer(columns_from_dicts(events)).matrix
    scores = model_set.scores(features)
    return tuple(
        GoldenRow(
            event=event,
            features=features[at].tolist(),
            scores={name: float(values[at]) for name, values in scores.items()},
        )
        for at, event in enumerate(events)
    )
