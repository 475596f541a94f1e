"""`bnpl-shadow demo` and `run`: everything on one machine, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import clickhouse_connect
import psutil
import pytest
from click.testing import CliRunner
from harness import Command, Commands, eventually, simulated

from consumer.cli.season import command as season_command
from consumer.cli.system import run as run_command
from consumer.errors import ConfigurationError, Fatal, StackError
from consumer.settings import PROJECT, Settings, load_settings
from consumer.stack.local import ENV_FILE, read_addresses
from consumer.system.season import kept
from consumer.system.services import SERVICES
from consumer.system.supervisor import ServiceProcess, Supervisor

NOTHING_GIVEN = Settings()


def processes_of(folder: Path) -> list[str]:
    """Command lines of the processes that name the folder in their arguments or environment."""

    def belongs(process: psutil.Process) -> bool:
        try:
            told = [*process.cmdline(), *process.environ().values()]
        except psutil.Error:
            return False
        return any(str(folder) in each for each in told)

    return [" ".join(each.info["cmdline"] or []) for each in psutil.process_iter(["cmdline"]) if belongs(each)]


def assert_nothing_is_left(folder: Path) -> None:
    """The kernel may take a moment to clear away what it killed."""
    eventually(lambda: not processes_of(folder), 3, lambda: processes_of(folder))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A state folder that names this test and nobody else's."""
    return tmp_path / "state"


def start(commands: Commands, folder: Path, *arguments: str, **variables: str) -> Command:
    return commands.start(NOTHING_GIVEN, *arguments, "--state-dir", str(folder), **variables)


def test_the_demo_ends_by_itself_with_a_summary_that_adds_up(folder: Path, commands: Commands) -> None:
    demo = start(commands, folder, "demo", "--events", "20000", "--rate", "20000", "--json")
    assert demo.ended(120) == 0, demo.output
    summary = next(json.loads(line) for line in demo.output.splitlines() if line.startswith('{"produced"'))
    assert summary["holds"] is True
    assert summary["produced"] == 20_000 == summary["scored"] + summary["dead_lettered"]
    assert summary["dead_lettered"] > 0
    assert summary["stored"] == summary["scored"] == summary["predictions"]
    assert "mean score" in demo.output or "ridge 0." in demo.output
    assert_nothing_is_left(folder)


@pytest.mark.parametrize("moment", ["starting kafka", "sent "])
def test_ctrl_c_in_the_middle_of_the_demo_leaves_no_process(folder: Path, commands: Commands, moment: str) -> None:
    demo = start(commands, folder, "demo", "--events", "500000", "--rate", "2000")
    eventually(lambda: moment in demo.output, 60, lambda: demo.output)
    demo.process.send_signal(signal.SIGINT)
    assert demo.ended(45) == 130, demo.output
    assert "interrupted" in demo.output
    assert_nothing_is_left(folder)


def test_a_service_that_cannot_work_is_named_with_its_reason(tmp_path: Path) -> None:
    variables = {"BNPL_RULES_FILE": "/nowhere/rules.json", "BNPL_SCORE_METRICS_PORT": "0"}
    score = ServiceProcess(["score"], tmp_path / "score.log", variables)
    with Supervisor([score]) as supervisor:
        eventually(lambda: score.exit_code is not None, 60, score.log_file.read_text)
        with pytest.raises(Fatal, match=r"(?s)score ended with code 1; its last lines:.*/nowhere/rules\.json"):
            supervisor.check()


FREE_PORTS = {each.variable: "0" for each in SERVICES}


def addresses(run: Command) -> dict[str, str]:
    """By name, of what `run` has told so far."""
    lines = (line.split() for line in run.output.splitlines())
    names = {"kafka", "clickhouse", *(each.name for each in SERVICES)}
    return {words[0]: words[-1] for words in lines if words[:1] and words[0] in names and ":" in words[-1]}


def test_run_scores_what_is_produced_replaces_what_is_killed_and_ends_in_order(
    folder: Path, commands: Commands, tmp_path: Path
) -> None:
    run = start(commands, folder, "run", "--kafka-port", "0", "--clickhouse-port", "0", **FREE_PORTS)
    eventually(lambda: "running; send events" in run.output, 120, lambda: run.output)
    assert f"data of your own, in {folder}" in run.output
    for each in SERVICES:
        with urllib.request.urlopen(addresses(run)[each.name], timeout=10) as page:
            assert page.status == 200, each.name
    local = Settings(state_dir=folder)
    address = read_addresses(folder).clickhouse
    file = tmp_path / "events.jsonl"

    def send(seed: int) -> None:
        file.write_text("".join(json.dumps(each) + "\n" for each in simulated(500, seed)))
        done = commands.run(local, "produce", str(file))
        assert done.process.returncode == 0, done.output

    def count() -> int:
        with clickhouse_connect.get_client(dsn=address) as client:
            return int(client.query("SELECT count() FROM shadow_scores FINAL").result_rows[0][0])

    send(51)
    eventually(lambda: count() == 500, 60, lambda: f"{count()} of 500; {run.output}")
    (score,) = service(folder, "score")
    os.kill(score, signal.SIGKILL)
    eventually(lambda: service(folder, "score") not in ([], [score]), 30, lambda: run.output)
    assert "starting a service again" in run.output
    send(52)
    eventually(lambda: count() == 1000, 60, lambda: f"{count()} of 1000; {run.output}")
    run.terminate()
    assert run.ended(45) == 0, run.output
    assert "stopped; the data stays" in run.output
    assert_nothing_is_left(folder)


