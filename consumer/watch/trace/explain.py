"""Scores explained: the recorded prediction made again, and each linear model's score taken apart by feature."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from consumer.scoring.activation import Activation
from consumer.scoring.artifacts import GOLDEN_TOLERANCE
from consumer.scoring.controller import Shadow, ShadowModeController
from consumer.scoring.linear import Term, fold_preprocessor, terms
from consumer.scoring.predictor import BNPLMultiModelPredictor
from consumer.watch.trace.story import Form, Recomputed


def recompute(controller: ShadowModeController, transaction: pa.RecordBatch, recorded: dict[str, object]) -> Recomputed:
    """Score one transaction (a batch of one, columns of `contracts.transaction.SCHEMA`) again and compare."""
    shadow = controller.score_batch(transaction, activation=_activation(recorded))
    values = shadow.features.matrix[0]
    names = shadow.features.names
    return Recomputed(
        features=dict(zip(names, values.tolist(), strict=True)),
        forms=linear_forms(controller.predictor, values),
        differences=_differences(controller, shadow, recorded),
    )


def _activation(recorded: dict[str, object]) -> Activation:
    """Who decided this transaction: of a canary its record tells on which side its customer was."""
    asked = recorded["decided_by"] != "rules"
    return Activation(str(recorded["champion"]), "champion" if asked else "shadow")


def linear_forms(predictor: BNPLMultiModelPredictor, values: npt.NDArray[np.float64]) -> dict[str, Form | None]:
    """By model the linear form of one transaction's raw features, None for a model that runs by its own predict."""
    return {
        entry.name: _form(predictor, entry.estimator, values) if entry.name in predictor.fused_models else None
        for entry in predictor.model_set.models
    }


def linear_weights(predictor: BNPLMultiModelPredictor) -> dict[str, npt.NDArray[np.float64] | None]:
    """By model the coefficients on raw features, in contract order; None for a model that runs by its own predict."""
    return {
        entry.name: np.sum([term.share * term.weights for term in folded], axis=0) if folded else None
        for entry in predictor.model_set.models
        for folded in [_folded(predictor, entry.estimator) if entry.name in predictor.fused_models else None]
    }


def _folded(predictor: BNPLMultiModelPredictor, estimator: object) -> list[Term] | None:
    model_set, inner = predictor.model_set, terms(estimator)
    return inner and fold_preprocessor(model_set.preprocessor, model_set.feature_names, inner)


def _form(predictor: BNPLMultiModelPredictor, estimator: object, values: npt.NDArray[np.float64]) -> Form | None:
    model_set, folded = predictor.model_set, _folded(predictor, estimator)
    if not folded:
        return None
    weights = np.sum([term.share * term.weights for term in folded], axis=0)
    bias = float(sum(term.share * term.bias for term in folded))
    order = np.argsort(-np.abs(weights * values), kind="stable")
    parts = [(model_set.feature_names[at], float(values[at]), float(weights[at])) for at in order]
    return Form(bias, float(weights @ values) + bias, len(folded), parts)


def _differences(controller: ShadowModeController, shadow: Shadow, recorded: dict[str, object]) -> list[str]:
    decisions, predictions = shadow.decisions, shadow.predictions
    now: dict[str, object] = {
        "business_decision": decisions.decision[0].as_py(),
        "business_risk_flag": decisions.risk_flag[0].as_py(),
        "business_risk_score": decisions.risk_score[0].as_py(),
        "reason_codes": decisions.reason_codes[0].as_py(),
        "consensus": float(predictions.consensus[0]),
        "decision": shadow.standing.decision[0].as_py(),
        "decided_by": shadow.standing.decided_by[0].as_py(),
    }
    before = {name: recorded[name] for name in now}
    before["decision"] = before["decision"] or before["business_decision"]
    models = recorded["models"]
    if isinstance(models, list):
        before |= {f"score of {each['name']}": each["score"] for each in models}
    scores = zip(predictions.models, predictions.scores[:, 0].tolist(), strict=True)
    now |= {f"score of {entry.name}": score for entry, score in scores}
    return [
        f"{name}: recorded {before.get(name)}, now {now.get(name)}"
        for name in before | now
        if not _same(before.get(name), now.get(name))
    ]


def _same(before: object, now: object) -> bool:
    if isinstance(now, float):
        if not isinstance(before, float):
            return before is None and bool(np.isnan(now))
        return abs(before - now) <= GOLDEN_TOLERANCE
    return before == now
