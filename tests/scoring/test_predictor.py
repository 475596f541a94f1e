"""Every model of a set gives its own score or none; no model can touch another's, and one is a batch of one."""

from __future__ import annotations

import threading
from collections import Counter
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
from fitted import Matrix, features, fit, model_set, predictor, transactions
from harness import eventually
from samples import transaction
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.tree import DecisionTreeClassifier

from consumer.contracts.transaction import columns_from_dicts
from consumer.errors import InvalidRecord
from consumer.scoring.artifacts import load_model_set
from consumer.scoring.breaker import Budget
from consumer.scoring.features import FEATURE_NAMES, Features
from consumer.scoring.predictor import BNPLMultiModelPredictor
from consumer.settings import PROJECT


class Misbehaving(ClassifierMixin, BaseEstimator):
    """A fitted classifier that scores 0.25, unless it is on the golden rows' 25 and told to behave otherwise after."""

    classes_ = np.array([0, 1])

    def __init__(self, how: str = "") -> None:
        self.how = how

    def predict_proba(self, X: Matrix) -> Any:
        chances = np.full((len(X), 2), [0.75, 0.25])
        match self.how:
            case "raises":
                raise RuntimeError("a secret of the data: 4711")
            case "leaves":
                raise SystemExit
            case "gives NaN":
                chances[::2] = np.nan
            case "gives infinity":
                chances[:, 1] = np.inf
            case "gives one score for all":
                chances = chances[:1]
            case "gives too few":
                chances = chances[:-1]
            case "gives one column":
                chances = chances[:, :1]
            case "gives text":
                chances = np.full((len(X), 2), "high", dtype=object)
            case "gives nothing":
                return None
            case "writes into its input":
                X[:] = 0.0
            case "writes through a view":
                X.T[0] = 1e9
        return chances


MISBEHAVIOURS = {
    "raises": "RuntimeError",
    "leaves": "SystemExit",
    "gives NaN": "NotFinite",
    "gives infinity": "NotFinite",
    "gives one score for all": "ValueError",
    "gives too few": "ValueError",
    "gives one column": "IndexError",
    "gives text": "ValueError",
    "gives nothing": "TypeError",
    "writes into its input": "ValueError",
    "writes through a view": "ValueError",
}

PATIENT = Budget(60, 60)
"""Nobody outlasts it, on however busy a machine."""


@cache
def healthy() -> dict[str, Any]:
    """Two fused models and two that run by themselves."""
    return {
        "logistic": fit(LogisticRegression()),
        "ridge": fit(RidgeClassifier()),
        "tree": fit(DecisionTreeClassifier(max_depth=3, random_state=1)),
        "boosted": fit(HistGradientBoostingClassifier(max_iter=5, random_state=1)),
    }


def scored(one: BNPLMultiModelPredictor, matrix: Matrix) -> Any:
    return one.predict_batch(Features(FEATURE_NAMES, matrix, Counter()))


def misbehaving(how: str, *, budget: Budget | None = None, **others: Any) -> BNPLMultiModelPredictor:
    """Well-behaved while the predictor is made, as it was when it was exported."""
    culprit = Misbehaving()
    first, last = list(others.items())[:2], list(others.items())[2:]
    one = BNPLMultiModelPredictor(model_set(**dict(first), culprit=culprit, **dict(last)), budget)
    culprit.how = how
    return one


@pytest.mark.parametrize("budget", [None, PATIENT], ids=["in the caller's thread", "in its own"])
@pytest.mark.parametrize("how", MISBEHAVIOURS)
def test_a_model_that_misbehaves_loses_its_own_score_with_a_reason_and_nothing_else(
    how: str, budget: Budget | None
) -> None:
    others = healthy()
    alone = scored(predictor(**others), features())
    one = misbehaving(how, budget=budget, **others)
    together = scored(one, features())
    assert one.switched_off == frozenset()
    names = [entry.name for entry in together.models]
    kept = [at for at, name in enumerate(names) if name != "culprit"]
    np.testing.assert_array_equal(together.scores[kept], alone.scores)
    assert together.errors == {"culprit": MISBEHAVIOURS[how]}
    lost = np.isnan(together.scores[names.index("culprit")])
    assert lost.all() if how != "gives NaN" else lost.tolist() == [at % 2 == 0 for at in range(600)]
    np.testing.assert_allclose(together.consensus, np.nanmean(together.scores, axis=0), rtol=0, atol=1e-15)