def test_run_shows_the_season_that_was_kept_and_leaves_data_of_ones_own_alone(folder: Path, commands: Commands) -> None:
    season = kept.folder_of(folder)
    season.mkdir(parents=True)
    kept.keep(folder, Settings(state_dir=season, artifact_version="v1", transactions_retention_days=3650))
    ports = ("--kafka-port", "0", "--clickhouse-port", "0")
    run = start(commands, folder, "run", *ports, "--only", "sink", **FREE_PORTS)
    eventually(lambda: "running; send events" in run.output, 120, lambda: run.output)
    assert f"the last season, in {season}" in run.output
    assert not {"score", "drift"} & addresses(run).keys()
    line = f". {season / ENV_FILE} && {sys.executable} -m consumer topics apply"
    told = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=60, check=True, cwd=PROJECT)
    (transactions,) = (each for each in told.stdout.splitlines() if each.startswith("bnpl.transactions "))
    assert transactions.split()[1:3] == ["kept", "checkouts,"], "as the settings say that lie beside the data"
    lost = commands.run(NOTHING_GIVEN, "lag", BNPL_STATE_DIR=str(folder))
    assert f"(one runs in {season}: `. {season / ENV_FILE}` leads to it)" in lost.output
    for at, why in ((folder, "is being shown or played"), (season, "is a season's own folder")):
        refused = CliRunner().invoke(season_command, ["--scenario", "clones", "--state-dir", str(at)]).exception
        assert why in str(refused)
    run.terminate()
    assert run.ended(45) == 0, run.output
    assert {each.name for each in folder.iterdir()} == {"season", "shows-season"}
    assert_nothing_is_left(folder)


def test_what_run_shows_is_chosen_and_a_season_that_begins_deletes_only_the_last_one(tmp_path: Path) -> None:
    own = tmp_path / "kafka"
    own.mkdir()
    with pytest.raises(ConfigurationError, match=r"no season was played to its end in .*: play one by"):
        kept.show(tmp_path, season=True)
    assert not kept.shows_season(tmp_path)
    kept.folder_of(tmp_path).mkdir()
    given = Settings(state_dir=kept.folder_of(tmp_path), artifacts_dir=tmp_path / "it's taught", pseudonym_key="season")
    kept.keep(tmp_path, given)
    assert kept.shows_season(tmp_path)
    again = load_settings(**kept.settings_of(tmp_path))
    assert (again.state_dir, again.artifacts_dir, again.pseudonym_key) == (
        given.state_dir,
        given.artifacts_dir,
        given.pseudonym_key,
    )
    kept.show(tmp_path, season=False)
    assert not kept.shows_season(tmp_path)
    kept.show(tmp_path, season=True)
    kept.begin(tmp_path)
    assert not kept.shows_season(tmp_path)
    assert list(tmp_path.iterdir()) == [own]


def test_a_port_that_is_taken_is_named_with_its_setting_before_anything_starts(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ports = FREE_PORTS | {"BNPL_EVALUATE_METRICS_PORT": port}
        told = CliRunner(env=ports).invoke(run_command, ["--state-dir", str(folder)]).exception
    assert isinstance(told, StackError)
    assert f"evaluate cannot listen on port {port}: " in str(told)
    assert "BNPL_EVALUATE_METRICS_PORT (0 takes any free one)" in str(told)
    assert not folder.exists()


def test_run_needs_a_service_to_run(folder: Path) -> None:
    told = CliRunner().invoke(run_command, ["--state-dir", str(folder), "--only", "score", "--without", "score"])
    assert told.exit_code == 2
    assert "no service is left to run" in told.output


def service(folder: Path, name: str) -> list[int]:
    """Ids of the processes that run a service of this folder."""
    found = []
    for process in psutil.process_iter():
        try:
            command, environment = process.cmdline(), process.environ()
        except psutil.Error:
            continue
        if command[-2:] == ["consumer", name] and environment.get("BNPL_STATE_DIR") == str(folder):
            found.append(process.pid)
    return found
