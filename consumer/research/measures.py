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
from scipy.special import logit
from scipy.stats import norm, rankdata
from scipy.stats.contingency import relative_risk
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss

from consumer.research.dataset import Codes, Mask
from consumer.scoring.features import ONE_HOT, ORDINAL, FloatMatrix

Scores = npt.NDArray[np.float64]

CONFIDENCE = 0.95
MINIMUM_DEFAULTS = 50
"""Fewer defaults on either side of a ratio and it is called insufficient."""
BINS = 10
_EDGE = 1e-12
"""Keeps log-odds finite for scores of exactly 0 or 1."""


def ranking(label: Codes, scores: Scores) -> dict[str, float]:
    """AUC with DeLong's interval (DeLong, DeLong & Clarke-Pearson 1988), by mid-ranks."""
    good, bad = scores[label == 0], scores[label == 1]
    ranks = rankdata(np.concatenate([bad, good]))
    m, n = len(bad), len(good)
    above_good = (ranks[:m] - rankdata(bad)) / n
    below_bad = 1.0 - (ranks[m:] - rankdata(good)) / m
    auc = float(above_good.mean())
    half = float(norm.ppf((1 + CONFIDENCE) / 2) * np.sqrt(above_good.var(ddof=1) / m + below_bad.var(ddof=1) / n))
    return {"auc": auc, "auc_low": auc - half, "auc_high": auc + half}


def calibration(label: Codes, scores: Scores) -> dict[str, float]:
    """Brier score, log loss, and the unpenalised logistic regression of the label on the score's log-odds.

    Slope 1 and intercept 0 are perfect; a slope below 1 means scores too far apart.
    """
    clipped = np.clip(scores, _EDGE, 1 - _EDGE)
    fit = LogisticRegression(C=np.inf, tol=1e-8).fit(logit(clipped)[:, None], label)
    return {
        "brier": float(brier_score_loss(label, scores)),
        "log_loss": float(log_loss(label, clipped)),
        "calibration_slope": float(fit.coef_[0, 0]),
        "calibration_intercept": float(fit.intercept_[0]),
    }


def discrimination(label: Codes, flagged: Mask) -> dict[str, Any]:
    """Default rate of flagged over unflagged rows with Katz' 95 % interval; null where a side has no
    default.
    """
    high, low = label[flagged], label[~flagged]
    facts: dict[str, Any] = {
        "flagged_share": float(flagged.mean()),
        "flagged": len(high),
        "flagged_defaults": int(high.sum()),
        "flagged_default_rate": float(high.mean()) if len(high) else None,
        "unflagged_default_rate": float(low.mean()) if len(low) else None,
        "enough": bool(min(high.sum(), low.sum()) >= MINIMUM_DEFAULTS),
        "discrimination_ratio": None,
        "discrimination_low": None,
        "discrimination_high": None,
    }
    if high.sum() and low.sum():
        risk = relative_risk(int(high.sum()), len(high), int(low.sum()), len(low))
        interval = risk.confidence_interval(CONFIDENCE)
        facts |= {
            "discrimination_ratio": float(risk.relative_risk),
            "discrimination_low": float(interval.low),
            "discrimination_high": float(interval.high),
        }
    return facts


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
