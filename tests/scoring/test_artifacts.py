"""An artifact folder is proved before it is unpickled, and refused by name when anything does not hold."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import orjson
import pytest
from scipy.special import expit
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier

from consumer.contracts.transaction import columns_from_dicts
from consumer.errors import ArtifactError
from consumer.research.golden import golden_rows
from consumer.scoring.artifacts import (
    ModelEntry,
    ModelSet,
    check_golden,
    estimator_scores,
    load_model_set,
    score_kind,
)
from consumer.settings import PROJECT

SHIPPED = PROJECT / "artifacts" / "v1"
MODEL = "bnpl_ridge_v1.joblib"
METADATA = "bnpl_multi_model_metadata_v1.json"


class Malicious:
    """Unpickling it creates a file: the proof that something was unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.trace,)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped set that a test may spoil."""
    return Path(shutil.copytree(SHIPPED, tmp_path / "v1"))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = orjson.loads(path.read_bytes())
    change(document)
    path.write_bytes(orjson.dumps(document))


def reseal(folder: Path) -> None:
    """Write the manifest's hashes anew, as somebody would who may change the whole folder."""

    def seal(manifest: dict[str, Any]) -> None:
        for name in manifest["files"]:
            content = (folder / name).read_bytes()
            manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}

    edit(folder / "manifest.json", seal)


def test_the_shipped_set_loads_with_all_it_promises() -> None:
    model_set = load_model_set(SHIPPED)
    assert [entry.name for entry in model_set.models] == ["ridge", "logistic", "elastic", "ensemble"]
    assert [entry.role for entry in model_set.models] == ["champion"] + ["challenger"] * 3
    assert {entry.score_kind for entry in model_set.models} == {"probability"}
    assert all(0 < entry.flag_threshold < 1 for entry in model_set.models if entry.flag_threshold is not None)
    assert model_set.warnings == ()
    assert model_set.digest == hashlib.sha256((SHIPPED / "manifest.json").read_bytes()).hexdigest()
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 1_000_000


def test_golden_rows_cover_the_edges_of_the_features() -> None:
    golden = load_model_set(SHIPPED).golden
    events = columns_from_dicts([row.event for row in golden])
    assert len(golden) >= 32
    assert "very_high" in events.column("risk_level").to_pylist()
    assert "never_seen_in_training" in events.column("product_category").to_pylist()
    assert {row.event["customer_id"] for row in golden} == {"golden"}
    assert not any("will_default" in row.event for row in golden)


@pytest.mark.parametrize("name", sorted(path.name for path in SHIPPED.iterdir() if path.name != "manifest.json"))
def test_a_changed_file_is_refused_before_anything_is_unpickled(folder: Path, tmp_path: Path, name: str) -> None:
    trace = tmp_path / "was_unpickled"
    joblib.dump(Malicious(trace), folder / name)
    with pytest.raises(ArtifactError, match=rf"{name} was changed after the export.*Nothing was loaded"):
        load_model_set(folder)
    assert not trace.exists()


def test_the_malicious_pickle_of_these_tests_does_work(tmp_path: Path) -> None:
    trace = tmp_path / "was_unpickled"
    joblib.dump(Malicious(trace), tmp_path / "evil.joblib")
    joblib.load(tmp_path / "evil.joblib")
    assert trace.exists()


def test_a_file_that_the_manifest_does_not_list_is_refused(folder: Path) -> None:
    (folder / "bnpl_extra_v1.joblib").write_bytes(b"anything")
    with pytest.raises(ArtifactError, match=r"bnpl_extra_v1\.joblib is not listed"):
        load_model_set(folder)


def test_a_missing_file_is_refused(folder: Path) -> None:
    (folder / MODEL).unlink()
    with pytest.raises(ArtifactError, match=rf"{MODEL} cannot be read"):
        load_model_set(folder)


def test_a_folder_without_manifest_points_to_adopt(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match="artifacts adopt"):
        load_model_set(folder)


@pytest.mark.parametrize("name", ["../evil.joblib", "/tmp/evil.joblib", "sub/evil.joblib", "..", ".hidden"])
def test_a_manifest_cannot_lead_out_of_its_folder(folder: Path, name: str) -> None:
    edit(folder / "manifest.json", lambda manifest: manifest["files"].update({name: manifest["files"][MODEL]}))
    with pytest.raises(ArtifactError, match="leads out of the folder"):
        load_model_set(folder)


def test_a_symbolic_link_is_refused_even_to_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    (folder / MODEL).rename(tmp_path / "elsewhere.joblib")
    (folder / MODEL).symlink_to(tmp_path / "elsewhere.joblib")
    with pytest.raises(ArtifactError, match="symbolic link"):
        load_model_set(folder)


def test_a_model_that_only_the_metadata_names_is_refused(folder: Path) -> None:
    edit(folder / METADATA, lambda metadata: metadata["models"].update({"fifth": {}}))
    reseal(folder)
    with pytest.raises(ArtifactError, match=r"bnpl_fifth_v1\.joblib is not listed in the manifest"):
        load_model_set(folder)


