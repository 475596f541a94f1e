"""Model sets fitted in the test itself: any estimators on the 36 features of made-up transactions."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import StandardScaler

from consumer.contracts.transaction import columns_from_dicts
from consumer.scoring.artifacts import ModelEntry, ModelSet, score_kind
from consumer.scoring.controller import ShadowModeController
from consumer.scoring.features import FEATURE_NAMES, NUMERIC_FEATURES, ONE_HOT, ORDINAL, FeatureEngineer
from consumer.scoring.manifest import GoldenRow
from consumer.scoring.predictor import BNPLMultiModelPredictor
from consumer.scoring.rules import RuleSet
from consumer.settings import PROJECT

RULES = RuleSet.load(PROJECT / "artifacts" / "rules" / "rules_v1.json")
NUMERIC = [FEATURE_NAMES.index(name) for name in NUMERIC_FEATURES]
OTHERS = [at for at in range(len(FEATURE_NAMES)) if at not in NUMERIC]

Matrix = npt.NDArray[np.float64]


@cache
def transactions(count: int = 600, seed: int = 7) -> pa.RecordBatch:
    """Valid transactions with every known category, as columns."""
    random = np.random.default_rng(seed)
    events = [
        {
            "transaction_id": f"t{at}",
            "customer_id": f"c{at % 50}",
            "transaction_timestamp": 1_780_000_000_000 + int(random.integers(0, 10**10)),
            "amount": float(random.gamma(2, 80)),
            "customer_tenure_days": int(random.integers(0, 3000)),
            "device_is_trusted": bool(random.random() < 0.7),
            "risk_score": float(random.random()),
            "installment_count": int(random.choice([4, 6, 12])),
            "payment_credit_limit": float(random.choice([500, 1000, 5000])),
            "price_comparison_time": int(random.integers(0, 600)),
            **{name: str(random.choice(known)) for name, known in {**ORDINAL, **ONE_HOT}.items()},
        }
        for at in range(count)
    ]
    return columns_from_dicts(events)


@cache
def features() -> Matrix:
    """600×36 raw features."""
    return FeatureEngineer().engineer(transactions()).matrix


@cache
def labels() -> npt.NDArray[np.int64]:
    """600 outcomes that the features explain in part."""
    chance = 1 / (1 + np.exp(3 - 4 * features()[:, FEATURE_NAMES.index("risk_score")]))
    return (np.random.default_rng(1).random(len(chance)) < chance).astype(np.int64)


def scaler(**options: Any) -> ColumnTransformer:
    """The export's own preprocessor: five columns scaled, 31 passed through."""
    steps = [("num", StandardScaler(**options), NUMERIC), ("cat", "passthrough", OTHERS)]
    return ColumnTransformer(steps).fit(features())


def model_set(preprocessor: Any = None, champion: str | None = None, **estimators: Any) -> ModelSet:
    """A set of estimators that were fitted on the preprocessor's output (`fit` does that)."""
    preprocessor = preprocessor or scaler()
    first = champion or next(iter(estimators))
    entries = tuple(
        ModelEntry(name, "test", "champion" if name == first else "challenger", estimator, score_kind(estimator), 0.5)
        for name, estimator in estimators.items()
    )
    golden = tuple(
        GoldenRow(event=event, features=row.tolist(), scores={})
        for event, row in zip(transactions().slice(0, 25).to_pylist(), features()[:25], strict=True)
    )
    return ModelSet("test", "d1" * 32, "2", FEATURE_NAMES, first, entries, preprocessor, golden)


def fit(estimator: Any, preprocessor: Any = None, target: Any = None) -> Any:
    """The estimator, fitted on the preprocessed features."""
    given = (preprocessor or scaler()).transform(features())
    return estimator.fit(given, labels() if target is None else target)


def predictor(preprocessor: Any = None, **estimators: Any) -> BNPLMultiModelPredictor:
    return BNPLMultiModelPredictor(model_set(preprocessor, **estimators))


def controller(**estimators: Any) -> ShadowModeController:
    return ShadowModeController(RULES, predictor(**estimators))