class Hanging(ClassifierMixin, BaseEstimator):
    """Scores 0.25 while it is let go."""

    classes_ = np.array([0, 1])

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()

    def predict_proba(self, X: Matrix) -> Any:
        assert self.go.wait(120)
        return np.full((len(X), 2), [0.75, 0.25])


def test_a_model_that_hangs_costs_its_own_scores_and_one_budget_and_comes_back() -> None:
    others = healthy()
    culprit = Hanging()
    alone = scored(predictor(**others), features())
    one = BNPLMultiModelPredictor(model_set(**others, culprit=culprit), Budget(3, 0.01))
    assert one.guarded_calls == 4
    assert scored(one, features()).errors == {}
    culprit.go.clear()
    for error in ("TooSlow", "SwitchedOff", "SwitchedOff"):
        hung = scored(one, features())
        assert hung.errors == {"culprit": error}
        assert np.isnan(hung.scores[4]).all()
        np.testing.assert_array_equal(hung.scores[:4], alone.scores)
        np.testing.assert_array_equal(hung.consensus, alone.scores.mean(axis=0))
        assert one.switched_off == {"culprit"}
    culprit.go.set()
    eventually(lambda: not scored(one, features()).errors, 30, "it is tried again")
    assert one.switched_off == frozenset()
    assert (scored(one, features()).scores[4] == 0.25).all()


def test_a_preprocessor_that_hangs_takes_the_models_that_need_it_and_not_the_fused_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = BNPLMultiModelPredictor(model_set(**healthy()), Budget(3, 0.01))
    before = scored(one, features())
    go = threading.Event()
    transform = type(one.model_set.preprocessor).transform

    def hang(*given: Any, **others: Any) -> Any:
        assert go.wait(120)
        return transform(*given, **others)

    monkeypatch.setattr(one.model_set.preprocessor, "transform", partial(hang, one.model_set.preprocessor))
    hung = scored(one, features())
    np.testing.assert_array_equal(hung.scores[:2], before.scores[:2])
    assert hung.errors == {"tree": "TooSlow", "boosted": "TooSlow"}
    assert one.switched_off == {"tree", "boosted"}
    go.set()
    eventually(lambda: not scored(one, features()).errors, 30, "it is tried again")


def test_golden_rows_are_scored_however_long_it_takes() -> None:
    hasty = BNPLMultiModelPredictor(model_set(**healthy()), Budget(1e-9, 60))
    assert set(scored(hasty, features()).errors.values()) <= {"TooSlow", "SwitchedOff"}
    assert all(np.isfinite(scores).all() for scores in hasty.score_features(features()).values())


def test_there_is_no_thread_where_all_models_run_fused() -> None:
    before = set(threading.enumerate())
    one = BNPLMultiModelPredictor(model_set(logistic=healthy()["logistic"]), PATIENT)
    one.predict_single_transaction(transaction())
    assert one.guarded_calls == 0
    assert set(threading.enumerate()) <= before


def test_the_reason_names_the_kind_of_error_and_none_of_its_data() -> None:
    one = misbehaving("raises", **healthy())
    told = one.predict_single_transaction(transaction())
    assert told["models"]["culprit"]["error"] == "RuntimeError"
    assert "4711" not in str(told)


def test_the_consensus_is_the_mean_of_the_scores_that_are_there_and_none_where_there_are_none() -> None:
    predictions = scored(predictor(**healthy()), features())
    np.testing.assert_allclose(predictions.consensus, predictions.scores.mean(axis=0), rtol=0, atol=1e-15)
    only = scored(misbehaving("gives NaN"), features())
    assert np.isnan(only.consensus[::2]).all()
    assert (only.consensus[1::2] == 0.25).all()


def test_a_fifth_model_flows_through() -> None:
    five = predictor(**healthy(), ridge_value=fit(Ridge()))
    told = five.predict_single_transaction(transaction())
    assert list(told["models"]) == ["logistic", "ridge", "tree", "boosted", "ridge_value"]
    assert told["models"]["ridge_value"]["score_kind"] == "value"
    assert told["models"]["ridge"]["score_kind"] == "uncalibrated"
    assert told["consensus"] == pytest.approx(np.mean([model["score"] for model in told["models"].values()]), abs=1e-15)


