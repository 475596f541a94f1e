"""What a promotion, a rollback and a kill make of the state: the next control record. Nothing here reads Kafka."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from consumer.champion.support import support
from consumer.contracts.control import Action, Control, ControlLog, Mode, faults
from consumer.errors import Fatal
from consumer.scoring.manifest import Metadata, metadata_file, parse, read_proven
from consumer.settings import Settings

NO_DOSSIER = "there is no dossier"


@dataclass(frozen=True)
class Artifact:
    """The configured model set, as its proven files say."""

    version: str
    sha256: str
    thresholds: Mapping[str, float | None]
    """From which score on each model flags."""
    champion: str

    def require(self, model: str, mode: Mode) -> None:
        """Raises Fatal for a model that there is not, or that could decide nothing where it is to decide."""
        if model not in self.thresholds:
            raise Fatal(f"{model} is no model of {self.version}: there are {', '.join(self.thresholds)}")
        if mode != "shadow" and self.thresholds[model] is None:
            raise Fatal(
                f"{model} of {self.version} has no flag_threshold, and could decide nothing: export it with one"
            )


@dataclass(frozen=True)
class Signature:
    """Who does it, when, and why."""

    made_by: str
    made_at: datetime
    reason: str


@dataclass(frozen=True)
class Grounds:
    """What a promotion stands on."""

    dossier_sha256: str | None = None
    override: bool = False
    unsupported: str | None = None


def configured(settings: Settings) -> Artifact:
    """Raises ArtifactError when the files do not hold. Nothing is unpickled."""
    directory = settings.artifacts_dir / settings.artifact_version
    manifest, digest, files = read_proven(directory)
    name = metadata_file(manifest.version)
    metadata = parse(Metadata, files.get(name, b""), directory / name)
    thresholds = {model: facts.flag_threshold for model, facts in metadata.models.items()}
    return Artifact(manifest.version, digest, thresholds, metadata.deployment_strategy.champion)


def grounds(artifact: Artifact, model: str, dossier: bytes | None, *, override: bool) -> Grounds:
    """What the promotion of a model stands on: a dossier that supports it, else an override.

    Raises Fatal when it has neither, or the dossier cannot be read.
    """
    supported, why = (False, NO_DOSSIER) if dossier is None else support(_parsed(dossier), model, artifact.sha256)
    digest = None if dossier is None else hashlib.sha256(dossier).hexdigest()
    if supported:
        return Grounds(digest)
    if not override:
        raise Fatal(
            f"{model} is not promoted: {why}. Bring a dossier that recommends it (--dossier), or say --override: "
            "then it is recorded for ever that no verdict supported it"
        )
    return Grounds(digest, override=True, unsupported=why)


def promoted(
    state: Control | None,
    artifact: Artifact,
    model: str,
    mode: Mode,
    canary_percent: float | None,
    stands_on: Grounds,
    signed: Signature,
) -> Control:
    """The record that makes a model champion. Raises Fatal when it is none of the artifact's, or a text will not do."""
    artifact.require(model, mode)
    return _control(
        state,
        "promote",
        signed,
        champion=model,
        mode=mode,
        canary_percent=canary_percent,
        artifact_version=artifact.version,
        artifact_sha256=artifact.sha256,
        **asdict(stands_on),
        **_before(state, artifact),
    )


def killed(state: Control | None, artifact: Artifact | None, signed: Signature) -> Control:
    """The record that ends that a model decides. The champion stays, and so does what it was promoted on.

    `artifact` is asked only where there is no state.
    """
    kept: dict[str, Any]
    if state is not None:
        kept = state.model_dump(include={*_OF_THE_MODEL, *_GROUNDS}) | _before(state)
    elif artifact is not None:
        kept = {"champion": artifact.champion, "artifact_version": artifact.version, "artifact_sha256": artifact.sha256}
    else:
        raise ValueError("needs a state or an artifact")
    return _control(state, "kill", signed, mode="shadow", **kept)


def rolled_back(log: ControlLog, artifact: Artifact, signed: Signature) -> Control:
    """The record that restores what ruled before the newest; again, what ruled before that.

    Raises Fatal when there is nothing to go back to, or it was for other models than the artifact's.
    """
    state = log.state
    if state is None:
        raise Fatal("nothing was ever promoted: there is nothing to go back to")
    at = state.previous_revision
    if at is None:
        raise Fatal(f"nothing is before revision {state.revision}: promote the model that shall be champion instead")
    restored = log.history.get(at)
    if at and restored is None:
        raise Fatal(f"revision {at} is gone from the topic, and with it what it stood on: promote its champion anew")
    models = restored or state
    if models.artifact_sha256 != artifact.sha256:
        raise Fatal(
            f"revision {at} was for models {models.artifact_version} ({models.artifact_sha256[:12]}), configured are "
            f"{artifact.version} ({artifact.sha256[:12]}): set BNPL_ARTIFACT_VERSION to those, or promote anew"
        )
    return _control(
        state,
        "rollback",
        signed,
        champion=state.previous_champion,
        mode=state.previous_mode,
        canary_percent=state.previous_canary_percent,
        artifact_version=models.artifact_version,
        artifact_sha256=models.artifact_sha256,
        **(restored.model_dump(include={*_GROUNDS, *_PREVIOUS}) if restored else {}),
    )


_OF_THE_MODEL = ("champion", "artifact_version", "artifact_sha256")
_GROUNDS = ("dossier_sha256", "override", "unsupported")
_PREVIOUS = ("previous_revision", "previous_champion", "previous_mode", "previous_canary_percent")


def _before(state: Control | None, artifact: Artifact | None = None) -> dict[str, Any]:
    """Where a rollback of the next record goes: to this state, or to what holds without any."""
    if state is not None:
        return dict(zip(_PREVIOUS, (state.revision, state.champion, state.mode, state.canary_percent), strict=True))
    return dict(zip(_PREVIOUS, (0, artifact.champion, "shadow", None), strict=True)) if artifact else {}


def _control(state: Control | None, action: Action, signed: Signature, **fields: Any) -> Control:
    revision = state.revision + 1 if state else 1
    try:
        return Control(revision=revision, action=action, **asdict(signed), **fields)
    except ValidationError as error:
        raise Fatal(f"this cannot be recorded: {faults(error)}") from None


def _parsed(dossier: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(dossier)
    except ValueError:
        document = None
    if not isinstance(document, Mapping):
        raise Fatal("the dossier is no JSON object: take the .json that `bnpl-shadow dossier` writes")
    return document
