"""From labelled transactions to a proven artifact folder: fit, set thresholds, measure, export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from threadpoolctl import threadpool_limits

from consumer.research.card import model_card
from consumer.research.dataset import Codes, Dataset, Mask, Split, split_by_time
from consumer.research.export import (
    BASELINE_METRICS,
    MODEL_CARD,
    RULES_BASELINE,
    TARGETS,
    TRAINING_STATS,
    deployment_strategy,
    dump,
    json_bytes,
    model_facts,
    shared_artifacts,
    write_artifact,
)
from consumer.research.golden import golden_events, golden_rows
from consumer.research.measures import discrimination, measure, training_statistics
from consumer.research.training import TrainedModels, fit_models, flag_threshold
from consumer.scoring.artifacts import ModelSet, assemble, make_entry
from consumer.scoring.features import FEATURE_NAMES, NUMERIC_FEATURES, SPEC_VERSIONS, FeatureEngineer, FloatMatrix
from consumer.scoring.manifest import Metadata, model_file, preprocessor_file
from consumer.scoring.rules import RuleSet

CHAMPION = "ridge"

Fit = Callable[[FloatMatrix, Codes, Split, int, Callable[[str], None]], TrainedModels]
"""Makes models, as `fit_models` does."""


@dataclass(frozen=True)
class TrainingRequest:
    """What to make of a Dataset, apart from the data itself."""

    version: str
    rules: RuleSet
    seed: int = 0
    data_note: str = "not stated"
    """Where the data comes from, in a line for the model card."""
    made_by: str | None = None
    """The command that makes it again, where that is not `train` with the input files."""


@dataclass(frozen=True)
class Training:
    """A trained set before it is written: the documents of its folder and the models themselves."""

    model_set: ModelSet
    metadata: dict[str, Any]
    statistics: dict[str, Any]
    baseline: dict[str, Any]
    created_from: dict[str, Any]
    files: dict[str, bytes]

    def write(self, target: Path) -> ModelSet:
        """The folder at `target`, named after the version; returns the set as loaded back from it."""
        documents = {
            TRAINING_STATS: json_bytes(self.statistics),
            BASELINE_METRICS: json_bytes(self.baseline),
            MODEL_CARD: model_card(self.metadata, self.baseline, self.created_from).encode(),
        }
        return write_artifact(target, self.metadata, self.files | documents, self.model_set.golden, self.created_from)


def train(
    dataset: Dataset,
    request: TrainingRequest,
    advance: Callable[[str], None] = lambda _: None,
    fit: Fit = fit_models,
) -> Training:
    """Fit on the first weeks, calibrate and set thresholds on the next, measure on the last.

    `advance` is told the name of each step before it starts. The same data, seed and libraries give the
    same scores.
    """
    split = split_by_time(dataset)
    advance("features")
    engineer = FeatureEngineer(FEATURE_NAMES, SPEC_VERSIONS[-1])
    features = engineer.engineer(dataset.batch).matrix
    flagged = rules_flags(request.rules, dataset)
    with threadpool_limits(limits=1):  # so that the machine's core count does not change the last digits
        trained = fit(features, dataset.label, split, request.seed, advance)
        files = {model_file(name, request.version): dump(model) for name, model in trained.estimators.items()}
        files[preprocessor_file(request.version)] = dump(trained.preprocessor)
        model_set = _draft(request.version, trained)
        advance("thresholds and measures")
        held_out = model_set.scores(features[split.calibrate.rows])
        share = float(flagged[split.calibrate.rows].mean())
        model_set = replace(
            model_set,
            models=tuple(
                replace(entry, flag_threshold=flag_threshold(held_out[entry.name], share)) for entry in model_set.models
            ),
            golden=golden_rows(model_set, golden_events(dataset.batch)),
        )
        baseline = _baseline(model_set, dataset, features, flagged, split, request.rules)
    first = split.train.rows
    return Training(
        model_set,
        _metadata(model_set, baseline, files),
        training_statistics(
            FEATURE_NAMES,
            features[first],
            dataset.batch.slice(first.start, first.stop - first.start),
            dataset.label[first],
            held_out,
            source="features and categories: training period; scores: calibration period",
        ),
        baseline,
        {
            "command": "train",
            "seed": request.seed,
            "data": request.data_note,
            "inputs": list(dataset.source),
            "rows": dataset.batch.num_rows,
            "rows_without_outcome": dataset.unlabelled,
            "split": {
                "train": split.train.facts(dataset.label),
                "calibrate": split.calibrate.facts(dataset.label),
                "validate": split.validate.facts(dataset.label),
            },
            "rules": {
                "version": request.rules.version,
                "sha256": request.rules.sha256,
                "flagged_share": share,
            },
            **({"made_by": request.made_by} if request.made_by else {}),
        },
        files,
    )


def rules_flags(rules: RuleSet, dataset: Dataset) -> Mask:
    """Which rows the rules flag `high`."""
    flags: Mask = pc.equal(rules.decide(dataset.batch).risk_flag, "high").to_numpy(zero_copy_only=False)
    return flags


def _draft(version: str, trained: TrainedModels) -> ModelSet:
    names = tuple(trained.estimators)
    metadata = Metadata.model_validate(
        {
            "feature_spec_version": SPEC_VERSIONS[-1],
            "models": {name: {} for name in names},
            "shared_artifacts": shared_artifacts(FEATURE_NAMES, NUMERIC_FEATURES, preprocessor_file(version)),
            "deployment_strategy": deployment_strategy(CHAMPION, names),
        }
    )
    entries = tuple(
        make_entry(name, version, metadata, model, Path(model_file(name, version)))
        for name, model in trained.estimators.items()
    )
    return assemble(metadata, entries, trained.preprocessor, digest="", golden=(), skews=[])


def _baseline(
    model_set: ModelSet, dataset: Dataset, features: Any, flagged: Mask, split: Split, rules: RuleSet
) -> dict[str, Any]:
    """`baseline_metrics`: the last period, which neither fit nor thresholds have seen."""
    rows = split.validate.rows
    label = dataset.label[rows]
    scores = model_set.scores(features[rows])
    return {
        "period": split.validate.facts(dataset.label),
        "rules": RULES_BASELINE | {"version": rules.version, "measured": discrimination(label, flagged[rows])},
        "targets": TARGETS,
        "models": {
            entry.name: measure(label, scores[entry.name], entry.flag_threshold or 1.0) for entry in model_set.models
        },
    }


def _metadata(model_set: ModelSet, baseline: dict[str, Any], files: dict[str, bytes]) -> dict[str, Any]:
    version = model_set.version
    names = tuple(entry.name for entry in model_set.models)
    measured = baseline["models"]
    return {
        "version": version,
        "feature_spec_version": model_set.feature_spec_version,
        "models": {
            entry.name: {
                "auc": measured[entry.name]["auc"],
                "discrimination_ratio": measured[entry.name]["discrimination_ratio"],
                **model_facts(entry, files[model_file(entry.name, version)]),
            }
            for entry in model_set.models
        },
        "shared_artifacts": shared_artifacts(model_set.feature_names, NUMERIC_FEATURES, preprocessor_file(version)),
        "deployment_strategy": deployment_strategy(model_set.champion, names),
    }