def test_a_transaction_scores_the_same_alone_and_in_a_batch() -> None:
    one = predictor(**healthy())
    events = transactions().slice(0, 20).to_pylist()
    whole = one.predict_batch(one.model_set.engineer.engineer(columns_from_dicts(events)))
    for at, event in enumerate(events):
        told = one.predict_single_transaction(event)
        assert [model["score"] for model in told["models"].values()] == pytest.approx(whole.scores[:, at], abs=1e-15)


def test_a_failing_preprocessor_takes_the_models_that_need_it_and_not_the_fused_ones() -> None:
    one = predictor(**healthy())
    fused_before = scored(one, features()).scores[:2]
    one.model_set.preprocessor.transformers_ = None
    predictions = scored(one, features())
    np.testing.assert_array_equal(predictions.scores[:2], fused_before)
    assert np.isnan(predictions.scores[2:]).all()
    assert set(predictions.errors) == {"tree", "boosted"}


def test_no_transactions_give_no_scores_and_no_errors() -> None:
    predictions = scored(predictor(**healthy()), np.empty((0, 36)))
    assert predictions.scores.shape == (4, 0)
    assert predictions.errors == {}


def test_an_absurd_amount_leaves_its_neighbours_scores_alone() -> None:
    one = predictor(**healthy())
    matrix = features().copy()
    before = scored(one, matrix.copy())
    matrix[5, FEATURE_NAMES.index("amount")] = 1.7e308
    after = scored(one, matrix)
    kept = [at for at in range(600) if at != 5]
    np.testing.assert_array_equal(after.scores[:, kept], before.scores[:, kept])
    assert ((after.scores[:, 5] >= 0) & (after.scores[:, 5] <= 1) | np.isnan(after.scores[:, 5])).all()


def test_scoring_leaves_the_callers_features_as_they_were_and_writable() -> None:
    matrix = np.asfortranarray(features().copy())
    one = misbehaving("writes into its input", **healthy())
    one.score_features(matrix)
    np.testing.assert_array_equal(matrix, features())
    matrix[0, 0] = 1.0


def test_a_flag_is_raised_at_the_threshold_and_only_with_a_score() -> None:
    one = misbehaving("raises", **healthy())
    for event in transactions().slice(0, 20).to_pylist():
        for name, model in one.predict_single_transaction(event)["models"].items():
            assert model["flag"] == (None if name == "culprit" else model["score"] >= 0.5)


def test_the_champion_decides_by_its_flag_and_only_advises() -> None:
    one = predictor(logistic=healthy()["logistic"])
    decisions = set()
    for event in transactions().slice(0, 200).to_pylist():
        told = one.predict_single_transaction(event)
        assert told["champion"] == "logistic"
        assert told["champion_score"] == told["models"]["logistic"]["score"]
        decided = one.get_champion_decision(told)
        assert decided == {
            "model": "logistic",
            "score": told["champion_score"],
            "decision": "decline" if told["champion_score"] >= 0.5 else "approve",
            "advisory": True,
        }
        decisions.add(decided["decision"])
    assert decisions == {"approve", "decline"}


def test_a_champion_that_failed_decides_nothing() -> None:
    culprit = Misbehaving()
    one = BNPLMultiModelPredictor(model_set(champion="culprit", **healthy(), culprit=culprit))
    culprit.how = "raises"
    decided = one.get_champion_decision(one.predict_single_transaction(transaction()))
    assert decided == {"model": "culprit", "score": None, "decision": None, "advisory": True}


def test_a_transaction_that_cannot_be_used_is_refused() -> None:
    with pytest.raises(InvalidRecord, match="risk_score"):
        predictor(**healthy()).predict_single_transaction(transaction(risk_score=2.0))


def test_the_shipped_models_all_run_fused_and_agree_with_scikit_learn() -> None:
    shipped = load_model_set(PROJECT / "artifacts" / "v1")
    one = BNPLMultiModelPredictor(shipped)
    assert one.fused_models == tuple(entry.name for entry in shipped.models)
    scores, expected = one.score_features(features()), shipped.scores(features())
    for name, wanted in expected.items():
        np.testing.assert_allclose(scores[name], wanted, rtol=0, atol=1e-12, err_msg=name)
