"""Write a set of models as an artifact folder: all of it, proved by loading it, or nothing."""

from __future__ import annotations

import io
import platform
import shutil
import tempfile
from collections.abc import Mapping
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Any

import joblib
import orjson
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

from consumer.errors import ArtifactError
from consumer.scoring.artifacts import ModelEntry, ModelSet, load_model_set, members
from consumer.scoring.manifest import (
    MANIFEST,
    PLAIN_NAME,
    FileFact,
    GoldenRow,
    Manifest,
    Metadata,
    metadata_file,
    model_file,
    sha256,
)

TRAINING_STATS = "training_stats.json"
BASELINE_METRICS = "baseline_metrics.json"
MODEL_CARD = "MODEL_CARD.md"
LIBRARIES = ("scikit-learn", "numpy", "scipy", "pandas", "pyarrow", "joblib")

RULES_BASELINE = {"discrimination_ratio": 2.8, "high_risk_default_rate": 0.09, "low_risk_default_rate": 0.032}
"""What the business rules reached in the research that proposed the models."""
TARGETS = {"minimum": 1.0, "success": 2.8, "acceptable": [1.5, 2.8]}


def deployment_strategy(champion: str, names: tuple[str, ...]) -> dict[str, Any]:
    return {
        "mode": "shadow_multi_model",
        "champion": champion,
        "challengers": [name for name in names if name != champion],
        "baseline_discrimination": RULES_BASELINE["discrimination_ratio"],
        "target_improvement": TARGETS["success"],
    }


def shared_artifacts(names: tuple[str, ...], numeric: tuple[str, ...], preprocessor: str) -> dict[str, Any]:
    """The 36 features as the metadata lists them; `categorical_features` are all that are not scaled."""
    return {
        "feature_names": list(names),
        "numeric_features": list(numeric),
        "categorical_features": [name for name in names if name not in numeric],
        "total_features": len(names),
        "preprocessor": preprocessor,
    }


def model_facts(entry: ModelEntry, content: bytes) -> dict[str, Any]:
    """What the metadata says of a model beside its measures."""
    parts = members(entry.estimator)
    what: dict[str, Any] = (
        {"type": "VotingClassifier", "voting": "soft", "estimators": [name for name, *_ in parts]}
        if parts
        else {"parameters": _parameters(entry.estimator)}
    )
    return what | {
        "file": model_file(entry.name, entry.version),
        "sha256": sha256(content),
        "role": entry.role,
        "score_kind": entry.score_kind,
        "calibrated": is_calibrated(entry.estimator),
        "members_left_out": list(entry.left_out),
        "flag_threshold": entry.flag_threshold,
    }


def is_calibrated(estimator: Any) -> bool:
    """Whether scores went through a fitted calibrator, for an ensemble each voice of it."""
    inner = _thawed(estimator)
    parts = members(inner)
    if parts:
        return all(is_calibrated(member) for _, member, _ in parts if hasattr(member, "predict_proba"))
    return isinstance(inner, CalibratedClassifierCV)


def dump(estimator: Any) -> bytes:
    buffer = io.BytesIO()
    joblib.dump(estimator, buffer)
    return buffer.getvalue()


def json_bytes(document: Mapping[str, Any]) -> bytes:
    """Indented, as people read it; a number keeps every digit."""
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)


def libraries() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: library_version(name) for name in LIBRARIES}}


def check_target(out: Path, version: str, replace: bool) -> Path:
    """The folder to be written; raises ArtifactError when it is taken and `replace` does not say so."""
    if not PLAIN_NAME.fullmatch(version):
        raise ArtifactError(f"version {version!r} cannot be a folder name; use letters, digits, dots and dashes")
    target = out / version
    if target.exists() and not replace:
        raise ArtifactError(
            f"{target} exists; exports are never changed in place. Choose another --version, or --replace it"
        )
    return target


def write_artifact(
    target: Path,
    metadata: Mapping[str, Any],
    files: Mapping[str, bytes],
    golden: tuple[GoldenRow, ...],
    created_from: Mapping[str, Any],
) -> ModelSet:
    """Write `files`, metadata and manifest beside `target`, prove them by loading, then move them into place.

    An interrupt or a failed proof leaves `target` as it was.
    """
    version = target.name
    contents = {**files, metadata_file(version): json_bytes(metadata)}
    manifest = Manifest(
        format=1,
        version=version,
        feature_spec_version=Metadata.model_validate(metadata).feature_spec_version,
        files={
            name: FileFact(sha256=sha256(content), bytes=len(content)) for name, content in sorted(contents.items())
        },
        libraries=libraries(),
        created_from=dict(created_from),
        golden=list(golden),
    )
    contents[MANIFEST] = json_bytes(manifest.model_dump())
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{version}-", dir=target.parent) as scratch:
        written = Path(scratch) / "export"
        written.mkdir()
        for name, content in contents.items():
            (written / name).write_bytes(content)
        proven = load_model_set(written)
        if target.exists():
            target.rename(Path(scratch) / "replaced")
        shutil.move(written, target)
    return proven


def _thawed(estimator: Any) -> Any:
    return _thawed(estimator.estimator) if isinstance(estimator, FrozenEstimator) else estimator


def _parameters(estimator: Any) -> dict[str, Any]:
    """Settings of the model itself, below its calibrator, as far as JSON can hold them."""
    inner = _thawed(estimator)
    if isinstance(inner, CalibratedClassifierCV):
        inner = _thawed(inner.estimator)
    kept = {
        name: value for name, value in inner.get_params(deep=False).items() if value != "deprecated" and _is_json(value)
    }
    return {"type": type(inner).__name__, **kept}


def _is_json(value: Any) -> bool:
    return (
        value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and abs(value) < float("inf"))
    )
