"""How well scores tell defaulters apart, with intervals; and the reference statistics that drift is
measured against.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from consumer.evaluation.bands import HIGH, LOW, descending
from consumer.evaluation.calibration import calibration as calibration_of
from consumer.evaluation.outcomes import Clusters, Outcomes
from consumer.evaluation.ranking import ranking as ranking_of
from consumer.evaluation.ratio import ratio
from consumer.evaluation.sample import Positions
from consumer.research.dataset import Codes, Mask
from consumer.scoring.features import ONE_HOT, ORDINAL, FloatMatrix

Scores = npt.NDArray[np.float64]

CONFIDENCE = 0.95
MINIMUM_DEFAULTS = 50
"""Fewer defaults on either side of a ratio and it is called insufficient."""
BINS = 10


def ranking(label: Codes, scores: Scores) -> dict[str, float | None]:
    """AUC with DeLong's interval."""
    found, _ = ranking_of(scores, _positions(scores), _outcomes(label), CONFIDENCE)
    return {"auc": found.auc, "auc_low": found.auc_low, "auc_high": found.auc_high}


def calibration(label: Codes, scores: Scores) -> dict[str, float | None]:
    """Brier score, log loss, and the unpenalised logistic regression of the label on the score's log-odds.

    Slope 1 and intercept 0 are perfect; a slope below 1 means scores too far apart.
    """
    found = calibration_of(scores, _positions(scores), _outcomes(label), CONFIDENCE)
    return {
        "brier": found.brier,
        "log_loss": found.log_loss,
        "calibration_slope": found.slope,
        "calibration_intercept": found.intercept,
    }


def discrimination(label: Codes, flagged: Mask) -> dict[str, Any]:
    """Default rate of flagged over unflagged rows with Katz' 95 % interval; null where a side has no
    default.
    """
    bands = np.where(flagged, HIGH, LOW).astype(np.int8)
    found, _ = ratio(bands, _outcomes(label), 1, CONFIDENCE)
    return {
        "flagged_share": float(flagged.mean()),
        "flagged": found.high.rows,
        "flagged_defaults": found.high.defaults,
        "flagged_default_rate": found.high.rate,
        "unflagged_default_rate": found.low.rate,
        "enough": min(found.high.defaults, found.low.defaults) >= MINIMUM_DEFAULTS,
        "discrimination_ratio": found.estimate,
        "discrimination_low": found.interval_low,
        "discrimination_high": found.interval_high,
    }


def feature_statistics(names: tuple[str, ...], matrix: FloatMatrix) -> dict[str, dict[str, Any]]:
    """Mean, std, min, max and frozen quantile bins of every feature."""
    return {
        name: {
            "mean": float(column.mean()),
            "std": float(column.std()),
            "min": float(column.min()),
            "max": float(column.max()),
            **frozen_bins(column),
        }
        for name, column in zip(names, matrix.T, strict=True)
    }


def frozen_bins(values: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Edges at the deciles (equal ones merged) and counts between them, left-closed, the last bin closed.

    A feature of few values gets a bin a value. `below` and `above` are what falls outside: none here, some
    later.
    """
    distinct = np.unique(values)
    if len(distinct) <= BINS:
        edges = np.append(distinct, distinct[-1])
        counts = [int((values == value).sum()) for value in distinct]
    else:
        edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)))
        counts = np.histogram(values, edges)[0].tolist()
    return {"bin_edges": edges.tolist(), "bin_counts": counts, "below": 0, "above": 0}


def category_counts(batch: pa.RecordBatch) -> dict[str, dict[str, int]]:
    """How often each value of each category column occurs, most frequent first."""
    counts: dict[str, dict[str, int]] = {}
    for name in (*ORDINAL, *ONE_HOT):
        found = {entry["values"].as_py(): entry["counts"].as_py() for entry in pc.value_counts(batch.column(name))}
        counts[name] = dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
    return counts


def training_statistics(
    names: tuple[str, ...],
    matrix: FloatMatrix,
    batch: pa.RecordBatch,
    label: Codes | None,
    scores: Mapping[str, Scores],
    source: str,
) -> dict[str, Any]:
    """The `training_stats` document: what drift is measured against. `scores` may come from another
    period.
    """
    return {
        "source": source,
        "sample_count": len(matrix),
        "default_rate": None if label is None else float(label.mean()),
        "features": feature_statistics(names, matrix),
        "categories": category_counts(batch),
        "scores": {name: frozen_bins(values) | {"sample_count": len(values)} for name, values in scores.items()},
    }


def measure(label: Codes, scores: Scores, threshold: float, *, calibrated: bool = True) -> dict[str, Any]:
    """Everything `baseline_metrics` says of one model on one period, flagged by a threshold fixed before.

    Brier, log loss and calibration are only for scores that claim to be probabilities (`calibrated`).
    """
    figures = ranking(label, scores) | discrimination(label, scores >= threshold)
    return figures | calibration(label, scores) if calibrated else figures


def _outcomes(label: Codes) -> Outcomes:
    """Every row counts once, and for itself: which rows are of one customer is not known here."""
    return Outcomes(label == 1, np.ones(len(label)), Clusters(np.arange(len(label))))


def _positions(scores: Scores) -> Positions:
    return descending(scores, np.arange(len(scores), dtype=np.uint64))
