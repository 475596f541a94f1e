"""`promote`, `kill` and `control` as people and programs meet them, on a real Kafka."""

from __future__ import annotations

import getpass
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from harness import Commands, environment, send
from pydantic import SecretStr

from consumer.champion.promotion import configured
from consumer.cli.main import cli
from consumer.contracts.control import STATE_KEY
from consumer.errors import BnplError, Fatal, KafkaUnavailable
from consumer.settings import Settings


@pytest.fixture
def dossier(tmp_path: Path) -> Path:
    """One that recommends logistic."""
    path = tmp_path / "dossier.json"
    said = [{"model": "ridge", "against": "rules", "verdict": "equivalent"}]
    terms = {"artifact_sha256": configured(Settings()).sha256}
    path.write_text(json.dumps({"recommendation": {"promote": "logistic"}, "verdicts": said, "terms": terms}))
    return path


def invoke(settings: Settings, *arguments: object) -> Result:
    """A command in this process; an error of ours is raised, as `main` meets it."""
    done = CliRunner().invoke(cli, [*map(str, arguments)], env=environment(settings))
    if isinstance(done.exception, BnplError):
        raise done.exception
    return done


def shown(settings: Settings) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(invoke(settings, "control", "--json").stdout)
    return told


def test_from_shadow_to_canary_to_killed_and_back_with_everything_on_record(
    settings: Settings, dossier: Path, commands: Commands
) -> None:
    assert "no promotion yet" in invoke(settings, "control").stdout
    assert shown(settings) == {"state": None, "history": [], "passed_over": []}

    told = invoke(settings, "promote", "logistic", "--dossier", dossier, "--reason", "better for weeks", "--yes")
    assert told.exit_code == 0, told.output
    assert "revision 1: logistic is champion, and the rules decide everything" in told.stdout
    assert "bnpl_control_revision 1" in told.stdout
    canary = ("promote", "ridge", "--mode", "canary", "--share", "2.5", "--override", "--by", "otto", "--yes")
    told = invoke(settings, *canary, "--dossier", dossier, "--reason", "on a hunch")
    assert "ridge decides 2.5 % of customers" in told.stdout
    assert "OVERRIDE, recorded for ever: no verdict supports it: the dossier recommends logistic" in told.stdout

    # the one that must work as a process, without ClickHouse, from a terminal that cannot answer
    away = settings.model_copy(update={"clickhouse_url": SecretStr("http://127.0.0.1:1/none")})
    done = commands.run(away, "kill", "--reason", "an incident")
    assert done.process.returncode == 0, done.output
    assert done.output.startswith("revision 3: ridge is champion, and the rules decide everything\n")
    assert json.loads(invoke(settings, "kill", "--reason", "to be sure", "--json").stdout)["revision"] == 4
    for revision in (5, 6):
        back = invoke(settings, "promote", "--rollback", "--reason", "it was the network", "--yes", "--json")
        assert json.loads(back.stdout)["revision"] == revision

    send(settings, settings.topic_control, [{"key": STATE_KEY, "value": b"rubbish"}])
    found = shown(settings)
    assert [each["action"] for each in found["history"]] == [
        "promote",
        "promote",
        "kill",
        "kill",
        "rollback",
        "rollback",
    ]
    assert found["state"] == found["history"][-1]
    digest = hashlib.sha256(dossier.read_bytes()).hexdigest()
    assert {name: found["state"][name] for name in ("champion", "mode", "canary_percent", "override", "made_by")} == {
        "champion": "ridge",
        "mode": "canary",
        "canary_percent": 2.5,
        "override": True,
        "made_by": getpass.getuser(),
    }
    assert [each["dossier_sha256"] for each in found["history"]] == [digest] * 6
    assert [each["made_by"] for each in found["history"]][1] == "otto"
    assert [each["error"] for each in found["passed_over"]] == ["unknown_framing"]
    table = invoke(settings, "control")
    assert "revision 6: ridge decides 2.5 % of customers, among those whom the rules approve" in table.stdout
    assert (
        "OVERRIDE: no verdict supported ridge: the dossier recommends logistic; of ridge it says equivalent"
        in table.stdout
    )
    for words in ("better for weeks", "on a hunch", "an incident", "to be sure", "it was the network", "otto"):
        assert words in table.stdout
    assert "passed over: offset" in table.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("promote", "lasso", "--override"), "lasso is no model of v1: there are ridge, logistic, elastic, ensemble"),
        (("promote", "ridge"), "ridge is not promoted: there is no dossier"),
        (("promote", "ridge", "--dossier", "DOSSIER"), "the dossier recommends logistic; of ridge it says equivalent"),
        (("promote", "--rollback"), "nothing was ever promoted"),
        (("promote", "ridge", "--override", "--mode", "canary", "--share", "0.001"), "more than two decimals"),
        (("promote", "ridge", "--override", "--by", " "), "this cannot be recorded: made_by"),
    ],
)
def test_what_is_refused_says_why_and_changes_nothing(
    settings: Settings, dossier: Path, arguments: tuple[str, ...], told: str
) -> None:
    given = [str(dossier) if each == "DOSSIER" else each for each in arguments]
    with pytest.raises(Fatal) as refused:
        invoke(settings, *given, "--reason", "no reason", "--yes")
    assert told in str(refused.value)
    assert shown(settings)["state"] is None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("promote", "ridge"), "Missing option '--reason'"),
        (("kill",), "Missing option '--reason'"),
        (("promote", "--reason", "x"), "name a MODEL, or say --rollback"),
        (("promote", "ridge", "--rollback", "--reason", "x"), "name a MODEL, or say --rollback"),
        (("promote", "--rollback", "--mode", "champion", "--reason", "x"), "it takes no --mode"),
        (("promote", "ridge", "--share", "5", "--reason", "x"), "--share belongs to --mode canary"),
        (("promote", "ridge", "--mode", "canary", "--reason", "x"), "--share belongs to --mode canary"),
        (("promote", "ridge", "--mode", "canary", "--share", "100", "--reason", "x"), "--share"),
        (("promote", "ridge", "--mode", "off", "--reason", "x"), "--mode"),
        (("promote", "ridge", "--dossier", "nowhere.json", "--reason", "x"), "nowhere.json"),
    ],
)
def test_what_was_asked_wrongly_is_told_before_anything_is_asked(arguments: tuple[str, ...], told: str) -> None:
    done = CliRunner().invoke(cli, list(arguments))
    assert done.exit_code == 2
    assert told in done.output


