"""The policy file: strict, hashed, and consistent with the targets that research wrote."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from made import POLICY, POLICY_FILE

from consumer.errors import ArtifactError
from consumer.evaluation.policy import Targets, load_policy
from consumer.settings import PROJECT


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "policy.json"
    path.write_text(json.dumps(json.loads(POLICY_FILE.read_text()) | changes))
    return path


def test_the_policy_is_known_by_the_hash_of_its_bytes() -> None:
    policy, digest = load_policy(POLICY_FILE)
    assert digest == hashlib.sha256(POLICY_FILE.read_bytes()).hexdigest()
    assert policy.looks_at_weeks == (4, 5, 6)
    assert policy.confidence == pytest.approx(0.95)


def test_a_space_more_is_another_policy(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_bytes(POLICY_FILE.read_bytes() + b" ")
    policy, digest = load_policy(path)
    assert policy == POLICY
    assert digest != load_policy(POLICY_FILE)[1]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"alpha": "0.05"}, "alpha: Input should be a valid number"),
        ({"alpha": 0.5}, "alpha: Input should be less than 0.5"),
        ({"equivalence_margin": 1}, "equivalence_margin: Input should be greater than 1"),
        ({"looks_at_weeks": []}, "looks_at_weeks"),
        ({"looks_at_weeks": [4, 6, 5]}, "looks_at_weeks must ascend"),
        ({"looks_at_weeks": [3, 4]}, "the first of looks_at_weeks is before minimum_weeks"),
        ({"decides": "auc"}, "decides"),
        ({"patience": 3}, "patience: Extra inputs are not permitted"),
        ({"economics": {"margin": 0.04}}, "economics.loss_given_default: Field required"),
    ],
)
def test_faults_are_named(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    path = written(tmp_path, **changes)
    with pytest.raises(ArtifactError) as raised:
        load_policy(path)
    assert told in str(raised.value)
    assert str(path) in str(raised.value)


def test_a_policy_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"nowhere\.json cannot be read"):
        load_policy(tmp_path / "nowhere.json")


def test_the_targets_are_those_of_the_exported_baseline() -> None:
    baseline = json.loads((PROJECT / "artifacts" / "v1" / "baseline_metrics.json").read_text())
    targets = Targets.model_validate_json(json.dumps(baseline["targets"]))
    assert [targets.level(ratio) for ratio in (0.9, 1.0, 1.49, 1.5, 2.79, 2.8, 4.0)] == [
        "below minimum", "below acceptable", "below acceptable", "acceptable", "acceptable", "success", "success",
    ]  # fmt: skip
