"""`bnpl-shadow demo` and `run`: everything on one machine, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import clickhouse_connect
import psutil
import pytest
from harness import Command, Commands, eventually, simulated

from consumer.errors import Fatal
from consumer.settings import Settings
from consumer.stack.local import read_addresses
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


def test_run_scores_what_is_produced_replaces_what_is_killed_and_ends_in_order(
    folder: Path, commands: Commands, tmp_path: Path
) -> None:
    run = start(commands, folder, "run", "--kafka-port", "0", "--clickhouse-port", "0")
    eventually(lambda: "running; send events" in run.output, 90, lambda: run.output)
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
    send(52)
    eventually(lambda: count() == 1000, 60, lambda: f"{count()} of 1000; {run.output}")
    run.terminate()
    assert run.ended(45) == 0, run.output
    assert "stopped; the data stays" in run.output
    assert_nothing_is_left(folder)


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