def test_where_nobody_can_be_asked_nothing_is_promoted_without_yes(settings: Settings, dossier: Path) -> None:
    done = invoke(settings, "promote", "logistic", "--dossier", dossier, "--reason", "x")
    assert done.exit_code == 2
    assert "nobody can be asked here: say --yes" in done.output
    assert shown(settings)["state"] is None


@pytest.mark.parametrize(("answer", "revisions"), [("y", [1]), ("n", []), ("", [])])
def test_a_person_is_shown_what_changes_and_asked(
    settings: Settings, dossier: Path, monkeypatch: pytest.MonkeyPatch, answer: str, revisions: list[int]
) -> None:
    monkeypatch.setattr("consumer.cli.promote._can_be_asked", lambda: True)
    arguments = ["promote", "logistic", "--dossier", str(dossier), "--mode", "champion", "--reason", "x"]
    done = CliRunner().invoke(cli, arguments, env=environment(settings), input=answer)
    assert "now      no promotion: the rules decide everything" in done.stderr
    assert "then     logistic decides, among those whom the rules approve" in done.stderr
    assert (done.exit_code == 0) is bool(revisions)
    assert [each["revision"] for each in shown(settings)["history"]] == revisions


def test_without_kafka_every_command_says_so(dossier: Path, tmp_path: Path) -> None:
    nowhere = Settings(kafka_bootstrap_servers="127.0.0.1:1", state_dir=tmp_path)
    with pytest.raises(KafkaUnavailable, match=r"Kafka does not answer at 127\.0\.0\.1:1"):
        invoke(nowhere, "kill", "--reason", "x")
