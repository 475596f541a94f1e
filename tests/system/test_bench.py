"""The bench's own conduct: what it promises to programs, and when it refuses. Its figures are for `make bench`."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from harness import Commands

from consumer.errors import Fatal
from consumer.settings import Settings
from consumer.system.bench import machine
from consumer.system.bench.api import bench_api
from consumer.system.bench.evaluate import bench_evaluate
from consumer.system.bench.freshness import FreshnessFigures
from consumer.system.bench.report import Report
from consumer.system.bench.score import ScoreFigures
from consumer.system.bench.single import NaiveFigures


def test_a_small_bench_gives_programs_what_it_promises(commands: Commands) -> None:
    parts = ("score", "outcomes", "single", "naive")
    bench = commands.run(
        Settings(), "bench", *parts, "--events", "100000", "--rounds", "1", "--calls", "250", "--busy", "--json",
        seconds=240,
    )  # fmt: skip
    assert bench.process.returncode == 0, bench.output
    found = json.loads(bench.output.splitlines()[-1])
    score = found["score"]
    assert score["ratio"] == pytest.approx(score["events_per_s"] / score["ceiling_events_per_s"])
    assert score["events"] >= 100_000
    assert score["rss_mb"] > 50
    stages = {"consume", "decode", "rules", "features", "score", "encode", "produce", "commit"}
    assert stages <= found["stages_us"].keys()
    wall = 1e6 / score["events_per_s"]
    assert sum(found["stages_us"].values()) == pytest.approx(wall, rel=0.25), "the stages are the loop's whole time"
    assert found["outcomes"]["events"] >= 50_000, "the warm-up is a whole batch of the sink here"
    assert found["outcomes"]["rows_per_s"] > 0
    assert 0 < found["single_us"]["median"] <= found["single_us"]["p99"]
    assert found["naive"]["events_per_s"] < score["events_per_s"] / 10
    assert "freshness_ms" not in found
    assert found["machine"]["kafka"]


def test_an_evaluation_is_measured_as_the_command_that_people_call(settings: Settings) -> None:
    found = bench_evaluate(settings, 8_000, print)
    assert found.rows == 8_000
    assert 0 < found.tenth_seconds < 60
    assert 50 < found.rss_mb < 1_000
    assert "evaluate    8,000 transactions in " in "\n".join(Report({}, 0.0, evaluate=found).lines())


def test_the_api_is_measured_against_an_echo_that_it_has_nowhere_else(settings: Settings) -> None:
    found = bench_api(settings, 0.5, print)
    assert found.ratio == sorted(found.ratios)[1] > 0
    assert found.half_load_per_s < found.score_per_s
    assert 0 < found.p50_ms <= found.p99_ms
    assert "on one worker" in "\n".join(Report({}, 0.0, api=found).lines())


@pytest.mark.parametrize(
    ("name", "shown", "told"),
    [
        ("cpu_percent", 60.0, "this machine is busy: other work takes 60% of its cores"),
        ("virtual_memory", SimpleNamespace(available=1e9), "too small to measure on: it has 1.0 GB of memory to spare"),
        ("disk_usage", SimpleNamespace(free=2e9), "has 2.0 GB to spare; 12 are needed"),
    ],
)
def test_a_machine_that_is_unfit_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, shown: object, told: str
) -> None:
    monkeypatch.setattr(psutil, "cpu_percent", lambda _: 1.0)
    monkeypatch.setattr(psutil, name, lambda *_: shown)
    with pytest.raises(Fatal, match=told):
        machine.refuse_unfit(tmp_path, busy_too=False)
    if name == "cpu_percent":
        machine.refuse_unfit(tmp_path, busy_too=True)


def test_a_report_says_when_other_work_disturbed_it() -> None:
    quiet, busy = (list(Report({}, share).lines()) for share in (0.01, 0.4))
    assert quiet == ["other work  took 1% of all cores meanwhile"]
    assert busy[0] == "other work  took 40% of all cores meanwhile"
    assert "uncertain" in busy[1]


def test_a_report_shows_each_figure_beside_what_it_should_reach() -> None:
    score = ScoreFigures(1_000_000, 3, 150_000.0, 200_000.0, 0.75, [0.7, 0.75, 0.8], 400.0, 7.0, 4.0, 9000.0)
    fresh = FreshnessFigures(10_000.0, 60.0, 4, 30.0, 40.0, 70.0, 80.0, 300.0, {"50": 3, "+Inf": 1})
    report = Report({}, 0.0, score=score, freshness_ms=fresh, naive=NaiveFigures(10, 100.0))
    told = "\n".join(report.lines())
    assert "ratio       0.75 (at least 0.60), median of rounds of 1,000,000 events: 0.70, 0.75, 0.80" in told
    assert "p99 70 (at most 100)" in told
    assert "75.00%" in told
    assert "does 1,500 times that" in told
    assert report.as_json().keys() == {"machine", "other_work_share", "score", "freshness_ms", "naive"}


def test_other_work_is_what_this_process_and_its_children_did_not_do() -> None:
    others = machine.OtherWork()
    matrix = np.random.default_rng(0).random((300, 300))
    began = sum(psutil.Process().cpu_times()[:2])
    while sum(psutil.Process().cpu_times()[:2]) - began < 0.5:
        matrix @ matrix
    assert 0 <= others.share() < 0.9, "half a second of our own work is not other work"
