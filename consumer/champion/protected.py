"""Features that rest on a basis which lending law protects: what a reviewer must see before a model may decide."""

from __future__ import annotations

from dataclasses import dataclass

from consumer.scoring.predictor import BNPLMultiModelPredictor
from consumer.watch.trace.explain import linear_weights

_PROTECTED = {
    "customer_age_bracket_encoded": (
        "age: a protected basis under the Equal Credit Opportunity Act; Regulation B, 12 CFR 1002.6(b)(2), allows it "
        "only in a statistically sound system that does not count against the elderly"
    ),
}


@dataclass(frozen=True)
class ProtectedFeature:
    """A feature, its basis, and by model the linear coefficient on its raw value; None where a model is not linear."""

    feature: str
    basis: str
    coefficients: dict[str, float | None]


def protected_features(predictor: BNPLMultiModelPredictor) -> list[ProtectedFeature]:
    """Those that its models take."""
    names = predictor.model_set.feature_names
    weights = linear_weights(predictor)
    return [
        ProtectedFeature(
            name,
            basis,
            {model: None if form is None else float(form[names.index(name)]) for model, form in weights.items()},
        )
        for name, basis in _PROTECTED.items()
        if name in names
    ]
