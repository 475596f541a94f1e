"""Shadow mode: the rules decide, the models observe. The one piece that score service, tests and tools share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from consumer.contracts.transaction import transaction_batch
from consumer.scoring.features import Features
from consumer.scoring.predictor import BNPLMultiModelPredictor, Predictions
from consumer.scoring.rules import Decisions, RuleSet


@dataclass(frozen=True)
class Shadow:
    """What was said of n transactions: `decisions` by the rules, `predictions` by the models."""

    decisions: Decisions
    features: Features
    predictions: Predictions


class ShadowModeController:
    """Rules, features and models on a batch.

    The rules see only the transaction, and have decided before the first model runs: nothing that a model does can
    change a decision.
    """

    def __init__(self, rules: RuleSet, predictor: BNPLMultiModelPredictor) -> None:
        self.rules = rules
        self.predictor = predictor

    @property
    def identity(self) -> str:
        """Digest of model set, rules and feature spec: scoring under the same identity gives the same answer."""
        model_set = self.predictor.model_set
        return f"{model_set.digest[:8]}{self.rules.sha256[:8]}{model_set.feature_spec_version}"

    def score_batch(self, transactions: pa.RecordBatch, lap: Callable[[str], None] = lambda _: None) -> Shadow:
        """Score valid transactions (columns of `contracts.transaction.SCHEMA`).

        `lap` is told the name of each stage when it is over: rules, features, predict.
        """
        decisions = self.rules.decide(transactions)
        lap("rules")
        features = self.predictor.model_set.engineer.engineer(transactions)
        lap("features")
        predictions = self.predictor.predict_batch(features)
        lap("predict")
        return Shadow(decisions, features, predictions)

    def score_single(self, transaction: Mapping[str, Any]) -> dict[str, Any]:
        """One transaction given as a dict: the rules' decision and every model's score, as plain values.

        Raises InvalidRecord when the transaction cannot be used.
        """
        shadow = self.score_batch(transaction_batch([transaction]))
        said = shadow.decisions
        return {
            "transaction_id": transaction["transaction_id"],
            "business_decision": said.decision[0].as_py(),
            "business_risk_flag": said.risk_flag[0].as_py(),
            "business_risk_score": said.risk_score[0].as_py(),
            "reason_codes": said.reason_codes[0].as_py(),
            "rule_set_version": self.rules.version,
            **self.predictor.describe(shadow.predictions),
        }
