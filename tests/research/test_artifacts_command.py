"""`bnpl-shadow artifacts ls` and `verify`, and `train`, as a user and a program see them."""

from __future__ import annotations

import shutil
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner
from trained_set import Trained

from consumer.cli import train as train_command
from consumer.cli.artifacts import command
from consumer.cli.main import COMMANDS, cli
from consumer.errors import ArtifactError
from consumer.scoring.artifacts import load_model_set
from consumer.settings import PROJECT


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """A whole export, a spoilt one and a folder that is none."""
    root = tmp_path / "artifacts"
    shutil.copytree(PROJECT / "artifacts" / "v1", root / "v1")
    shutil.copytree(root / "v1", root / "v2")
    (root / "v2" / "MODEL_CARD.md").write_text("something else")
    (root / "rules").mkdir()
    return root


def test_ls_shows_versions_and_what_is_broken(folders: Path) -> None:
    result = CliRunner().invoke(command, ["ls", "--artifacts", str(folders), "--json"])
    first, second = orjson.loads(result.stdout)
    assert first["version"] == "v1"
    assert first["champion"] == "ridge"
    assert first["models"] == ["ridge", "logistic", "elastic", "ensemble"]
    assert first["digest"] == load_model_set(folders / "v1").digest
    assert "MODEL_CARD.md was changed" in second["error"]
    lines = CliRunner().invoke(command, ["ls", "--artifacts", str(folders)]).stdout.splitlines()
    assert first["digest"][:12] in lines[0]
    assert "BROKEN" in lines[1]


def test_ls_of_an_empty_folder_says_how_to_begin(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["ls", "--artifacts", str(tmp_path)])
    assert result.exit_code == 0
    assert "bnpl-shadow train" in result.stderr


def test_verify_proves_by_scikit_learn_and_by_the_serving_code() -> None:
    result = CliRunner().invoke(command, ["verify", str(PROJECT / "artifacts" / "v1"), "--json"])
    facts = orjson.loads(result.stdout)
    assert facts["ok"] is True
    assert facts["files"] == 9
    assert facts["golden_rows"] >= 32
    assert facts["golden_gap_sklearn"] <= 1e-9
    assert facts["golden_gap_predictor"] <= 1e-9
    assert facts["fused"] == ["ridge", "logistic", "elastic", "ensemble"]


def test_verify_fails_with_a_reason_for_people_and_for_programs(folders: Path) -> None:
    spoilt = str(folders / "v2")
    result = CliRunner().invoke(command, ["verify", spoilt])
    assert isinstance(result.exception, ArtifactError)
    program = CliRunner().invoke(command, ["verify", spoilt, "--json"])
    assert program.exit_code == 1
    assert orjson.loads(program.stdout)["ok"] is False
    assert "MODEL_CARD.md" in orjson.loads(program.stdout)["error"]


def test_verify_holds_a_pinned_digest(folders: Path) -> None:
    folder, digest = str(folders / "v1"), load_model_set(folders / "v1").digest
    assert CliRunner().invoke(command, ["verify", folder, "--digest", digest]).exit_code == 0
    assert CliRunner().invoke(command, ["verify", folder, "--digest", "0" * 64]).exit_code != 0


def test_train_writes_what_verify_proves(trained: Trained, tmp_path: Path) -> None:
    arguments = [
        str(trained.events),
        "--version",
        "t2",
        "--seed",
        "3",
        "--out",
        str(tmp_path),
        "--json",
    ]
    result = CliRunner().invoke(train_command.command, arguments)
    assert result.exit_code == 0, result.output
    facts = orjson.loads(result.stdout)
    assert facts["models"].keys() == {"ridge", "logistic", "elastic", "ensemble"}
    assert sum(period["rows"] for period in facts["split"].values()) == facts["rows"]
    proof = CliRunner().invoke(command, ["verify", str(tmp_path / "t2"), "--json"])
    assert orjson.loads(proof.stdout)["digest"] == facts["digest"]
    assert [path.name for path in tmp_path.iterdir()] == ["t2"]


@pytest.mark.parametrize("name", ["simulate", "train", "artifacts"])
def test_help_teaches_every_option(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    assert name in COMMANDS
    assert "[default" in result.output or "Commands" in result.output
