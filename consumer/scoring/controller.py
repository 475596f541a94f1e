"""Rules and models on a batch, and which decision stands. The one piece that score service, tests and tools share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from consumer.contracts.transaction import SCHEMA, transaction_batch
from consumer.scoring.activation import Activation, Standing, stand
from consumer.scoring.features import Features
from consumer.scoring.predictor import BNPLMultiModelPredictor, Predictions
from consumer.scoring.rules import Decisions, RuleSet


@dataclass(frozen=True)
class Shadow:
    """What was said of n transactions: `decisions` by the rules, `predictions` by the models, and which stands."""

    decisions: Decisions
    features: Features
    predictions: Predictions
    standing: Standing


class ShadowModeController:
    """Rules, features and models on a batch.

    The rules see only the transaction, and have decided before the first model runs: nothing that a model does can
    change their decision. Which decision stands is for `scoring/activation.py` to say: theirs, unless told otherwise.
    """

    def __init__(self, rules: RuleSet, predictor: BNPLMultiModelPredictor) -> None:
        self.rules = rules
        self.predictor = predictor

    @property
    def identity(self) -> str:
        """Digest of model set, rules and feature spec: scoring under the same identity gives the same answer."""
        model_set = self.predictor.model_set
        return f"{model_set.digest[:8]}{self.rules.sha256[:8]}{model_set.feature_spec_version}"

    @property
    def at_rest(self) -> Activation:
        """What holds without a promotion: the export's own champion, in shadow."""
        return Activation(self.predictor.model_set.champion)

    def score_batch(
        self,
        transactions: pa.RecordBatch,
        lap: Callable[[str], None] = lambda _: None,
        activation: Activation | None = None,
    ) -> Shadow:
        """Score valid transactions (columns of `contracts.transaction.SCHEMA`).

        `lap` is told the name of each stage when it is over: rules, features, predict. `activation` says who decides;
        None is `at_rest`.
        """
        activation = activation or self.at_rest
        decisions = self.rules.decide(transactions)
        lap("rules")
        features = self.predictor.model_set.engineer.engineer(transactions)
        lap("features")
        predictions = self.predictor.predict_batch(features, activation.champion)
        standing = stand(activation, decisions, predictions, transactions.column("customer_id"))
        lap("predict")
        return Shadow(decisions, features, predictions, standing)

    def score_single(self, transaction: Mapping[str, Any], activation: Activation | None = None) -> dict[str, Any]:
        """One transaction given as a dict: the rules' decision, every model's score and which decision stands, as plain
        values. `activation` as in `score_batch`.

        Raises InvalidRecord when the transaction cannot be used.
        """
        shadow = self.score_batch(transaction_batch([transaction]), activation=activation)
        standing = shadow.standing
        return {
            "transaction_id": transaction["transaction_id"],
            **self._ruled(shadow.decisions.plain(0)),
            **self.predictor.describe(shadow.predictions),
            "mode": standing.mode,
            "decision": standing.decision[0].as_py(),
            "decided_by": standing.decided_by[0].as_py(),
            "advisory": standing.advisory[0].as_py(),
        }

    def advise(self, transactions: pa.RecordBatch) -> list[dict[str, Any]]:
        """What rules and models say of each transaction, as plain values. Nothing of it stands: all is advisory."""
        shadow = self.score_batch(transactions)
        return [
            {
                "transaction_id": transaction_id,
                **self._ruled(shadow.decisions.plain(row)),
                **self.predictor.describe(shadow.predictions, row),
            }
            for row, transaction_id in enumerate(transactions.column("transaction_id").to_pylist())
        ]

    def advise_plain(self, values: Sequence[Any]) -> dict[str, Any]:
        """The same of one transaction given as its `contracts.transaction.plain_values`, sooner than by columns."""
        predictor = self.predictor
        said = self.rules.decide_plain(values)
        predictions = predictor.predict_batch(predictor.model_set.engineer.engineer_plain(values))
        return {"transaction_id": values[_ID], **self._ruled(said), **predictor.describe(predictions)}

    def _ruled(self, said: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "business_decision": said["decision"],
            "business_risk_flag": said["risk_flag"],
            "business_risk_score": said["risk_score"],
            "reason_codes": said["reason_codes"],
            "rule_set_version": self.rules.version,
        }


_ID = SCHEMA.names.index("transaction_id")
