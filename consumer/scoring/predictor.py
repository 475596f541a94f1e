"""All models of a set on a batch of features: linear ones in one matrix product, others by their own predict, each
in a thread of its own and within a budget of time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isnan, nan
from typing import Any

import numpy as np
import numpy.typing as npt

from consumer.scoring.artifacts import ModelEntry, ModelSet, estimator_scores
from consumer.scoring.breaker import Answer, Budget, Call, Guard, attempt
from consumer.scoring.features import Features
from consumer.scoring.linear import FusedScores, fold_preprocessor, terms

Floats = npt.NDArray[np.float64]
Ask = Callable[[Floats], Answer]

AGREEMENT = 1e-12
"""How closely a fused score must agree with scikit-learn's own on the golden rows to be used in its place."""


@dataclass(frozen=True)
class Predictions:
    """Scores of n transactions by K models.

    `scores` is K×n; a score that could not be made is NaN and `errors` says why, by model: `NotFinite`, `TooSlow`,
    `SwitchedOff`, or the name of the exception that the model raised. `consensus` is the mean of the scores that are
    there, NaN where there is none.
    """

    models: tuple[ModelEntry, ...]
    champion: str
    scores: Floats
    consensus: Floats
    errors: Mapping[str, str]

    @property
    def champion_scores(self) -> Floats:
        """N scores of the champion."""
        row: Floats = self.scores[self._champion_row]
        return row

    @property
    def champion_threshold(self) -> float:
        """From which score on the champion flags; NaN when the export brought none."""
        threshold = self.models[self._champion_row].flag_threshold
        return nan if threshold is None else threshold

    @property
    def _champion_row(self) -> int:
        return [entry.name for entry in self.models].index(self.champion)


