"""Linear models as one matrix product: what a fitted estimator computes, folded into weights on the raw features.

A fused score is a mean of links of linear forms: `Σ_j share_j · link(w_j·x + b_j)`. Calibration by a sigmoid and the
preprocessor's scaling are affine, so they fold into w and b. Whatever is not recognised here is left to scikit-learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import (
    ElasticNet,
    Lasso,
    LinearRegression,
    LogisticRegression,
    Ridge,
    RidgeClassifier,
)
from sklearn.preprocessing import StandardScaler

from consumer.scoring.artifacts import members, score_kind

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Term:
    """`share · link(weights·x + bias)` of one linear form on n inputs."""

    weights: Floats
    bias: float
    link: Literal["sigmoid", "clip"]
    share: float = 1.0


def terms(estimator: Any) -> list[Term] | None:
    """An estimator's score of class 1 as terms on its own inputs, or None when it is not made of known linear parts."""
    if isinstance(estimator, FrozenEstimator):
        return terms(estimator.estimator)
    if parts := members(estimator):
        return _mean([(terms(member), weight) for _, member, weight in parts if score_kind(member) == "probability"])
    if isinstance(estimator, CalibratedClassifierCV):
        return _mean([(_calibrated(each), 1.0) for each in estimator.calibrated_classifiers_])
    form = _linear_form(estimator)
    if form is None:
        return None
    is_regressor = not hasattr(estimator, "classes_")
    return [Term(*form, "clip" if is_regressor else "sigmoid")]


def _linear_form(estimator: Any) -> tuple[Floats, float] | None:
    """W and b of the decision function (of the prediction, for a regressor)."""
    while isinstance(estimator, FrozenEstimator):
        estimator = estimator.estimator
    known = (LogisticRegression, RidgeClassifier, Ridge, LinearRegression, Lasso, ElasticNet)
    if type(estimator) not in known:
        return None
    return np.asarray(estimator.coef_, np.float64).ravel(), float(np.ravel(estimator.intercept_)[0])


def _calibrated(calibrated: Any) -> list[Term] | None:
    """A sigmoid calibrator: expit(−(a·f + b)) of the decision f (Platt scaling)."""
    form = _linear_form(calibrated.estimator)
    if form is None or calibrated.method != "sigmoid" or not hasattr(calibrated.estimator, "decision_function"):
        return None
    (sigmoid,) = calibrated.calibrators
    weights, bias = form
    return [Term(-sigmoid.a_ * weights, -(sigmoid.a_ * bias + sigmoid.b_), "sigmoid")]


def _mean(parts: Sequence[tuple[list[Term] | None, float]]) -> list[Term] | None:
    total = sum(weight for _, weight in parts)
    mixed: list[Term] = []
    for part, weight in parts:
        if part is None:
            return None
        mixed.extend(Term(term.weights, term.bias, term.link, term.share * weight / total) for term in part)
    return mixed


def fold_preprocessor(preprocessor: Any, names: tuple[str, ...], inner: list[Term]) -> list[Term] | None:
    """Terms on the preprocessor's output as terms on the raw features, or None when it does more than scale columns."""
    if not isinstance(preprocessor, ColumnTransformer):
        return None
    order: list[int] = []
    scale: list[float] = []
    shift: list[float] = []
    for _, step, columns in preprocessor.transformers_:
        positions = _positions(columns, names)
        if type(step) is StandardScaler:
            width = np.ones(len(positions)) if step.scale_ is None else step.scale_
            middle = step.mean_ if step.with_mean else np.zeros(len(positions))
        elif step == "passthrough" or getattr(step, "func", "other") is None:
            width, middle = np.ones(len(positions)), np.zeros(len(positions))
        elif step == "drop":
            continue
        else:
            return None
        order.extend(positions)
        scale.extend(1.0 / width)
        shift.extend(-middle / width)
    folded = []
    for term in inner:
        weights = np.zeros(len(names))
        np.add.at(weights, order, term.weights * scale)
        folded.append(Term(weights, term.bias + float(term.weights @ np.array(shift)), term.link, term.share))
    return folded


def slopes(estimator: Any, preprocessor: Any, names: tuple[str, ...]) -> Floats | None:
    """How far one unit of each raw feature moves the linear form (the mean of a mixture's forms), or None when the
    estimator is not made of known linear parts.
    """
    inner = terms(estimator)
    folded = inner and fold_preprocessor(preprocessor, names, inner)
    if not folded:
        return None
    moved: Floats = np.sum([term.share * term.weights for term in folded], axis=0)
    return moved


def _positions(columns: Any, names: tuple[str, ...]) -> list[int]:
    """Positions of a transformer's columns: names, positions, a slice of positions or a mask."""
    if isinstance(columns, slice) or not any(isinstance(column, str) for column in columns):
        positions: list[int] = np.arange(len(names))[columns].tolist()
        return positions
    return [names.index(column) for column in ([columns] if isinstance(columns, str) else columns)]


class FusedScores:
    """Several models' terms evaluated together; forms that models share (an ensemble's members) are computed once."""

    def __init__(self, models: Sequence[list[Term]]) -> None:
        forms: dict[tuple[bytes, float, str], int] = {}
        self._mix = np.zeros((len(models), sum(map(len, models))))
        distinct: list[Term] = []
        for row, model in enumerate(models):
            for term in model:
                at = forms.setdefault((term.weights.tobytes(), term.bias, term.link), len(forms))
                if at == len(distinct):
                    distinct.append(term)
                self._mix[row, at] += term.share
        self._mix = self._mix[:, : len(distinct)]
        order = sorted(range(len(distinct)), key=lambda at: distinct[at].link != "sigmoid")  # one call for each link
        self._mix = self._mix[:, order]
        self._weights = np.array([distinct[at].weights for at in order])
        self._bias = np.array([[distinct[at].bias] for at in order])
        self._sigmoids = sum(term.link == "sigmoid" for term in distinct)

    def score(self, matrix: Floats) -> Floats:
        """models×n scores of an n×features matrix of raw features."""
        values = self._weights @ matrix.T
        values += self._bias
        sigmoids, clipped = values[: self._sigmoids], values[self._sigmoids :]
        expit(sigmoids, out=sigmoids)
        if len(clipped):
            np.clip(clipped, 0.0, 1.0, out=clipped)
        result: Floats = self._mix @ values
        return result
