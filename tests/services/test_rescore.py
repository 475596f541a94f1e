"""History scored again with other models: beside the live rows, once, and without touching the live group."""

from __future__ import annotations

import json
import shutil
import signal
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from harness import (
    Commands,
    clickhouse_rows,
    committed,
    read_topic,
    running,
    score_lag,
    send,
    send_events,
    shadow_events,
    simulated,
    wait_scored,
    wait_stored,
)

from consumer.cli.main import cli
from consumer.clock import utc_now
from consumer.scoring.controller import ShadowModeController
from consumer.services.score import ScoreService
from consumer.services.sink import SinkService
from consumer.settings import PROJECT, Settings

COUNT = 2000
RUBBISH = 5


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """v1 as it is shipped, and v2: the same models brought in again, under another feature spec."""
    folder = tmp_path_factory.mktemp("artifacts")
    shutil.copytree(PROJECT / "artifacts" / "v1", folder / "v1")
    adopt = ["artifacts", "adopt", str(folder / "v1"), "--version", "v2", "--feature-spec", "2", "--out", str(folder)]
    done = CliRunner().invoke(cli, [*adopt, "--trust"])
    assert done.exit_code == 0, done.output
    return folder


def test_history_is_scored_beside_the_live_rows_once_also_when_it_was_killed_on_the_way(
    settings: Settings, controller: ShadowModeController, commands: Commands, artifacts: Path
) -> None:
    settings = settings.model_copy(update={"artifacts_dir": artifacts, "batch_max_records": 200})
    send_events(settings, simulated(COUNT, seed=91))
    send(settings, settings.topic_transactions, [{"key": b"k", "value": b"rubbish"}] * RUBBISH)
    with running(ScoreService(settings, controller)):
        wait_scored(settings)
    start, end = utc_now() - timedelta(hours=1), utc_now()
    with score_lag(settings) as lag:
        live = committed(lag)
    send_events(settings, simulated(100, seed=92))  # after the end

    again = ("rescore", "--from", start.isoformat(), "--to", end.isoformat(), "--artifacts", "v2", "--json")
    died = commands.run(settings, *again, BNPL_PROFILE="test", BNPL_CRASH_POINT="score:7@4")
    assert died.process.returncode == -signal.SIGKILL, died.output
    halfway = len(shadow_events(settings)) - COUNT
    assert 0 < halfway < COUNT
    done = commands.run(settings, *again)
    assert done.process.returncode == 0, done.output
    told = json.loads(done.output.splitlines()[-1])
    assert told["finished"]
    assert told["scored"] == COUNT - halfway
    assert told["refused"] in ({}, {"unknown_framing": RUBBISH}), "unless the part that died had them already"
    nothing_left = commands.run(settings, *again)
    assert json.loads(nothing_left.output.splitlines()[-1])["scored"] == 0

    events = shadow_events(settings)
    seen = Counter((each["artifact_version"], each["source_partition"], each["source_offset"]) for each in events)
    assert set(seen.values()) == {1}
    assert Counter(version for version, *_ in seen) == {"v1": COUNT, "v2": COUNT}
    assert len(read_topic(settings, settings.topic_dead_letters)) == RUBBISH
    with score_lag(settings) as lag:
        assert committed(lag) == live
    with running(SinkService(settings)):
        wait_stored(settings, 2 * COUNT, 60)
    rows = Counter(clickhouse_rows(settings, "artifact_version, transaction_id"))
    assert len(rows) == 2 * COUNT


def test_what_cannot_be_rescored_is_refused_by_name(settings: Settings, commands: Commands, artifacts: Path) -> None:
    settings = settings.model_copy(update={"artifacts_dir": artifacts})
    same = commands.start(settings, "rescore", "--from", "1h", "--artifacts", "v1")
    empty = commands.start(settings, "rescore", "--from", "1h", "--artifacts", "v2")
    missing = commands.start(settings, "rescore", "--from", "1h", "--artifacts", "v9")
    assert same.ended(60) == empty.ended(60) == missing.ended(60) == 1
    assert "v1 is what scores live" in same.output
    assert f"{settings.topic_transactions} holds nothing between" in empty.output
    assert "v9" in missing.output
