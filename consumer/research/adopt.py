"""Bring in an export made elsewhere: unpickle it, see what it is, and write it as a proven artifact folder.

Unpickling executes whatever the files hold, so the caller must have had their hashes vouched for
(`research.foreign`).

Bytes written by the running scikit-learn are kept as they are. Bytes written by another version are written
again by the running one when every score stays bit for bit the same, so that production never reads across
versions; when any score moves, the original bytes are kept and the versions recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from consumer.errors import ArtifactError
from consumer.research.card import adopted_card
from consumer.research.dataset import Codes, Mask
from consumer.research.export import (
    BASELINE_METRICS,
    MODEL_CARD,
    RULES_BASELINE,
    TARGETS,
    TRAINING_STATS,
    deployment_strategy,
    dump,
    is_calibrated,
    json_bytes,
    model_facts,
    shared_artifacts,
    write_artifact,
)
from consumer.research.foreign import ForeignExport, beside
from consumer.research.golden import golden_events, golden_rows
from consumer.research.measures import discrimination, measure, training_statistics
from consumer.research.simulate import SimulationConfig, simulate
from consumer.research.training import flag_threshold
from consumer.scoring.artifacts import (
    ModelSet,
    assemble,
    check_inputs,
    make_entry,
    unpickle,
)
from consumer.scoring.features import NUMERIC_FEATURES, FloatMatrix
from consumer.scoring.manifest import (
    Metadata,
    model_file,
    preprocessor_file,
)
from consumer.scoring.rules import RuleSet


@dataclass(frozen=True)
class Sample:
    """Transactions to set thresholds, statistics and golden rows by; labels are 1, 0, or −1 for unknown."""

    batch: pa.RecordBatch
    labels: Codes
    source: tuple[dict[str, Any], ...]
    rules: RuleSet


@dataclass(frozen=True)
class Adoption:
    """The set as written, and everything that was found on the way."""

    model_set: ModelSet
    findings: list[str]
    created_from: dict[str, Any] = field(repr=False)


def adopt(export: ForeignExport, target: Path, feature_spec: str, sample: Sample | None = None) -> Adoption:
    """Write `export` as the artifact folder `target`, named after the new version. Executes what its
    pickles hold.

    Without a sample there are no thresholds but those of the export, and golden rows come from simulated
    events.
    """
    metadata = export.metadata.model_copy(update={"feature_spec_version": feature_spec})
    loaded = {name: unpickle(content, export.directory / name) for name, content in export.files.items()}
    skews = sorted({skew for _, skew_of_file in loaded.values() for skew in skew_of_file})
    original = _assemble(export, metadata, {name: each for name, (each, _) in loaded.items()}, skews)
    check_inputs(original)
    batch = sample.batch if sample else next(simulate(SimulationConfig(events=2_000, seed=0, outcomes=False)))
    features = original.engineer.engineer(batch).matrix
    scores = _scores(original, features, export)
    files, rewritten = _settled_files(export, metadata, loaded, features, scores)
    flagged = _rules_flags(sample) if sample else None
    model_set = _renamed(_with_thresholds(original, scores, flagged), target.name)
    model_set = replace(model_set, golden=golden_rows(model_set, golden_events(batch)))
    findings = _findings(export, model_set, skews, rewritten, sample)
    contents = {_new_name(name, export.version, target.name): content for name, content in files.items()}
    document = _metadata(export, model_set, contents)
    statistics = _statistics(export, model_set, features, scores, batch, sample)
    baseline = _baseline(export, model_set, scores, flagged, sample)
    created_from = {
        "command": "artifacts adopt",
        "source_version": export.version,
        "source_sha256": export.hashes,
        "written_by": skews or ["the running scikit-learn"],
        "rewritten": rewritten,
        "sample": list(sample.source) if sample else [],
        "findings": findings,
    }
    contents |= {
        TRAINING_STATS: json_bytes(statistics),
        BASELINE_METRICS: json_bytes(baseline),
        MODEL_CARD: adopted_card(document, created_from).encode(),
    }
    return Adoption(write_artifact(target, document, contents, model_set.golden, created_from), findings, created_from)


def _assemble(export: ForeignExport, metadata: Metadata, loaded: Mapping[str, Any], skews: list[str]) -> ModelSet:
    """The set under its own version, so that a fault names the file it lies in."""
    files = {name: model_file(name, export.version) for name in metadata.models}
    models = tuple(
        make_entry(name, export.version, metadata, loaded[file], export.directory / file)
        for name, file in files.items()
    )
    return assemble(metadata, models, loaded[preprocessor_file(export.version)], "", (), skews)


def _scores(model_set: ModelSet, features: FloatMatrix, export: ForeignExport) -> dict[str, Any]:
    try:
        return model_set.scores(features)
    except Exception as error:  # an object of another library version may fail in any way at all
        raise ArtifactError(
            f"the models of {export.directory} cannot score here ({type(error).__name__}: {error});"
            " export them again with the scikit-learn that runs here, or install theirs"
        ) from error


def _settled_files(
    export: ForeignExport,
    metadata: Metadata,
    loaded: Mapping[str, tuple[Any, tuple[str, ...]]],
    features: FloatMatrix,
    scores: Mapping[str, Any],
) -> tuple[dict[str, bytes], list[str]]:
    """The bytes to keep, and the names of files that were written again by the running scikit-learn."""
    again = {name: dump(each) for name, (each, skews) in loaded.items() if skews}
    if not again:
        return export.files, []
    files = export.files | again
    reloaded = {name: unpickle(content, export.directory / name)[0] for name, content in files.items()}
    now = _scores(_assemble(export, metadata, reloaded, []), features, export)
    if all(np.array_equal(now[name], scores[name]) for name in scores):
        return files, sorted(again)
    return export.files, []


def _rules_flags(sample: Sample) -> Mask:
    flags: Mask = pc.equal(sample.rules.decide(sample.batch).risk_flag, "high").to_numpy(zero_copy_only=False)
    return flags


def _with_thresholds(model_set: ModelSet, scores: Mapping[str, Any], flagged: Mask | None) -> ModelSet:
    """Thresholds of the export are kept; missing ones are set where the sample's scores match the rules'
    share.
    """
    if flagged is None:
        return model_set
    share = float(flagged.mean())
    models = tuple(
        entry
        if entry.flag_threshold is not None
        else replace(entry, flag_threshold=flag_threshold(scores[entry.name], share))
        for entry in model_set.models
    )
    return replace(model_set, models=models)


def _renamed(model_set: ModelSet, version: str) -> ModelSet:
    models = tuple(replace(entry, version=version) for entry in model_set.models)
    return replace(model_set, version=version, models=models)


def _findings(
    export: ForeignExport, model_set: ModelSet, skews: list[str], rewritten: list[str], sample: Sample | None
) -> list[str]:
    found = [f"version {export.version!r} in file names becomes {model_set.version!r}", *skews]
    if skews:
        found.append(
            f"written again by the running scikit-learn, every score bit for bit the same: {', '.join(rewritten)}"
            if rewritten
            else "writing the files again would change scores, so the original bytes are kept"
        )
    for entry in model_set.models:
        calibrated = "calibrated" if is_calibrated(entry.estimator) else "not calibrated"
        found.append(f"{entry.name}: {type(entry.estimator).__name__}, scores are {entry.score_kind}, {calibrated}")
        if entry.left_out:
            found.append(f"{entry.name}: members without a probability are left out: {', '.join(entry.left_out)}")
        if entry.flag_threshold is None:
            found.append(f"{entry.name}: no flag threshold, so it raises no flag; --sample sets one")
    if model_set.feature_spec_version == "1":
        found.append("feature spec 1: the research encoder did not know risk level very_high and gives it −1")
    if sample is None:
        found.append("no --sample: golden rows come from simulated events, and there are no bins to measure drift by")
    missing = [name for name in ("training_stats", "baseline_metrics") if beside(export, name) is None]
    found += [f"the export brings no {name}" for name in missing]
    return found


def _metadata(export: ForeignExport, model_set: ModelSet, contents: Mapping[str, bytes]) -> dict[str, Any]:
    """The export's own words, with what our format adds or corrects laid over them."""
    shared = export.document["shared_artifacts"]
    numeric = tuple(shared.get("numeric_features", NUMERIC_FEATURES))
    names = tuple(entry.name for entry in model_set.models)
    return export.document | {
        "version": model_set.version,
        "feature_spec_version": model_set.feature_spec_version,
        "models": {
            entry.name: export.document["models"][entry.name]
            | model_facts(entry, contents[model_file(entry.name, model_set.version)])
            for entry in model_set.models
        },
        "shared_artifacts": shared
        | shared_artifacts(model_set.feature_names, numeric, preprocessor_file(model_set.version)),
        "deployment_strategy": deployment_strategy(model_set.champion, names) | export.document["deployment_strategy"],
    }


