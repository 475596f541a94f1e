"""A fused score is scikit-learn's own to 1e-12, whatever the linear model; what cannot be fused runs by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fitted import NUMERIC, OTHERS, features, fit, labels, predictor, scaler
from scipy.special import expit
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import (
    ElasticNet,
    Lasso,
    LinearRegression,
    LogisticRegression,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from consumer.scoring.artifacts import estimator_scores
from consumer.scoring.linear import FusedScores, Term

L1 = LogisticRegression(l1_ratio=1, solver="liblinear", C=0.1)
ELASTIC = LogisticRegression(l1_ratio=0.5, solver="saga", C=0.1, max_iter=5000, random_state=1, tol=1e-3)


def sigmoid_calibrated(estimator: Any, **options: Any) -> CalibratedClassifierCV:
    return CalibratedClassifierCV(estimator, method="sigmoid", **options)


def voting(*members: Any, **options: Any) -> VotingClassifier:
    return VotingClassifier([(f"m{at}", each) for at, each in enumerate(members)], voting="soft", **options)


FUSED = {
    "logistic l2": LogisticRegression(),
    "logistic l1": L1,
    "logistic elastic net": ELASTIC,
    "logistic without intercept": LogisticRegression(fit_intercept=False),
    "logistic, classes weighted": LogisticRegression(class_weight="balanced"),
    "ridge classifier": RidgeClassifier(),
    "ridge": Ridge(),
    "linear regression": LinearRegression(),
    "lasso": Lasso(alpha=0.01),
    "elastic net": ElasticNet(alpha=0.01),
    "calibrated ridge, 3 folds": sigmoid_calibrated(RidgeClassifier(), cv=3),
    "calibrated logistic, one calibrator": sigmoid_calibrated(LogisticRegression(), cv=3, ensemble=False),
    "voting": voting(LogisticRegression(), L1),
    "voting with weights": voting(LogisticRegression(), L1, ELASTIC, weights=[1, 5, 0.5]),
    "voting over calibrated": voting(sigmoid_calibrated(RidgeClassifier(), cv=3), LogisticRegression()),
}
BY_THEMSELVES = {
    "isotonic": CalibratedClassifierCV(RidgeClassifier(), method="isotonic", cv=3),
    "gradient boosting": GradientBoostingClassifier(n_estimators=5, random_state=1),
    "histogram gradient boosting": HistGradientBoostingClassifier(max_iter=5, random_state=1),
    "tree": DecisionTreeClassifier(max_depth=3, random_state=1),
    "naive bayes": GaussianNB(),
    "support vectors": LinearSVC(random_state=1),
    "stochastic gradient": SGDClassifier(loss="log_loss", random_state=1),
    "pipeline": make_pipeline(StandardScaler(), LogisticRegression()),
    "voting with a tree": voting(LogisticRegression(), DecisionTreeClassifier(max_depth=3, random_state=1)),
    "calibrated tree": sigmoid_calibrated(DecisionTreeClassifier(max_depth=3, random_state=1), cv=3),
}


def score_by_scikit_learn(estimator: Any, matrix: Any) -> Any:
    """Class 1 as scikit-learn itself says it; σ of a bare decision, a regression clipped."""
    if hasattr(estimator, "predict_proba"):
        return estimator.predict_proba(matrix)[:, 1]
    if hasattr(estimator, "decision_function"):
        return expit(estimator.decision_function(matrix))
    return np.clip(estimator.predict(matrix), 0, 1)


@pytest.mark.parametrize("kind", [*FUSED, *BY_THEMSELVES])
def test_scores_are_scikit_learns_own(kind: str) -> None:
    estimator = fit((FUSED | BY_THEMSELVES)[kind])
    one = predictor(it=estimator)
    assert (one.fused_models == ("it",)) == (kind in FUSED)
    expected = score_by_scikit_learn(estimator, scaler().transform(features()))
    np.testing.assert_allclose(one.score_features(features())["it"], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["logistic l1", "calibrated ridge, 3 folds", "voting with weights"])
def test_a_frozen_or_prefit_calibrated_model_is_fused_too(kind: str) -> None:
    estimator = fit(FUSED[kind])
    frozen = FrozenEstimator(estimator)
    prepared = scaler().transform(features())
    np.testing.assert_allclose(
        predictor(it=frozen).score_features(features())["it"], estimator.predict_proba(prepared)[:, 1], atol=1e-12
    )
    assert predictor(it=frozen).fused_models == ("it",)


def test_a_model_calibrated_after_it_was_fitted_is_fused() -> None:
    calibrated = fit(sigmoid_calibrated(FrozenEstimator(fit(RidgeClassifier()))))
    one = predictor(it=calibrated)
    assert one.fused_models == ("it",)
    expected = calibrated.predict_proba(scaler().transform(features()))[:, 1]
    np.testing.assert_allclose(one.score_features(features())["it"], expected, rtol=0, atol=1e-12)


def test_a_member_without_a_probability_has_no_voice_and_weights_count_among_the_others() -> None:
    ensemble = fit(voting(LogisticRegression(), RidgeClassifier(), L1, weights=[3, 10, 1]))
    one = predictor(it=ensemble)
    assert one.fused_models == ("it",)
    assert one.model_set.models[0].left_out == ("m1",)
    prepared = scaler().transform(features())
    first, last = (ensemble.named_estimators_[name].predict_proba(prepared)[:, 1] for name in ("m0", "m2"))
    np.testing.assert_allclose(one.score_features(features())["it"], (3 * first + last) / 4, rtol=0, atol=1e-12)


PREPROCESSORS = {
    "scaled and passed through": (scaler(), True),
    "not centred": (scaler(with_mean=False), True),
    "not scaled": (scaler(with_std=False), True),
    "neither": (scaler(with_mean=False, with_std=False), True),
    "columns by slice": (ColumnTransformer([("all", StandardScaler(), slice(0, 36))]), True),
    "columns by mask": (
        ColumnTransformer(
            [("num", StandardScaler(), [at in NUMERIC for at in range(36)]), ("cat", "passthrough", OTHERS)]
        ),
        True,
    ),
    "columns from the end": (ColumnTransformer([("last", StandardScaler(), [-1, -2])], remainder="passthrough"), True),
    "some dropped": (ColumnTransformer([("num", StandardScaler(), NUMERIC), ("gone", "drop", OTHERS[:9])]), True),
    "the rest passed through": (ColumnTransformer([("num", StandardScaler(), NUMERIC)], remainder="passthrough"), True),
    "an identity function": (ColumnTransformer([("same", FunctionTransformer(), list(range(36)))]), True),
    "another scaler": (ColumnTransformer([("num", MinMaxScaler(), NUMERIC), ("cat", "passthrough", OTHERS)]), False),
    "a function": (ColumnTransformer([("log", FunctionTransformer(np.log1p), [0])], remainder="passthrough"), False),
    "no column transformer": (StandardScaler(), False),
}


@pytest.mark.parametrize("kind", PREPROCESSORS)
def test_the_preprocessor_is_folded_in_only_when_it_does_no_more_than_scale(kind: str) -> None:
    preprocessor, folded = PREPROCESSORS[kind]
    preprocessor.fit(features())
    estimator = fit(RidgeClassifier(), preprocessor)  # solved in closed form, so unscaled columns do not matter
    one = predictor(preprocessor, it=estimator)
    assert (one.fused_models == ("it",)) == folded
    expected = expit(estimator.decision_function(preprocessor.transform(features())))
    np.testing.assert_allclose(one.score_features(features())["it"], expected, rtol=0, atol=1e-12)


def test_an_estimator_that_only_looks_linear_is_not_believed() -> None:
    class Squared(LogisticRegression):
        """Its decision is not what its coefficients say."""

        def predict_proba(self, X: Any) -> Any:
            return super().predict_proba(X) ** 2

    estimator = fit(Squared())
    one = predictor(it=estimator)
    assert one.fused_models == ()
    expected = estimator.predict_proba(scaler().transform(features()))[:, 1]
    np.testing.assert_allclose(one.score_features(features())["it"], expected, rtol=0, atol=1e-12)


def test_what_the_golden_rows_contradict_is_not_fused() -> None:
    estimator = fit(LogisticRegression())
    honest = estimator.predict_proba
    estimator.predict_proba = lambda X: honest(X) * (1 + 1e-9)
    assert predictor(it=estimator).fused_models == ()


def test_models_that_share_a_form_compute_it_once_and_get_their_own_mix() -> None:
    random = np.random.default_rng(3)
    a, b = (Term(random.normal(size=4), 0.1 * at, "sigmoid") for at in range(2))
    half = [Term(each.weights, each.bias, each.link, 0.5) for each in (a, b)]
    matrix = random.normal(size=(9, 4))
    scores = FusedScores([[a], [b], half]).score(matrix)
    expected = [expit(matrix @ each.weights + each.bias) for each in (a, b)]
    np.testing.assert_allclose(scores, [*expected, np.mean(expected, axis=0)], atol=1e-15)


def test_extreme_decisions_saturate() -> None:
    steep = Term(np.array([1e290]), 0.0, "sigmoid")
    clipped = Term(np.array([1.0]), 0.0, "clip")
    scores = FusedScores([[steep], [clipped]]).score(np.array([[-1e9], [0.0], [1e9]]))
    assert scores.tolist() == [[0.0, 0.5, 1.0], [0.0, 0.0, 1.0]]


def test_the_labels_are_worth_learning() -> None:
    estimator = fit(LogisticRegression())
    entry = predictor(it=estimator).model_set.models[0]
    scores = estimator_scores(entry, scaler().transform(features()))
    assert scores[labels() == 1].mean() > scores[labels() == 0].mean() + 0.1
