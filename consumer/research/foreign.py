"""An export made elsewhere, looked at without running any of it: names, hashes and metadata only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from consumer.errors import ArtifactError
from consumer.scoring.manifest import (
    Metadata,
    metadata_file,
    model_file,
    parse,
    preprocessor_file,
    read_bytes,
    sha256,
)

METADATA_PATTERN = metadata_file("*")


@dataclass(frozen=True)
class ForeignExport:
    """Files of an export made elsewhere, read but not unpickled."""

    directory: Path
    version: str
    metadata: Metadata
    document: dict[str, Any]
    """The metadata as it was written."""
    files: dict[str, bytes]
    """Every pickled file the metadata asks for, by name."""

    @property
    def hashes(self) -> dict[str, str]:
        """sha256 by file name."""
        return {name: sha256(content) for name, content in self.files.items()}


def inventory(directory: Path, source_version: str | None = None) -> ForeignExport:
    """What lies in `directory`, without unpickling any of it. Raises ArtifactError when something is
    missing.
    """
    found = sorted(path.name for path in directory.glob(METADATA_PATTERN))
    if source_version is not None:
        found = [name for name in found if name == metadata_file(source_version)]
    if len(found) != 1:
        raise ArtifactError(
            f"{directory} holds {len(found)} files"
            f" {METADATA_PATTERN}{': ' + ', '.join(found) if found else ''};"
            " one says what the export is. Name its version by --source-version, or export again"
        )
    prefix, suffix = METADATA_PATTERN.split("*")
    version = found[0].removeprefix(prefix).removesuffix(suffix)
    content = read_bytes(directory / found[0])
    metadata = parse(Metadata, content, directory / found[0])
    names = [preprocessor_file(version), *(model_file(name, version) for name in metadata.models)]
    files = {name: read_bytes(directory / name) for name in names}
    return ForeignExport(directory, version, metadata, orjson.loads(content), files)


def check_vouched(export: ForeignExport, vouched: Mapping[str, str], where: Path) -> None:
    """Every file's hash must be among `vouched` (name → sha256); raises ArtifactError naming the first that
    is not.
    """
    for name, found in export.hashes.items():
        if name not in vouched:
            raise ArtifactError(f"{where} says nothing of {name}; ask whoever made the export for its sha256")
        if vouched[name].lower() != found:
            raise ArtifactError(
                f"{export.directory / name} has sha256 {found}, {where} says {vouched[name]};"
                " nothing was loaded. Get the file again"
            )


def beside(export: ForeignExport, what: str) -> dict[str, Any] | None:
    """The JSON document `*what*.json` that lies beside the models, whatever version its name carries."""
    for path in sorted(export.directory.glob(f"*{what}*.json")):
        try:
            document = orjson.loads(read_bytes(path))
        except orjson.JSONDecodeError as error:
            raise ArtifactError(f"{path} is not JSON: {error}") from None
        if not isinstance(document, dict):
            raise ArtifactError(f"{path} is not a JSON object")
        return document
    return None
