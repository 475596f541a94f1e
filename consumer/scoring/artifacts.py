"""The models of one export: proved before they are unpickled, and asked for scores by one set of rules.

Loading goes in this order, and stops at the first thing that does not hold:

1. every file's sha256 against the manifest; unlisted files are refused (`manifest.read_proven`)
2. unpickling, from the very bytes that were hashed
3. feature names and feature-spec version against what `scoring.features` makes
4. estimators: two classes 0 and 1, as many inputs as the preprocessor gives, in its order
5. golden rows: events → features → scores, recomputed by the estimators themselves

A scikit-learn other than the one that wrote the files is accepted only because step 5 holds.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import joblib
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import InconsistentVersionWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from consumer.contracts.transaction import columns_from_dicts
from consumer.errors import ArtifactError
from consumer.scoring.features import FeatureEngineer, FloatMatrix
from consumer.scoring.manifest import (
    GoldenRow,
    Metadata,
    metadata_file,
    model_file,
    parse,
    preprocessor_file,
    read_proven,
)

Scores = npt.NDArray[np.float64]
ScoreKind = Literal["probability", "uncalibrated", "value"]
"""`probability`: predict_proba. `uncalibrated`: σ(decision_function). `value`: a regressor's output,
clipped to 0..1."""

GOLDEN_TOLERANCE = 1e-9


@dataclass(frozen=True)
class ModelEntry:
    """One model of a set; `flag_threshold` is None when the export brought none."""

    name: str
    version: str
    role: Literal["champion", "challenger"]
    estimator: Any
    score_kind: ScoreKind
    flag_threshold: float | None = None

    @property
    def left_out(self) -> tuple[str, ...]:
        """Members of a soft-voting ensemble that give no probability and so have no voice."""
        return tuple(name for name, member, _ in members(self.estimator) if score_kind(member) != "probability")


@dataclass(frozen=True)
class ModelSet:
    """A proven export. `digest` is the sha256 of its manifest, which names every byte that was loaded."""

    version: str
    digest: str
    feature_spec_version: str
    feature_names: tuple[str, ...]
    champion: str
    models: tuple[ModelEntry, ...]
    preprocessor: Any
    golden: tuple[GoldenRow, ...]
    warnings: tuple[str, ...] = ()
    """What was accepted but should be known: version skew, members left out, missing thresholds."""

    @cached_property
    def led_by(self) -> dict[str, tuple[ModelEntry, ...]]:
        """The models in their roles when another than the export's own is champion, by its name."""
        return {
            leader.name: tuple(
                replace(each, role="champion" if each.name == leader.name else "challenger") for each in self.models
            )
            for leader in self.models
        }

    @cached_property
    def engineer(self) -> FeatureEngineer:
        return FeatureEngineer(self.feature_names, self.feature_spec_version)

    def preprocess(self, features: FloatMatrix) -> FloatMatrix:
        """n×len(feature_names) raw features → what estimators take: `num` columns first, scaled, then
        `cat`.
        """
        return preprocess(self.preprocessor, self.feature_names, features)

    def scores(self, features: FloatMatrix) -> dict[str, Scores]:
        """Every model's scores of raw features, by the estimators themselves: the reference for anything
        faster.
        """
        matrix = self.preprocess(features)
        return {entry.name: estimator_scores(entry, matrix) for entry in self.models}


def load_model_set(directory: Path, *, expected_digest: str | None = None) -> ModelSet:
    """Prove and load the export in `directory`, named after its version.

    `expected_digest` pins the manifest itself. Raises ArtifactError that names the file at fault and the
    way out.
    """
    manifest, digest, files = read_proven(directory)
    if expected_digest is not None and digest != expected_digest:
        raise ArtifactError(
            f"{directory} has digest {digest}, expected {expected_digest}; deploy the set that was approved"
        )
    version = manifest.version
    wanted = metadata_file(version)
    metadata = parse(Metadata, _listed(files, wanted, directory), directory / wanted)
    if metadata.feature_spec_version != manifest.feature_spec_version:
        raise ArtifactError(
            f"{directory}: manifest and {wanted} differ in feature_spec_version; export the folder again"
        )
    skews: set[str] = set()

    def load(name: str) -> Any:
        estimator, skew = unpickle(_listed(files, name, directory), directory / name)
        skews.update(skew)
        return estimator

    preprocessor = load(preprocessor_file(version))
    models = tuple(
        make_entry(name, version, metadata, load(file := model_file(name, version)), directory / file)
        for name in metadata.models
    )
    model_set = assemble(metadata, models, preprocessor, digest, tuple(manifest.golden), sorted(skews))
    check_inputs(model_set)
    try:
        check_golden(model_set, model_set.scores)
    except ArtifactError as error:
        written = f" ({'; '.join(sorted(skews))})" if skews else ""
        raise ArtifactError(f"{directory}: {error}{written}") from None
    return model_set