def test_a_resealed_folder_is_another_digest(folder: Path) -> None:
    approved = load_model_set(folder).digest
    edit(folder / METADATA, lambda metadata: metadata["models"]["ridge"].update(flag_threshold=0.5))
    reseal(folder)
    assert load_model_set(folder).digest != approved
    with pytest.raises(ArtifactError, match=f"expected {approved}"):
        load_model_set(folder, expected_digest=approved)


@pytest.mark.parametrize("content", [b"", b"{}", b"not json", b'{"format": 2}'])
def test_a_malformed_manifest_names_its_faults(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"manifest\.json is not a usable manifest"):
        load_model_set(folder)


def test_a_feature_that_this_code_cannot_make_is_refused(folder: Path) -> None:
    def rename(metadata: dict[str, Any]) -> None:
        metadata["shared_artifacts"]["feature_names"][0] = "amount_log"

    edit(folder / METADATA, rename)
    reseal(folder)
    with pytest.raises(ArtifactError, match="amount_log"):
        load_model_set(folder)


def test_features_in_another_order_than_the_fit_are_refused(folder: Path) -> None:
    edit(folder / METADATA, lambda metadata: metadata["shared_artifacts"]["feature_names"].reverse())
    reseal(folder)
    with pytest.raises(ArtifactError, match="in another order"):
        load_model_set(folder)


def test_a_preprocessor_of_other_width_than_the_models_is_refused(folder: Path) -> None:
    narrow = LogisticRegression().fit([[0.0, 1.0], [1.0, 0.0]], [0, 1])
    joblib.dump(narrow, folder / MODEL)
    reseal(folder)
    with pytest.raises(ArtifactError, match=f"{MODEL} takes 2 columns, the preprocessor gives 36"):
        load_model_set(folder)


def test_a_golden_score_that_does_not_come_out_is_refused(folder: Path) -> None:
    def nudge(manifest: dict[str, Any]) -> None:
        manifest["golden"][5]["scores"]["logistic"] += 2e-9

    edit(folder / "manifest.json", nudge)
    with pytest.raises(ArtifactError, match=r"golden rows do not hold: logistic differs by 2e-09"):
        load_model_set(folder)


def test_golden_rows_hold_however_old_their_events_are() -> None:
    """A set must load years from now, when its golden events are older than any that the service lets in."""
    model_set = load_model_set(SHIPPED)
    events = [row.event | {"transaction_timestamp": "2001-02-03T04:05:06.789Z"} for row in model_set.golden]
    aged = replace(model_set, golden=golden_rows(model_set, events))
    assert check_golden(aged, aged.scores) == 0.0


def test_a_golden_feature_that_does_not_come_out_is_refused_by_name(folder: Path) -> None:
    def nudge(manifest: dict[str, Any]) -> None:
        manifest["golden"][0]["features"][3] += 0.01

    edit(folder / "manifest.json", nudge)
    with pytest.raises(ArtifactError, match="feature risk_score differs"):
        load_model_set(folder)


def test_a_golden_row_without_a_models_score_is_refused(folder: Path) -> None:
    edit(folder / "manifest.json", lambda manifest: manifest["golden"][0]["scores"].pop("elastic"))
    with pytest.raises(ArtifactError, match="elastic differs"):
        load_model_set(folder)


def test_swapped_models_are_caught_by_golden_rows(folder: Path) -> None:
    shutil.copy(folder / "bnpl_elastic_v1.joblib", folder / MODEL)
    reseal(folder)
    with pytest.raises(ArtifactError, match="ridge differs"):
        load_model_set(folder)


def rewrite_as(folder: Path, version: str, monkeypatch: pytest.MonkeyPatch, change: float = 0.0) -> None:
    """Have the champion written by another scikit-learn, which may also compute otherwise."""
    model = joblib.load(folder / MODEL)
    model.calibrated_classifiers_[0].calibrators[0].b_ += change
    with monkeypatch.context() as patched:
        patched.setattr("sklearn.base.__version__", version)
        joblib.dump(model, folder / MODEL)
    reseal(folder)


def test_another_scikit_learn_is_accepted_when_golden_rows_hold_and_noted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite_as(folder, "1.4.2", monkeypatch)
    (note,) = load_model_set(folder).warnings
    assert "written by scikit-learn 1.4.2" in note


