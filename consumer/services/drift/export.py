"""The export that drift is measured against, loaded and proved, with what counting and ranking need of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from consumer.contracts.horizons import FULL_TERM, Horizon, Horizons
from consumer.evaluation.drift.counting import BinCounter
from consumer.evaluation.drift.reference import Reference, read_reference
from consumer.scoring.artifacts import ModelSet, load_model_set
from consumer.scoring.linear import slopes
from consumer.scoring.manifest import read_proven
from consumer.settings import Settings


@dataclass(frozen=True)
class Export:
    """A model set and its training."""

    model_set: ModelSet
    reference: Reference
    counter: BinCounter
    weights: Mapping[str, float]
    """How much a standard deviation of each feature moves the champion, or the first model that is linear; empty when
    none is.
    """
    term: Horizon
    """Until when a default counts for a score, and from when it should be known."""


def load_export(settings: Settings) -> Export:
    """The configured export. Raises ArtifactError when it is not what it claims, or brings no training statistics, or
    the label horizons cannot be used.
    """
    directory = settings.artifacts_dir / settings.artifact_version
    model_set = load_model_set(directory, expected_digest=settings.artifact_sha256)
    _, digest, files = read_proven(directory)
    names = model_set.feature_names
    reference = read_reference(directory, digest, files, names, model_set.feature_spec_version)
    term = Horizons.load(settings.horizons_file)[FULL_TERM]
    return Export(model_set, reference, BinCounter(reference, names), _weights(model_set, reference), term)


def _weights(model_set: ModelSet, reference: Reference) -> dict[str, float]:
    spread = {feature.name: feature.std for feature in reference.features if feature.std is not None}
    for entry in sorted(model_set.models, key=lambda entry: entry.role != "champion"):
        moved = slopes(entry.estimator, model_set.preprocessor, model_set.feature_names)
        if moved is not None:
            by_name = zip(model_set.feature_names, moved.tolist(), strict=True)
            return {name: abs(slope) * spread[name] for name, slope in by_name if name in spread}
    return {}
