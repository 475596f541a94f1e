"""Fit and calibrate the four models on one period each, so that the last period can judge them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.preprocessing import StandardScaler

from consumer.research.dataset import Codes, Split
from consumer.scoring.features import FEATURE_NAMES, NUMERIC_FEATURES, FloatMatrix

Scores = npt.NDArray[np.float64]

ENSEMBLE = "ensemble"


@dataclass(frozen=True)
class TrainedModels:
    """Fitted estimators by name, in the order they are exported; they take the preprocessor's output."""

    preprocessor: ColumnTransformer
    estimators: dict[str, Any]


def candidates(seed: int) -> dict[str, Any]:
    """The linear models, unfitted. The tolerance is tight so that a rebuild finds the same optimum to
    1e-9.
    """
    saga: dict[str, Any] = {"solver": "saga", "tol": 1e-9, "max_iter": 20_000, "random_state": seed}
    return {
        "ridge": RidgeClassifier(alpha=1.0),
        "logistic": LogisticRegression(l1_ratio=1.0, C=0.05, **saga),
        "elastic": LogisticRegression(l1_ratio=0.5, C=0.05, **saga),
    }


def make_preprocessor() -> ColumnTransformer:
    """`num` scales NUMERIC_FEATURES, `cat` passes the other 31: the output has the five scaled columns
    FIRST.
    """
    others = [name for name in FEATURE_NAMES if name not in NUMERIC_FEATURES]
    return ColumnTransformer([("num", StandardScaler(), list(NUMERIC_FEATURES)), ("cat", "passthrough", others)])


def fit_models(
    features: FloatMatrix,
    label: Codes,
    split: Split,
    seed: int,
    advance: Callable[[str], None] = lambda _: None,
) -> TrainedModels:
    """Fit on `split.train`, calibrate on `split.calibrate`; `split.validate` is not looked at.

    Each model is sigmoid-calibrated over its linear decision function f, so its score stays expit(a·f + b);
    the ensemble is the soft vote of the calibrated models. `advance` is told each step's name before it
    starts.
    """
    train, calibrate = split.train.rows, split.calibrate.rows
    preprocessor = make_preprocessor()
    fitted = preprocessor.fit_transform(pd.DataFrame(features[train], columns=list(FEATURE_NAMES)))
    held_out = preprocessor.transform(pd.DataFrame(features[calibrate], columns=list(FEATURE_NAMES)))
    estimators: dict[str, Any] = {}
    for name, model in candidates(seed).items():
        advance(name)
        frozen = FrozenEstimator(model.fit(fitted, label[train]))
        estimators[name] = CalibratedClassifierCV(frozen, method="sigmoid").fit(held_out, label[calibrate])
    advance(ENSEMBLE)
    members = [(name, FrozenEstimator(model)) for name, model in estimators.items()]
    estimators[ENSEMBLE] = VotingClassifier(members, voting="soft").fit(held_out, label[calibrate])
    return TrainedModels(preprocessor, estimators)


def flag_threshold(scores: Scores, flagged_share: float) -> float:
    """The score at and above which about `flagged_share` of `scores` lie: the k-th largest, k = share × n,
    at least 1.
    """
    k = max(1, round(flagged_share * len(scores)))
    return float(np.partition(scores, len(scores) - k)[len(scores) - k])