def test_another_scikit_learn_whose_scores_differ_is_refused_with_both_versions(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite_as(folder, "1.4.2", monkeypatch, change=1e-6)
    with pytest.raises(ArtifactError, match=r"ridge differs.*written by scikit-learn 1\.4\.2"):
        load_model_set(folder)


def test_a_predictor_that_scores_otherwise_fails_the_golden_rows() -> None:
    model_set = load_model_set(SHIPPED)

    def crooked(matrix: np.ndarray) -> dict[str, np.ndarray]:
        return model_set.scores(matrix) | {"ensemble": model_set.scores(matrix)["ensemble"] + 1e-6}

    assert check_golden(model_set, model_set.scores) <= 1e-9
    with pytest.raises(ArtifactError, match="ensemble differs"):
        check_golden(model_set, crooked)


def test_a_fifth_model_flows_through_by_metadata_alone(folder: Path) -> None:
    shipped = load_model_set(folder)
    features = np.array([row.features for row in shipped.golden])
    forest = RandomForestClassifier(5, max_depth=2, random_state=0)
    forest.fit(shipped.preprocess(features), np.arange(len(features)) % 2)
    joblib.dump(forest, folder / "bnpl_forest_v1.joblib")
    scores = forest.predict_proba(shipped.preprocess(features))[:, 1]
    edit(folder / METADATA, lambda metadata: metadata["models"].update({"forest": {"auc": 0.5}}))

    def list_it(manifest: dict[str, Any]) -> None:
        manifest["files"]["bnpl_forest_v1.joblib"] = {"sha256": "", "bytes": 0}
        for row, score in zip(manifest["golden"], scores, strict=True):
            row["scores"]["forest"] = float(score)

    edit(folder / "manifest.json", list_it)
    reseal(folder)
    model_set = load_model_set(folder)
    assert [entry.name for entry in model_set.models][-1] == "forest"
    assert model_set.models[-1].flag_threshold is None
    assert any("forest" in note for note in model_set.warnings)


@pytest.fixture(scope="module")
def fitted() -> tuple[dict[str, Any], np.ndarray]:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(200, 4))
    label = (matrix[:, 0] + rng.normal(size=200) > 0).astype(int)
    models: dict[str, Any] = {
        "logistic": LogisticRegression().fit(matrix, label),
        "other": LogisticRegression(C=0.01).fit(matrix, label),
        "classifier": RidgeClassifier().fit(matrix, label),
        "regressor": Ridge().fit(matrix, label),
    }
    return models, matrix


def entry(estimator: Any) -> ModelEntry:
    return ModelEntry("model", "v1", "challenger", estimator, score_kind(estimator))


def test_kinds_of_scores(fitted: tuple[dict[str, Any], np.ndarray]) -> None:
    models, matrix = fitted
    assert entry(models["logistic"]).score_kind == "probability"
    assert entry(models["classifier"]).score_kind == "uncalibrated"
    assert entry(models["regressor"]).score_kind == "value"
    decision = models["classifier"].decision_function(matrix)
    assert np.array_equal(estimator_scores(entry(models["classifier"]), matrix), expit(decision))
    values = estimator_scores(entry(models["regressor"]), matrix)
    assert np.array_equal(values, np.clip(models["regressor"].predict(matrix), 0, 1))
    assert values.min() == 0.0
    assert values.max() <= 1.0


def test_a_soft_vote_leaves_out_and_names_members_without_probability(
    fitted: tuple[dict[str, Any], np.ndarray],
) -> None:
    models, matrix = fitted
    label = models["logistic"].predict(matrix)
    named = [("a", models["logistic"]), ("ridge", models["classifier"]), ("b", models["other"])]
    members = [(name, FrozenEstimator(model)) for name, model in named]
    vote = entry(VotingClassifier(members, voting="soft", weights=[3, 5, 1]).fit(matrix, label))
    first, second = (models[name].predict_proba(matrix)[:, 1] for name in ("logistic", "other"))
    assert vote.left_out == ("ridge",)
    assert vote.score_kind == "probability"
    assert np.abs(estimator_scores(vote, matrix) - (3 * first + second) / 4).max() <= 1e-15


def test_a_soft_vote_of_probabilities_is_scikit_learns_own(fitted: tuple[dict[str, Any], np.ndarray]) -> None:
    models, matrix = fitted
    label = models["logistic"].predict(matrix)
    vote = VotingClassifier([("a", LogisticRegression()), ("b", "drop"), ("c", LogisticRegression(C=9))], voting="soft")
    vote.fit(matrix, label)
    assert entry(vote).left_out == ()
    assert np.abs(estimator_scores(entry(vote), matrix) - vote.predict_proba(matrix)[:, 1]).max() <= 1e-15


def test_what_gives_no_usable_score_is_refused(fitted: tuple[dict[str, Any], np.ndarray]) -> None:
    _, matrix = fitted
    with pytest.raises(ArtifactError, match="gives neither"):
        score_kind(object())
    only_ridge = VotingClassifier([("r", RidgeClassifier())], voting="soft").fit(matrix, np.arange(200) % 2)
    with pytest.raises(ArtifactError, match="no member of the ensemble gives a probability"):
        score_kind(only_ridge)
    with pytest.raises(ArtifactError, match=r"classes are \[1, 2\]"):
        score_kind(LogisticRegression().fit(matrix, np.arange(200) % 2 + 1))


def test_a_model_set_is_frozen() -> None:
    model_set: ModelSet = load_model_set(SHIPPED)
    with pytest.raises(AttributeError):
        model_set.champion = "logistic"  # type: ignore[misc]
