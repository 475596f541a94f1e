"""What an artifact folder says about itself: the manifest and the metadata, read strictly and proved by hash.

Nothing here unpickles: `read_proven` hands out bytes only of files the manifest lists, after their hash held.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from consumer.errors import ArtifactError

MANIFEST = "manifest.json"
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

Document = TypeVar("Document", bound=BaseModel)


class FileFact(BaseModel):
    """Hash and size in bytes of one file."""

    model_config = ConfigDict(extra="forbid")
    sha256: str
    bytes: int


class GoldenRow(BaseModel):
    """One event, its raw features in contract order, and every model's score."""

    model_config = ConfigDict(extra="forbid")
    event: dict[str, Any]
    features: list[float]
    scores: dict[str, float]


class Manifest(BaseModel):
    """`manifest.json`: every other file by hash, how the set was made, and the rows that prove it."""

    model_config = ConfigDict(extra="forbid")
    format: int = Field(ge=1, le=1)
    version: str
    feature_spec_version: str
    files: dict[str, FileFact]
    libraries: dict[str, str]
    created_from: dict[str, Any]
    golden: list[GoldenRow] = Field(min_length=1)

    @field_validator("files")
    @classmethod
    def _plain_names(cls, files: dict[str, FileFact]) -> dict[str, FileFact]:
        for name in files:
            if not PLAIN_NAME.fullmatch(name):
                raise ValueError(f"file name {name!r} leads out of the folder; only plain names are accepted")
        return files


class ModelFacts(BaseModel):
    """What the metadata says of one model; keys beyond these (auc, parameters, …) pass through."""

    model_config = ConfigDict(extra="allow")
    flag_threshold: float | None = None
    score_kind: str | None = None


class SharedArtifacts(BaseModel):
    """The features all models share; names are the matrix columns in order."""

    model_config = ConfigDict(extra="allow")
    feature_names: list[str]


class Deployment(BaseModel):
    """Who leads while all run in shadow."""

    model_config = ConfigDict(extra="allow")
    champion: str


class Metadata(BaseModel):
    """`bnpl_multi_model_metadata_<version>.json`, as research writes it."""

    model_config = ConfigDict(extra="allow")
    feature_spec_version: str = "1"
    models: dict[str, ModelFacts] = Field(min_length=1)
    shared_artifacts: SharedArtifacts
    deployment_strategy: Deployment

    @field_validator("models")
    @classmethod
    def _plain_names(cls, models: dict[str, ModelFacts]) -> dict[str, ModelFacts]:
        for name in models:
            if not PLAIN_NAME.fullmatch(name):
                raise ValueError(f"model name {name!r} cannot be part of a file name")
        return models


def model_file(name: str, version: str) -> str:
    return f"bnpl_{name}_{version}.joblib"


def preprocessor_file(version: str) -> str:
    return f"bnpl_preprocessor_{version}.joblib"


def metadata_file(version: str) -> str:
    return f"bnpl_multi_model_metadata_{version}.json"


def parse(kind: type[Document], content: bytes, where: Path) -> Document:
    """The document in `content`; raises ArtifactError that names the file and every fault in it."""
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc']) or 'content'}: {fault['msg']}" for fault in error.errors()
        )
        raise ArtifactError(f"{where} is not a usable {kind.__name__.lower()}: {faults}. Export it again") from None


def read_bytes(path: Path) -> bytes:
    """Content of a regular file; a missing file or a link out of the folder is an ArtifactError."""
    if path.is_symlink():
        raise ArtifactError(f"{path} is a symbolic link; artifacts must be plain files. Copy the file itself")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error.strerror}); export or copy the folder again") from error


def read_proven(directory: Path) -> tuple[Manifest, str, dict[str, bytes]]:
    """Manifest, its sha256, and the content of every listed file, all hashes checked.

    Files are read once and handed on as bytes, so that what was hashed is what is used.
    Raises ArtifactError for a missing, changed, linked or unlisted file.
    """
    if not directory.is_dir():
        raise ArtifactError(
            f"{directory} is not a folder of artifacts; `bnpl-shadow artifacts ls` lists those there are"
        )
    path = directory / MANIFEST
    if not path.exists():
        raise ArtifactError(
            f"{path} is missing, so nothing in the folder can be trusted. An export made"
            " elsewhere is brought in by"
            f" `bnpl-shadow artifacts adopt {directory}`"
        )
    content = read_bytes(path)
    manifest = parse(Manifest, content, path)
    for found in sorted(directory.iterdir()):
        if found.name != MANIFEST and found.name not in manifest.files:
            raise ArtifactError(f"{found} is not listed in {MANIFEST}; remove it, or export the folder again")
    return (
        manifest,
        sha256(content),
        {name: _proven(directory / name, fact) for name, fact in manifest.files.items()},
    )


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _proven(path: Path, fact: FileFact) -> bytes:
    content = read_bytes(path)
    if sha256(content) != fact.sha256:
        raise ArtifactError(
            f"{path} was changed after the export: its sha256 is {sha256(content)}, {MANIFEST}"
            f" says {fact.sha256}."
            " Nothing was loaded; restore the file or export again"
        )
    return content
