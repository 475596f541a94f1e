"""Exports made elsewhere are looked at before they may run, adopted with all that was found, and proved."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import orjson
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from scipy.special import expit
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from trained_set import Trained, simulated

from consumer.cli.artifacts import command
from consumer.contracts.transaction import columns_from_dicts
from consumer.errors import ArtifactError
from consumer.research.simulate import SimulationConfig, json_lines
from consumer.research.training import make_preprocessor
from consumer.scoring.artifacts import load_model_set
from consumer.scoring.features import FEATURE_NAMES, NUMERIC_FEATURES, FeatureEngineer

SOURCE = "v0_1_0"


class Foreign:
    """A folder as a research notebook leaves it: no manifest, no calibrators, upstream metadata."""

    def __init__(self, folder: Path, models: dict[str, Any] | None = None) -> None:
        self.folder = folder
        batch = simulated(SimulationConfig(events=3_000, seed=17))
        self.engineer = FeatureEngineer(FEATURE_NAMES, "1")
        features = self.engineer.engineer(batch).matrix
        label = np.asarray(batch.column("will_default").fill_null(False).to_numpy(zero_copy_only=False), int)
        frame = pd.DataFrame(features, columns=list(FEATURE_NAMES))
        self.preprocessor = make_preprocessor()
        matrix = self.preprocessor.fit_transform(frame)
        self.models = models or {
            "ridge": RidgeClassifier(),
            "logistic": LogisticRegression(max_iter=2_000),
            "value": Ridge(),
            "ensemble": VotingClassifier(
                [("ridge", RidgeClassifier()), ("logistic", LogisticRegression(max_iter=2_000))],
                voting="soft",
            ),
        }
        for model in self.models.values():
            model.fit(matrix, label)
        self.write()

    def write(self) -> None:
        for name, model in {**self.models, "preprocessor": self.preprocessor}.items():
            joblib.dump(model, self.folder / f"bnpl_{name}_{SOURCE}.joblib")
        metadata = {
            "models": {name: {"auc": 0.615, "discrimination_ratio": 2.7} for name in self.models},
            "shared_artifacts": {
                "feature_names": list(FEATURE_NAMES),
                "numeric_features": list(NUMERIC_FEATURES),
                "categorical_features": [name for name in FEATURE_NAMES if name not in NUMERIC_FEATURES],
                "total_features": 36,
                "preprocessor": f"bnpl_preprocessor_{SOURCE}.joblib",
            },
            "deployment_strategy": {
                "mode": "shadow_multi_model",
                "champion": "ridge",
                "target_improvement": 2.8,
            },
        }
        (self.folder / f"bnpl_multi_model_metadata_{SOURCE}.json").write_bytes(orjson.dumps(metadata))
        statistics = {"amount": {"mean": 170.0, "std": 140.0, "min": 5.0, "max": 3_000.0}}
        (self.folder / "training_stats.json").write_bytes(orjson.dumps({"features": statistics}))

    def matrix(self, events: list[dict[str, Any]]) -> np.ndarray:
        frame = self.engineer.engineer(columns_from_dicts(events)).frame()
        return np.asarray(self.preprocessor.transform(frame))


@pytest.fixture
def foreign(tmp_path: Path) -> Foreign:
    folder = tmp_path / "export"
    folder.mkdir()
    return Foreign(folder)


@pytest.fixture
def adopt(tmp_path: Path) -> Callable[..., Result]:
    def run(folder: Path, *options: str) -> Result:
        arguments = [
            "adopt",
            str(folder),
            "--version",
            "v7",
            "--out",
            str(tmp_path / "artifacts"),
            *options,
        ]
        return CliRunner().invoke(command, arguments)

    return run


def refusal(result: Result) -> str:
    assert isinstance(result.exception, ArtifactError), result.output
    return str(result.exception)


def test_nothing_is_loaded_before_the_hashes_are_vouched_for(
    foreign: Foreign, adopt: Callable[..., Result], tmp_path: Path
) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return Path.touch, (tmp_path / "was_unpickled",)

    model = foreign.folder / f"bnpl_ridge_{SOURCE}.joblib"
    joblib.dump(Malicious(), model)
    result = adopt(foreign.folder)
    assert "--trust" in refusal(result)
    assert f"{hashlib.sha256(model.read_bytes()).hexdigest()}  {model.name}" in result.stderr
    assert not (tmp_path / "was_unpickled").exists()
    assert not (tmp_path / "artifacts").exists()


def test_a_list_of_hashes_vouches_for_exactly_what_it_lists(
    foreign: Foreign, adopt: Callable[..., Result], tmp_path: Path
) -> None:
    vouched = tmp_path / "SHA256SUMS"
    files = sorted(foreign.folder.glob("*.joblib"))
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  ./{path.name}" for path in files]
    vouched.write_text("\n".join(lines[1:]) + "\n")
    assert f"says nothing of {files[0].name}" in refusal(adopt(foreign.folder, "--sha256-file", str(vouched)))
    vouched.write_text("\n".join(["0" * 64 + f"  {files[0].name}", *lines[1:]]) + "\n")
    assert "nothing was loaded" in refusal(adopt(foreign.folder, "--sha256-file", str(vouched)))
    vouched.write_text("\n".join(lines) + "\n")
    result = adopt(foreign.folder, "--sha256-file", str(vouched))
    assert result.exit_code == 0, result.output


def test_every_kind_of_model_scores_as_it_did_where_it_was_made(
    foreign: Foreign, adopt: Callable[..., Result], tmp_path: Path
) -> None:
    result = adopt(foreign.folder, "--trust")
    assert result.exit_code == 0, result.output
    model_set = load_model_set(tmp_path / "artifacts" / "v7")
    assert model_set.feature_spec_version == "1"
    kinds = {entry.name: entry.score_kind for entry in model_set.models}
    assert kinds == {
        "ridge": "uncalibrated",
        "logistic": "probability",
        "value": "value",
        "ensemble": "probability",
    }
    events = [row.event for row in model_set.golden]
    scores = {name: [row.scores[name] for row in model_set.golden] for name in kinds}
    matrix = foreign.matrix(events)
    logistic = foreign.models["logistic"].predict_proba(matrix)[:, 1]
    assert np.abs(scores["ridge"] - expit(foreign.models["ridge"].decision_function(matrix))).max() <= 1e-12
    assert np.abs(scores["logistic"] - logistic).max() <= 1e-12
    assert np.abs(scores["value"] - np.clip(foreign.models["value"].predict(matrix), 0, 1)).max() <= 1e-12
    assert np.abs(scores["ensemble"] - logistic).max() <= 1e-12


def test_the_report_names_what_a_user_must_know(foreign: Foreign, adopt: Callable[..., Result], tmp_path: Path) -> None:
    text = adopt(foreign.folder, "--trust").stdout
    for fact in (
        f"version '{SOURCE}' in file names becomes 'v7'",
        "ridge: RidgeClassifier, scores are uncalibrated, not calibrated",
        "value: Ridge, scores are value, not calibrated",
        "ensemble: members without a probability are left out: ridge",
        "logistic: no flag threshold",
        "did not know risk level very_high",
        "the export brings no baseline_metrics",
    ):
        assert fact in text
        assert fact in (tmp_path / "artifacts" / "v7" / "MODEL_CARD.md").read_text()
    assert "no training_stats" not in text


def test_very_high_is_unknown_under_the_research_encoding(
    foreign: Foreign, adopt: Callable[..., Result], tmp_path: Path
) -> None:
    adopt(foreign.folder, "--trust")
    model_set = load_model_set(tmp_path / "artifacts" / "v7")
    (row,) = [row for row in model_set.golden if row.event["risk_level"] == "very_high"]
    assert row.features[FEATURE_NAMES.index("risk_level_encoded")] == -1


def test_an_export_in_the_running_version_keeps_its_bytes(
    foreign: Foreign, adopt: Callable[..., Result], tmp_path: Path
) -> None:
    adopt(foreign.folder, "--trust")
    for path in foreign.folder.glob("*.joblib"):
        adopted = tmp_path / "artifacts" / "v7" / path.name.replace(SOURCE, "v7")
        assert adopted.read_bytes() == path.read_bytes()


def test_an_export_of_another_scikit_learn_is_written_again_and_says_so(
    foreign: Foreign, adopt: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("sklearn.base.__version__", "1.3.2")
        foreign.write()
    result = adopt(foreign.folder, "--trust", "--json")
    assert result.exit_code == 0, result.output
    facts = orjson.loads(result.stdout)
    assert any("1.3.2" in line for line in facts["written_by"])
    assert f"bnpl_ridge_{SOURCE}.joblib" in facts["rewritten"]
    model_set = load_model_set(tmp_path / "artifacts" / "v7")
    assert not any("1.3.2" in warning for warning in model_set.warnings)


def test_a_sample_sets_thresholds_at_the_rules_share_bins_and_figures(
    foreign: Foreign, adopt: Callable[..., Result], trained: Trained, tmp_path: Path
) -> None:
    result = adopt(foreign.folder, "--trust", "--sample", str(trained.events))
    assert result.exit_code == 0, result.output
    folder = tmp_path / "artifacts" / "v7"
    model_set = load_model_set(folder)
    batch = simulated(SimulationConfig(events=10_000, seed=5, days=40))
    flagged = np.mean(np.array(trained.request.rules.decide(batch).risk_flag) == "high")
    scores = model_set.scores(model_set.engineer.engineer(batch).matrix)
    for entry in model_set.models:
        assert entry.flag_threshold is not None
        if entry.score_kind != "value":  # clipping to 0 makes ties, never at the top
            assert (scores[entry.name] >= entry.flag_threshold).mean() == pytest.approx(flagged, abs=1e-3)
    statistics = orjson.loads((folder / "training_stats.json").read_bytes())
    assert statistics["sample_count"] == 10_000
    assert statistics["export"]["features"]["amount"]["mean"] == 170.0
    measured = orjson.loads((folder / "baseline_metrics.json").read_bytes())["measured_on_sample"]["models"]
    assert "brier" in measured["logistic"]
    assert "brier" not in measured["ridge"]


def test_an_unlabelled_sample_is_enough_for_thresholds(
    foreign: Foreign, adopt: Callable[..., Result], tmp_path: Path
) -> None:
    sample = tmp_path / "live.jsonl"
    sample.write_bytes(json_lines(simulated(SimulationConfig(events=500, outcomes=False))))
    result = adopt(foreign.folder, "--trust", "--sample", str(sample))
    assert result.exit_code == 0, result.output
    assert all(entry.flag_threshold for entry in load_model_set(tmp_path / "artifacts" / "v7").models)


def test_what_is_missing_or_unclear_is_named(foreign: Foreign, adopt: Callable[..., Result]) -> None:
    model = foreign.folder / f"bnpl_value_{SOURCE}.joblib"
    content = model.read_bytes()
    model.unlink()
    assert model.name in refusal(adopt(foreign.folder, "--trust"))
    model.write_bytes(content[:200])
    assert "cannot be unpickled" in refusal(adopt(foreign.folder, "--trust"))
    model.write_bytes(content)
    metadata = foreign.folder / f"bnpl_multi_model_metadata_{SOURCE}.json"
    (foreign.folder / "bnpl_multi_model_metadata_v9.json").write_bytes(metadata.read_bytes())
    assert "--source-version" in refusal(adopt(foreign.folder, "--trust"))
    assert adopt(foreign.folder, "--trust", "--source-version", SOURCE).exit_code == 0


def test_an_unfitted_model_is_refused_by_file(foreign: Foreign, adopt: Callable[..., Result], tmp_path: Path) -> None:
    foreign.models["ensemble"] = VotingClassifier([("l", LogisticRegression())], voting="soft")
    foreign.write()
    assert f"bnpl_ensemble_{SOURCE}.joblib" in refusal(adopt(foreign.folder, "--trust"))
    assert not (tmp_path / "artifacts" / "v7").exists()
