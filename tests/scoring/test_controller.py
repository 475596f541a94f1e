"""The rules decide and the models observe: nothing a model is or does reaches a decision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from fitted import RULES, Matrix, controller, fit, model_set, transactions
from hypothesis import given
from hypothesis import strategies as st
from samples import examples, transaction
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.tree import DecisionTreeClassifier

from consumer.contracts.transaction import columns_from_dicts
from consumer.errors import InvalidRecord
from consumer.scoring.controller import Shadow, ShadowModeController
from consumer.scoring.predictor import BNPLMultiModelPredictor
from consumer.scoring.rules import RuleSet
from consumer.settings import PROJECT


class Saboteur(ClassifierMixin, BaseEstimator):
    """Tries to change what it is given, and then fails."""

    classes_ = np.array([0, 1])

    def predict_proba(self, X: Matrix) -> Any:
        if len(X) > 25:  # the golden rows are 25: it was well-behaved when it was exported
            X[:] = -1.0
            raise RuntimeError
        return np.full((len(X), 2), 0.5)


MODELS = {
    "logistic": fit(LogisticRegression()),
    "ridge": fit(RidgeClassifier()),
    "value": fit(Ridge()),
    "tree": fit(DecisionTreeClassifier(max_depth=2, random_state=1)),
    "saboteur": Saboteur(),
}


def decision_bytes(shadow: Shadow) -> bytes:
    said = shadow.decisions
    batch = pa.RecordBatch.from_arrays(
        [said.decision, said.risk_flag, said.risk_score, said.reason_codes], ["decision", "flag", "score", "codes"]
    )
    return bytes(batch.serialize())


@given(st.sets(st.sampled_from(sorted(MODELS)), min_size=1))
@examples(31)
def test_the_decisions_are_the_same_bytes_whatever_models_observe(names: set[str]) -> None:
    batch = transactions()
    before = bytes(batch.serialize())
    shadow = controller(**{name: MODELS[name] for name in sorted(names)}).score_batch(batch)
    assert decision_bytes(shadow) == decision_bytes(replace(shadow, decisions=RULES.decide(batch)))
    assert bytes(batch.serialize()) == before
    assert set(shadow.predictions.errors) == names & {"saboteur"}


def test_one_transaction_is_a_batch_of_one() -> None:
    one = controller(**MODELS)
    events = transactions().slice(0, 30).to_pylist()
    whole = one.score_batch(columns_from_dicts(events))
    for at, event in enumerate(events):
        told = one.score_single(event)
        assert told["transaction_id"] == event["transaction_id"]
        assert told["business_decision"] == whole.decisions.decision[at].as_py()
        assert told["business_risk_flag"] == whole.decisions.risk_flag[at].as_py()
        assert told["business_risk_score"] == event["risk_score"]
        assert told["reason_codes"] == whole.decisions.reason_codes[at].as_py()
        assert told["rule_set_version"] == RULES.version
        assert told["advisory"] is True
        for row, name in enumerate(MODELS):
            if name != "saboteur":
                assert told["models"][name]["score"] == pytest.approx(whole.predictions.scores[row, at], abs=1e-15)


def test_a_transaction_that_cannot_be_used_is_refused() -> None:
    with pytest.raises(InvalidRecord, match="amount"):
        controller(**MODELS).score_single(transaction(amount=-1.0))


def test_the_identity_changes_with_models_rules_and_feature_spec_and_with_nothing_else() -> None:
    def identity(digest: str, rules: RuleSet, spec: str) -> str:
        changed = replace(model_set(**MODELS), digest=digest, feature_spec_version=spec)
        return ShadowModeController(rules, BNPLMultiModelPredictor(changed)).identity

    content = (PROJECT / "artifacts" / "rules" / "rules_v1.json").read_bytes()
    other_rules = RuleSet(content + b"\n")
    seen = [
        identity("a" * 64, RULES, "2"),
        identity("b" * 64, RULES, "2"),
        identity("a" * 64, other_rules, "2"),
        identity("a" * 64, RULES, "1"),
    ]
    assert len(set(seen)) == 4
    assert identity("a" * 64, RuleSet(content), "2") == seen[0]


def test_no_transactions_are_no_trouble() -> None:
    shadow = controller(**MODELS).score_batch(transactions().slice(0, 0))
    assert len(shadow.decisions.decision) == 0
    assert shadow.predictions.scores.shape == (5, 0)
    assert shadow.predictions.errors == {}