def _statistics(
    export: ForeignExport,
    model_set: ModelSet,
    features: FloatMatrix,
    scores: Mapping[str, Any],
    batch: pa.RecordBatch,
    sample: Sample | None,
) -> dict[str, Any]:
    """The export's statistics as it gave them; with a sample, also bins that drift can be measured
    against.
    """
    given = beside(export, "training_stats") or {}
    if sample is None:
        return given | {"source": "the export"}
    known = sample.labels[sample.labels >= 0]
    label = known if len(known) else None
    source = "the sample given at adoption, not the training data"
    made = training_statistics(model_set.feature_names, features, batch, label, scores, source)
    return made | ({"export": given} if given else {})


def _baseline(
    export: ForeignExport,
    model_set: ModelSet,
    scores: Mapping[str, Any],
    flagged: Mask | None,
    sample: Sample | None,
) -> dict[str, Any]:
    given = beside(export, "baseline_metrics") or {}
    baseline: dict[str, Any] = {"rules": RULES_BASELINE, "targets": TARGETS, "models": {}} | given
    if sample is None or flagged is None or len(np.unique(sample.labels[sample.labels >= 0])) < 2:
        return baseline
    known = sample.labels >= 0
    label = sample.labels[known]
    return baseline | {
        "measured_on_sample": {
            "rules": discrimination(label, flagged[known]),
            "models": {
                entry.name: measure(
                    label,
                    scores[entry.name][known],
                    entry.flag_threshold if entry.flag_threshold is not None else np.inf,
                    calibrated=entry.score_kind == "probability",
                )
                for entry in model_set.models
            },
        }
    }


def _new_name(name: str, old: str, new: str) -> str:
    return name.removesuffix(f"_{old}.joblib") + f"_{new}.joblib"