class BNPLMultiModelPredictor:
    """Scores with every model of a ModelSet, as many as its metadata lists.

    A model that raises, gives a non-finite number or takes longer than its budget loses its own scores and nothing
    else.
    """

    def __init__(self, model_set: ModelSet, budget: Budget | None = None) -> None:
        """`budget`: of each model that does not run fused, and of the preprocessor that these need. None waits for
        them, in the caller's own thread.
        """
        self.model_set = model_set
        self._fused, self._slow = self._fuse()
        calls: list[Call] = [
            model_set.preprocess,
            *(partial(_scores_of_all, model_set.models[at]) for at in self._slow),
        ]
        self._patient: Sequence[Ask] = [partial(attempt, call) for call in calls]
        self._guards = [Guard(call, budget) for call in calls] if budget and self._slow else []

    def _fuse(self) -> tuple[tuple[list[int], FusedScores | None], list[int]]:
        """Which models run fused, and which by themselves. Fusing is believed only where it agrees."""
        entries = self.model_set.models
        candidates = {}
        for at, entry in enumerate(entries):
            inner = terms(entry.estimator)
            folded = inner and fold_preprocessor(self.model_set.preprocessor, self.model_set.feature_names, inner)
            if folded:
                candidates[at] = folded
        probe = np.asfortranarray([row.features for row in self.model_set.golden], np.float64)
        reference = self.model_set.scores(probe)
        agreeing = [
            at
            for at, folded in candidates.items()
            if np.abs(FusedScores([folded]).score(probe)[0] - reference[entries[at].name]).max() <= AGREEMENT
        ]
        fused = FusedScores([candidates[at] for at in agreeing]) if agreeing else None
        return (agreeing, fused), [at for at in range(len(entries)) if at not in agreeing]

    @property
    def fused_models(self) -> tuple[str, ...]:
        """Names of the models that run in the one matrix product."""
        return tuple(self.model_set.models[at].name for at in self._fused[0])

    @property
    def guarded_calls(self) -> int:
        """How many calls of a batch may each take a whole budget."""
        return len(self._guards)

    @property
    def switched_off(self) -> frozenset[str]:
        """Names of the models that are left out now because a call took too long."""
        if not self._guards:
            return frozenset()
        preprocessor, *models = self._guards
        return frozenset(
            self.model_set.models[at].name
            for at, guard in zip(self._slow, models, strict=True)
            if preprocessor.off or guard.off
        )

    def predict_batch(self, features: Features, champion: str | None = None) -> Predictions:
        """Scores of a batch of features made by `model_set.engineer`. `champion`: who it is, if not the export's own;
        no score depends on it.
        """
        return self._predict(features, self._guards or self._patient, champion or self.model_set.champion)

    def _predict(self, features: Features, slow: Sequence[Ask], champion: str) -> Predictions:
        entries = self.model_set.led_by[champion]
        matrix = features.matrix.view()
        matrix.flags.writeable = False  # one model must not change what another sees
        scores = np.empty((len(entries), len(matrix)))
        errors: dict[str, str] = {}
        rows, fused = self._fused
        with np.errstate(over="ignore", invalid="ignore"):  # an absurd amount costs its own scores, and no warning
            if fused is not None:
                scores[rows] = fused.score(matrix)
            if self._slow and len(matrix):  # scikit-learn raises over no rows
                self._score_slow(matrix, slow, scores, errors)
        finite = np.isfinite(scores)
        if finite.all():
            consensus = np.add.reduce(scores / len(entries))  # divided first: a sum of absurd scores may overflow
        else:
            for at, entry in enumerate(entries):
                if not finite[at].all():
                    errors.setdefault(entry.name, "NotFinite")
            scores[~finite] = np.nan
            there = finite.sum(axis=0)
            shares = np.where(finite, scores, 0.0) / np.maximum(there, 1)
            consensus = np.where(there > 0, np.add.reduce(shares), np.nan)
        return Predictions(entries, champion, scores, consensus, errors)

    def score_features(self, matrix: Floats) -> dict[str, Floats]:
        """Scores by model of n×features raw features in contract order, however long they take: what golden rows are
        checked against.
        """
        features = Features(self.model_set.feature_names, matrix, Counter())
        scores = self._predict(features, self._patient, self.model_set.champion).scores
        return {entry.name: row for entry, row in zip(self.model_set.models, scores, strict=True)}

    def _score_slow(self, matrix: Floats, asks: Sequence[Ask], scores: Floats, errors: dict[str, str]) -> None:
        """Score the rows that scikit-learn takes: it computes in float32 here and there, and raises beyond it."""
        scores[self._slow] = np.nan
        preprocess, *models = asks
        prepared = preprocess(matrix)
        if isinstance(prepared, str):  # a failing preprocessor takes its models, not the batch
            errors.update((self.model_set.models[at].name, prepared) for at in self._slow)
            return
        taken = np.flatnonzero(np.abs(prepared).max(axis=1) <= np.finfo(np.float32).max)
        if not len(taken):
            return
        prepared = prepared[taken]
        prepared.flags.writeable = False  # one model must not change what another sees
        for at, ask in zip(self._slow, models, strict=True):
            given = ask(prepared)
            if isinstance(given, str):
                errors[self.model_set.models[at].name] = given
            else:
                scores[at, taken] = given

    def predict_single_transaction(self, transaction: Mapping[str, Any]) -> dict[str, Any]:
        """All scores of one transaction given as a dict.

        Raises InvalidRecord when the transaction cannot be used.
        """
        return self.describe(self.predict_batch(self.model_set.engineer.engineer_one(transaction)))

    def describe(self, predictions: Predictions, row: int = 0) -> dict[str, Any]:
        """One transaction's predictions as plain values; a score that is not there is None."""
        models = {
            entry.name: {
                "score": score,
                "score_kind": entry.score_kind,
                "flag": None if entry.flag_threshold is None or score is None else score >= entry.flag_threshold,
                "role": entry.role,
                "version": entry.version,
                "error": predictions.errors.get(entry.name) if score is None else None,
            }
            for entry, score in zip(predictions.models, map(_plain, predictions.scores[:, row].tolist()), strict=True)
        }
        return {
            "models": models,
            "champion": predictions.champion,
            "champion_score": models[predictions.champion]["score"],
            "consensus": _plain(predictions.consensus[row].item()),
            "artifact_version": self.model_set.version,
            "feature_spec_version": self.model_set.feature_spec_version,
            "advisory": True,
        }

    def get_champion_decision(self, prediction: Mapping[str, Any]) -> dict[str, Any]:
        """What the champion would decide of a transaction, from `predict_single_transaction`'s answer. Advisory.

        `decision` is None when the champion gave no score or has no threshold: then only the rules can decide.
        """
        champion = prediction["models"][prediction["champion"]]
        decision = None if champion["flag"] is None else ("decline" if champion["flag"] else "approve")
        return {
            "model": prediction["champion"],
            "score": champion["score"],
            "decision": decision,
            "advisory": True,
        }


def _scores_of_all(entry: ModelEntry, matrix: Floats) -> Floats:
    given = estimator_scores(entry, matrix)
    if given.shape != (len(matrix),):
        raise ValueError(f"{len(given)} scores for {len(matrix)} rows")
    return given


def _plain(score: float) -> float | None:
    return None if isnan(score) else score