def assemble(
    metadata: Metadata,
    models: tuple[ModelEntry, ...],
    preprocessor: Any,
    digest: str,
    golden: tuple[GoldenRow, ...],
    skews: list[str],
) -> ModelSet:
    """A ModelSet of loaded parts, with what should be known about them."""
    champion = metadata.deployment_strategy.champion
    if champion not in metadata.models:
        raise ArtifactError(f"the champion {champion!r} is none of the models: {', '.join(metadata.models)}")
    notes = [*skews]
    for entry in models:
        if entry.score_kind != "probability":
            notes.append(f"{entry.name}: its scores are {entry.score_kind}, not calibrated probabilities")
        if entry.left_out:
            notes.append(f"{entry.name}: members without a probability are left out: {', '.join(entry.left_out)}")
        if entry.flag_threshold is None:
            notes.append(f"{entry.name}: the export brings no flag_threshold, so it raises no flag")
    return ModelSet(
        version=models[0].version,
        digest=digest,
        feature_spec_version=metadata.feature_spec_version,
        feature_names=tuple(metadata.shared_artifacts.feature_names),
        champion=champion,
        models=models,
        preprocessor=preprocessor,
        golden=golden,
        warnings=tuple(notes),
    )


def make_entry(name: str, version: str, metadata: Metadata, estimator: Any, file: Path) -> ModelEntry:
    """The entry of a loaded estimator; raises ArtifactError when it cannot give a score of class 1."""
    facts = metadata.models[name]
    try:
        check_is_fitted(estimator)
        kind = score_kind(estimator)
    except (NotFittedError, TypeError):
        raise ArtifactError(f"{file} holds no fitted scikit-learn estimator; fit it and export again") from None
    except ArtifactError as error:
        raise ArtifactError(f"{file}: {error}") from None
    if facts.score_kind not in (None, kind):
        raise ArtifactError(
            f"{file}: metadata calls {name}'s scores {facts.score_kind!r}, the estimator gives {kind!r}; export again"
        )
    role: Literal["champion", "challenger"] = (
        "champion" if metadata.deployment_strategy.champion == name else "challenger"
    )
    return ModelEntry(name, version, role, estimator, kind, facts.flag_threshold)


def unpickle(content: bytes, where: Path) -> tuple[Any, tuple[str, ...]]:
    """The object, and one line for each scikit-learn version it was written by other than the running one.

    Executes code: only for bytes whose hash was proved, or whose owner vouches for them.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", InconsistentVersionWarning)
        try:
            loaded = joblib.load(io.BytesIO(content))
        except Exception as error:  # unpickling foreign bytes may raise anything at all
            raise ArtifactError(
                f"{where} cannot be unpickled here ({type(error).__name__}: {error});"
                " install the library versions its manifest names, or export it again"
            ) from error
    skews = {
        f"written by scikit-learn {warning.message.original_sklearn_version},"
        f" read by {warning.message.current_sklearn_version}"
        for warning in caught
        if isinstance(warning.message, InconsistentVersionWarning)
    }
    return loaded, tuple(sorted(skews))


def members(estimator: Any) -> list[tuple[str, Any, float]]:
    """(name, fitted member, weight) of a voting ensemble; empty for anything else."""
    voting = estimator.estimator if isinstance(estimator, FrozenEstimator) else estimator
    if not isinstance(voting, VotingClassifier):
        return []
    weights = voting.weights if voting.weights is not None else [1.0] * len(voting.estimators)
    return [
        (name, voting.named_estimators_[name], float(weight))
        for (name, given), weight in zip(voting.estimators, weights, strict=True)
        if not (isinstance(given, str) and given == "drop")
    ]


def score_kind(estimator: Any) -> ScoreKind:
    """What `estimator_scores` gives for this estimator; ArtifactError when it gives nothing usable."""
    classes = getattr(estimator, "classes_", None)
    if classes is not None and np.asarray(classes).tolist() != [0, 1]:
        raise ArtifactError(f"classes are {np.asarray(classes).tolist()}, expected 0 (repaid) and 1 (defaulted)")
    if parts := members(estimator):
        if not any(score_kind(member) == "probability" for _, member, _ in parts):
            raise ArtifactError("no member of the ensemble gives a probability; calibrate the members and export again")
        return "probability"
    if hasattr(estimator, "predict_proba"):
        return "probability"
    if hasattr(estimator, "decision_function"):
        return "uncalibrated"
    if classes is None and hasattr(estimator, "predict"):
        return "value"
    raise ArtifactError(f"{type(estimator).__name__} gives neither a probability, a decision value nor a regression")


def estimator_scores(entry: ModelEntry, matrix: FloatMatrix) -> Scores:
    """N scores in 0..1 of an n×k preprocessed matrix, by the estimator itself and the rules of ScoreKind.

    A soft-voting ensemble is the weighted mean of its members' probabilities; `entry.left_out` names
    members that have none.
    """
    return _scores(entry.estimator, matrix)


def _scores(estimator: Any, matrix: FloatMatrix) -> Scores:
    parts = [part for part in members(estimator) if score_kind(part[1]) == "probability"]
    if parts:
        weights = [weight for *_, weight in parts]
        mean: Scores = np.average([_scores(member, matrix) for _, member, _ in parts], axis=0, weights=weights)
        return mean
    inputs: Any = matrix
    if (names := getattr(estimator, "feature_names_in_", None)) is not None:
        inputs = pd.DataFrame(matrix, columns=names)
    kind = score_kind(estimator)
    if kind == "probability":
        result = estimator.predict_proba(inputs)[:, 1]
    elif kind == "uncalibrated":
        result = expit(estimator.decision_function(inputs))
    else:
        result = np.clip(estimator.predict(inputs), 0.0, 1.0)
    return np.asarray(result, dtype=np.float64).ravel()


def _listed(files: Mapping[str, bytes], name: str, directory: Path) -> bytes:
    if name not in files:
        raise ArtifactError(f"{directory / name} is not listed in the manifest; export the folder again")
    return files[name]


def preprocess(preprocessor: Any, names: tuple[str, ...], features: FloatMatrix) -> FloatMatrix:
    """The fitted ColumnTransformer's output for raw features, as float64."""
    named = hasattr(preprocessor, "feature_names_in_")
    inputs = pd.DataFrame(features, columns=list(names)) if named else features
    return np.asarray(preprocessor.transform(inputs), dtype=np.float64)


