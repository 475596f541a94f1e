"""Producer, score and sink as the processes they are in production, on the shared events where they are there."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import clickhouse_connect
import numpy as np
import pytest
from harness import Command, Commands, Event, eventually, fresh_settings, shadow_events, simulated, wait_stored

from consumer.contracts.transaction import columns_from_dicts
from consumer.scoring.controller import ShadowModeController
from consumer.settings import PROJECT, Settings
from consumer.stack.local import LocalStack

SHARED = PROJECT.parent / "shared" / "data" / "transactions-2026-summer.jsonl.gz"
SHARED_EVENTS = 52_348
PERSONAL = ("transaction_id", "customer_id", "device_id", "payment_method_id")


@dataclass
class Pipeline:
    settings: Settings
    commands: Commands
    score: Command
    sink: Command

    def produce(self, file: Path) -> dict[str, object]:
        done = self.commands.run(self.settings, "produce", str(file), "--json", seconds=120)
        assert done.process.returncode == 0, done.output
        summary: dict[str, object] = json.loads(done.output.splitlines()[-1])
        return summary


@pytest.fixture
def pipeline(stack: LocalStack, tmp_path: Path, commands: Commands) -> Iterator[Pipeline]:
    with fresh_settings(stack, tmp_path / "state") as settings:
        score, sink = commands.start(settings, "score"), commands.start(settings, "sink")
        eventually(lambda: score.says("scoring"), 40, lambda: score.output)
        eventually(lambda: sink.says("storing"), 40, lambda: sink.output)
        yield Pipeline(settings, commands, score, sink)


def assert_scores_are_scikit_learns(settings: Settings, controller: ShadowModeController, events: list[Event]) -> None:
    model_set = controller.predictor.model_set
    matrix = model_set.engineer.engineer(columns_from_dicts(events)).matrix
    expected = model_set.scores(matrix)
    assert settings.clickhouse_url
    with clickhouse_connect.get_client(dsn=settings.clickhouse_url.get_secret_value()) as client:
        columns = ", ".join(f"{name}_prediction" for name in expected)
        found = client.query(f"SELECT transaction_id, {columns} FROM shadow_predictions ORDER BY transaction_id")
    ids, *stored = found.result_columns
    order = np.argsort([each["transaction_id"] for each in events])
    assert list(ids) == [events[at]["transaction_id"] for at in order]
    for name, scores in zip(expected, stored, strict=True):
        assert np.abs(np.array(scores, float) - expected[name][order]).max() <= 1e-9, name


@pytest.mark.skipif(not SHARED.exists(), reason=f"{SHARED} is not there")
def test_the_shared_events_end_as_one_row_each_with_scikit_learns_own_scores(
    pipeline: Pipeline, controller: ShadowModeController
) -> None:
    summary = pipeline.produce(SHARED)
    assert (summary["sent"], summary["dead_letters"]) == (SHARED_EVENTS, 0)
    assert summary["labels_stripped"] == {
        "will_default": SHARED_EVENTS,
        "days_to_first_missed_payment": SHARED_EVENTS,
    }
    wait_stored(pipeline.settings, SHARED_EVENTS, 90)
    with gzip.open(SHARED) as lines:
        events = [json.loads(line) for line in lines]
    assert_scores_are_scikit_learns(pipeline.settings, controller, events)


def test_the_logs_let_a_stranger_follow_and_name_nobody(pipeline: Pipeline, tmp_path: Path) -> None:
    events = simulated(2000, seed=41)
    events[5]["payment_provider"] = "a-new-provider"
    events[9]["amount"] = -1.0
    events[11]["product_category"] = "x" * 999
    file = tmp_path / "events.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in events))
    assert pipeline.produce(file)["sent"] == 2000
    wait_stored(pipeline.settings, 1998, 60)
    for command in (pipeline.score, pipeline.sink):
        command.terminate()
        assert command.ended(25) == 0

    told = {"score": pipeline.score.events, "sink": pipeline.sink.events}
    for service, lines in told.items():
        for line in lines:
            assert {"event", "level", "timestamp"} <= line.keys()
            assert line["service"] == service
    begin = next(line for line in told["score"] if line["event"] == "scoring")
    end = told["score"][-2]
    assert {"artifact", "artifact_sha256", "models", "champion", "rules", "rules_sha256", "topic"} <= begin.keys()
    assert end["event"] == "scored"
    assert {name: end[name] for name in ("records", "scored", "dead_letters")} == {
        "records": 2000,
        "scored": 1998,
        "dead_letters": 2,
    }
    assert end["unknown_categories"] == {"payment_provider=a-new-provider": 1}
    refused = [line for line in told["score"] if line["event"] == "dead letters"]
    for fault in ("validate: negative", "validate: oversized"):
        assert sum(line.get(fault, 0) for line in refused) == 1
    assert told["sink"][-2]["stored"] == 1998

    words = set(re.findall(r"\w+", pipeline.score.output + pipeline.sink.output))
    personal = {each[name] for each in events for name in PERSONAL} - {None}
    assert len(personal) > 2500
    assert not words & personal
    assert len(shadow_events(pipeline.settings)) == 1998
