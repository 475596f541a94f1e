"""Which models there are, in which versions, and who of them decides or decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from consumer.contracts.control import Control, Mode
from consumer.scoring.activation import Activation, ruling
from consumer.scoring.artifacts import ModelSet
from consumer.scoring.manifest import Metadata, metadata_file, parse, read_proven
from consumer.scoring.rules import RuleSet
from consumer.settings import Settings


@dataclass(frozen=True)
class Model:
    """One model of the loaded set."""

    name: str
    version: str
    role: str
    """champion or challenger, by who is champion at the time that was asked for"""
    score_kind: str
    flag_threshold: float | None
    research: dict[str, Any]
    """What the export's metadata says of it besides: AUC, parameters, …"""


@dataclass(frozen=True)
class Models:
    """The loaded set, the rules beside it, and who decides."""

    artifact_version: str
    artifact_sha256: str
    feature_spec_version: str
    features: tuple[str, ...]
    models: list[Model]
    champion: str
    mode: Mode
    canary_percent: float | None
    control_revision: int
    """0 for no promotion"""
    since: datetime | None
    """when that was made to rule; null for no promotion"""
    rule_set_version: str
    rule_set_sha256: str
    warnings: tuple[str, ...]
    """what was accepted of the export, but should be known"""


def research_facts(settings: Settings) -> dict[str, dict[str, Any]]:
    """What the metadata of the configured export says of each model. Raises ArtifactError."""
    directory = settings.artifacts_dir / settings.artifact_version
    manifest, _, files = read_proven(directory)
    name = metadata_file(manifest.version)
    found = parse(Metadata, files.get(name, b""), directory / name)
    return {model: facts.model_dump(exclude={"flag_threshold", "score_kind"}) for model, facts in found.models.items()}


def models(
    model_set: ModelSet,
    rules: RuleSet,
    research: Mapping[str, dict[str, Any]],
    history: Sequence[Control],
    as_of: datetime | None = None,
) -> Models:
    """The set with its roles. `history` are the records of the control topic, oldest first; of these, what was made
    after `as_of` does not count.
    """
    counted = [each for each in history if as_of is None or each.made_at <= as_of]
    now = ruling(Activation(model_set.champion), counted, model_set)
    made_at = {each.revision: each.made_at for each in counted}
    return Models(
        artifact_version=model_set.version,
        artifact_sha256=model_set.digest,
        feature_spec_version=model_set.feature_spec_version,
        features=model_set.feature_names,
        models=[
            Model(
                name=each.name,
                version=each.version,
                role=each.role,
                score_kind=each.score_kind,
                flag_threshold=each.flag_threshold,
                research=dict(research.get(each.name, {})),
            )
            for each in model_set.led_by[now.champion]
        ],
        champion=now.champion,
        mode=now.mode,
        canary_percent=now.canary_percent,
        control_revision=now.revision,
        since=made_at.get(now.revision),
        rule_set_version=rules.version,
        rule_set_sha256=rules.sha256,
        warnings=model_set.warnings,
    )