def check_inputs(model_set: ModelSet) -> None:
    """Features can be made, the preprocessor takes them, and every estimator takes what it gives, in that
    order.
    """
    names = model_set.engineer.names
    wanted = getattr(model_set.preprocessor, "feature_names_in_", None)
    if wanted is not None and tuple(wanted) != names:
        raise ArtifactError(
            f"{preprocessor_file(model_set.version)} was fitted on other columns, or in another"
            " order, than the metadata's"
            " feature_names; export both from one fit"
        )
    try:
        width = model_set.preprocess(np.zeros((1, len(names)))).shape[1]
    except ValueError as error:
        raise ArtifactError(
            f"{preprocessor_file(model_set.version)} refuses the {len(names)} features: {error}"
        ) from error
    given = _plain(model_set.preprocessor.get_feature_names_out()) if wanted is not None else None
    for entry in model_set.models:
        file = model_file(entry.name, entry.version)
        takes = getattr(entry.estimator, "n_features_in_", width)
        if takes != width:
            raise ArtifactError(
                f"{file} takes {takes} columns, the preprocessor gives {width}; export both from one fit"
            )
        order = getattr(entry.estimator, "feature_names_in_", None)
        if order is not None and given is not None and _plain(order) != given:
            raise ArtifactError(f"{file} was fitted on columns in another order than the preprocessor gives them")


def _plain(names: Any) -> list[str]:
    """Column names without ColumnTransformer's `num__` and `cat__`."""
    return [str(name).rpartition("__")[2] for name in names]


def check_golden(model_set: ModelSet, score: Callable[[FloatMatrix], Mapping[str, Scores]]) -> float:
    """The largest difference between the golden rows and what is computed here; beyond 1e-9 it is an
    ArtifactError.

    `score` maps raw features (n×len(feature_names), contract order) to n scores by model name: the
    estimators' own (`model_set.scores`) or a faster predictor that must agree with them.
    """
    rows = model_set.golden
    features = model_set.engineer.engineer(columns_from_dicts([row.event for row in rows])).matrix
    expected = np.array([row.features for row in rows])
    if expected.shape != features.shape:
        raise ArtifactError(f"golden rows hold {expected.shape[1]} features, this code makes {features.shape[1]}")
    gap = np.abs(features - expected)
    if not (worst := gap.max()) <= GOLDEN_TOLERANCE:
        name = model_set.feature_names[int(np.argmax(gap.max(axis=0)))]
        raise ArtifactError(
            f"golden rows do not hold: feature {name} differs by {worst:.3g}; features changed since the export"
        )
    computed = score(features)
    for entry in model_set.models:
        wanted = np.array([row.scores.get(entry.name, np.nan) for row in rows])
        off = float(np.abs(np.asarray(computed[entry.name]) - wanted).max())
        if not off <= GOLDEN_TOLERANCE:
            raise ArtifactError(
                f"golden rows do not hold: {entry.name} differs by {off:.3g}, allowed are"
                f" {GOLDEN_TOLERANCE:g};"
                " this code or these libraries score otherwise than the export did"
            )
        worst = max(worst, off)
    return float(worst)
