"""What is hidden in a season is found: judged in process, and once through the real Kafka and ClickHouse."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from harness import Commands, eventually, fresh_settings, running
from season_sample import PlayedInProcess
from test_whole_system import assert_nothing_is_left, start

from consumer.champion import evaluations
from consumer.cli.season import command
from consumer.cli.season_report import document, ending_text, week_text
from consumer.contracts.horizons import Horizons
from consumer.errors import StackError
from consumer.evaluation.drift.judge import Seen, judge_features
from consumer.evaluation.policy import Targets, load_policy
from consumer.evaluation.sample import RULES
from consumer.evaluation.verdict import BETTER, EQUIVALENT
from consumer.research.dataset import file_sha256
from consumer.research.power import Share, power
from consumer.research.season import (
    DRIFT_FROM_WEEK,
    DRIFTING,
    TAUGHT,
    TRAFFIC_WEEKS,
    Plan,
    Scenario,
    missed,
    of_week,
    teach,
    traffic,
)
from consumer.research.simulate import PLANTED_PROVIDER
from consumer.scoring.controller import ShadowModeController
from consumer.scoring.load import load_controller
from consumer.scoring.rules import RuleSet
from consumer.services import clickhouse
from consumer.services.drift.export import Export, load_export
from consumer.services.drift.service import DriftService
from consumer.services.score import ScoreService
from consumer.services.sink import SinkService
from consumer.settings import Settings
from consumer.stack.local import LocalStack
from consumer.system.run import System
from consumer.system.season import kept
from consumer.system.season.play import Season
from consumer.system.supervisor import Supervisor

SHIPPED = Settings()
POLICY, _ = load_policy(SHIPPED.policy_file)
HORIZONS = Horizons.load(SHIPPED.horizons_file)
TARGETS = Targets(minimum=1.0, success=2.8, acceptable=(1.5, 2.8))


@pytest.fixture(scope="module")
def taught_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """They lead to models of which one was taught what the season hides, as `bnpl-shadow season` makes them."""
    artifacts = tmp_path_factory.mktemp("artifacts")
    teach(Plan(), RuleSet.load(SHIPPED.rules_file), "season").write(artifacts / "season")
    return Settings(artifacts_dir=artifacts, artifact_version="season")


@pytest.fixture(scope="module")
def taught(taught_settings: Settings) -> ShadowModeController:
    return load_controller(taught_settings)


def test_one_model_knows_what_the_season_hides_and_the_others_do_not(taught: ShadowModeController) -> None:
    checkouts = traffic(Plan(events_a_week=500))
    predictions = taught.score_batch(checkouts).predictions
    through = np.array(checkouts.column("payment_provider").to_pylist()) == PLANTED_PROVIDER
    rise = {
        entry.name: scores[through].mean() / scores[~through].mean()
        for entry, scores in zip(predictions.models, predictions.scores, strict=True)
    }
    assert rise.pop(TAUGHT) > 1.8
    assert len(rise) == 3
    assert all(0.7 < each < 1.3 for each in rise.values()), rise


def test_a_planted_better_model_is_found_better_than_rules_and_champion(taught: ShadowModeController) -> None:
    plan = Plan("better", events_a_week=8_000)
    found = PlayedInProcess(plan, taught, HORIZONS, POLICY.label_horizon).evaluate(POLICY, TARGETS)
    said = {each.against: each.verdict for each in found.verdicts if each.model == TAUGHT}
    assert said == {RULES: BETTER, POLICY.champion: BETTER}
    assert found.recommendation.promote == TAUGHT
    assert missed("better", POLICY.champion, found.verdicts, found.recommendation.promote, []) == []


def test_four_clones_end_as_equivalent_and_nobody_is_promoted(controller: ShadowModeController) -> None:
    plan = Plan("clones", events_a_week=30_000)
    found = PlayedInProcess(plan, controller, HORIZONS, POLICY.label_horizon).evaluate(POLICY, TARGETS)
    said = {each.model: each.verdict for each in found.verdicts if each.against == POLICY.champion}
    assert said == dict.fromkeys(("logistic", "elastic", "ensemble"), EQUIVALENT)
    assert found.recommendation.promote is None
    assert missed("clones", POLICY.champion, found.verdicts, found.recommendation.promote, []) == []


def test_what_is_not_there_is_not_found(controller: ShadowModeController) -> None:
    """The season says so itself: with models that were not taught, nobody is found."""
    plan = Plan("better", events_a_week=8_000)
    found = PlayedInProcess(plan, controller, HORIZONS, POLICY.label_horizon).evaluate(POLICY, TARGETS)
    assert found.recommendation.promote is None
    assert missed("better", POLICY.champion, found.verdicts, None, []) != []


def moved(export: Export, checkouts: pa.RecordBatch, plan: Plan, week: int) -> set[str]:
    """Features that the measure of `bnpl-shadow drift` names in a week's checkouts, and in those of a day earlier."""

    def seen(plan: Plan) -> dict[str, Seen]:
        part = of_week(checkouts, "transaction_timestamp", plan, week)
        matrix = export.model_set.engineer.engineer(part).matrix
        (tally,) = export.counter.count(part, matrix, np.zeros(part.num_rows, np.int64), 1)
        return {
            feature.name: Seen(tally.cells[place], tally.sums[row], tally.squares[row])
            for row, (feature, place) in enumerate(export.counter.cells_of())
        }

    a_day_earlier = replace(plan, start=plan.start - timedelta(days=1))
    judged = judge_features(export.reference, seen(plan), seen(a_day_earlier), export.weights)
    return {each.name for each in judged if each.state}


@pytest.mark.parametrize(("scenario", "named"), [("drift", {DRIFTING}), ("clones", set())])
def test_a_planted_drift_is_named_from_its_week_on_and_nothing_else(scenario: Scenario, named: set[str]) -> None:
    plan = Plan(scenario, events_a_week=6_000)
    export, checkouts = load_export(SHIPPED), traffic(plan)
    found = {week: moved(export, checkouts, plan, week) for week in range(1, TRAFFIC_WEEKS + 1)}
    assert found == {week: named if week >= DRIFT_FROM_WEEK else set() for week in found}


def test_power_counts_seasons_with_exact_binomial_intervals() -> None:
    found = power(POLICY, TARGETS, 40)
    assert found.false_promotions.estimate <= 0.05
    assert found.found.estimate > 0.8
    assert found.wrong_one.count == 0
    assert found.found.low < found.found.estimate < found.found.high
    # Clopper and Pearson's interval of 1 in 10, as their tables have it
    share = Share.of(1, 10)
    assert (share.low, share.high) == pytest.approx((0.0025, 0.4450), abs=5e-5)


def test_power_is_shown_for_people_and_for_programs() -> None:
    told = CliRunner().invoke(command, ["--power", "--seeds", "3", "--json"])
    assert told.exit_code == 0, told.output
    rates = json.loads(told.stdout)
    assert rates["false_promotions"]["seasons"] == 3
    assert rates["policy_sha256"] == load_policy(SHIPPED.policy_file)[1]
    shown = CliRunner().invoke(command, ["--power", "--seeds", "3"])
    assert f"{rates['found']['count']} of 3 seasons" in shown.stdout


def test_a_season_that_is_not_over_is_refused_before_anything_starts(tmp_path: Path) -> None:
    ran = CliRunner().invoke(command, ["--start", "2999-01-01", "--state-dir", str(tmp_path)])
    assert "must be over today" in str(ran.exception)
    assert not (tmp_path / "season").exists()


def test_a_second_season_at_once_is_refused_and_leaves_the_first_ones_folder_alone(tmp_path: Path) -> None:
    training = kept.folder_of(tmp_path) / "artifacts"
    with kept.alone(tmp_path):
        training.mkdir(parents=True)
        ran = CliRunner().invoke(command, ["--state-dir", str(tmp_path)])
        assert isinstance(ran.exception, StackError)
        assert f"another season is being played in {tmp_path}" in str(ran.exception)
        assert training.is_dir()
    with kept.alone(tmp_path):
        pass


def test_a_last_season_that_cannot_be_deleted_is_not_played_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.folder_of(tmp_path).mkdir()

    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("consumer.system.season.kept.shutil.rmtree", refuse)
    ran = CliRunner().invoke(command, ["--state-dir", str(tmp_path)])
    assert isinstance(ran.exception, StackError)
    assert "cannot be deleted (Permission denied)" in str(ran.exception)


def test_ctrl_c_leaves_nothing_of_a_season_behind(commands: Commands, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    season = start(commands, folder, "season", "--scenario", "clones")
    eventually(lambda: "starting kafka" in season.output, 60, lambda: season.output)
    season.process.send_signal(signal.SIGINT)
    assert season.ended(45) == 130, season.output
    assert_nothing_is_left(folder)


class Threads(System):
    """A system whose services run in this process: they tell themselves when they end."""

    def check(self) -> None:
        pass


def test_the_season_promotes_the_better_model_and_proves_all_of_it(
    stack: LocalStack, taught_settings: Settings, taught: ShadowModeController, tmp_path: Path
) -> None:
    plan, shown = Plan(events_a_week=6_000), []
    models = {name: getattr(taught_settings, name) for name in ("artifacts_dir", "artifact_version")}
    tmp_path.joinpath("state").mkdir()
    with (
        fresh_settings(stack, tmp_path / "state", pseudonym_key="season", **models) as settings,
        running(ScoreService(settings, taught)),
        running(SinkService(settings)),
        running(DriftService(settings, load_export(settings), 0.2)),
    ):
        ending = Season(Threads(settings, stack, Supervisor([])), plan).play(shown.append)
        with clickhouse.connect(settings) as client:
            stored = evaluations.stored(client)
            drift = client.query("SELECT DISTINCT as_of FROM drift_results ORDER BY as_of").result_rows
    assert ending.faults == []
    told = json.loads(json.dumps(document(plan, ending, 40.0)))
    assert told["ended_as_it_should"] is True
    assert_weeks_follow_the_clock(told["weeks"])
    assert told["weeks"][-1]["verdicts"][f"{TAUGHT} against {RULES}"] == BETTER
    assert told["promotion"]["champion"] == TAUGHT == told["recommendation"]["promote"]
    assert told["promotion"]["dossier_sha256"] == told["dossier"]["sha256"] == file_sha256(ending.dossier)
    assert told["promotion"]["override"] is False
    assert told["champion_counted"][TAUGHT] >= 500
    assert told["dossier"]["numbers"] > 1_000
    assert told["dossier"]["differences"] == []
    assert told["reconciliation"]["holds"] is True
    assert [each.as_of for each in stored] == [plan.week_end(week) for week in range(11, 5, -1)]
    assert stored[0].sha256 == told["dossier"]["sha256"]
    assert (stored[0].promote, stored[-1].promote) == (TAUGHT, None)
    assert [day for (day,) in drift] == [plan.week_end(week).date() for week in range(1, TRAFFIC_WEEKS + 1)]
    assert "<svg" in ending.report.read_text()
    assert "week  6  to 2026-07-13  checkouts  36,000  stored  36,000" in week_text(shown[5])
    assert f"promoted: {TAUGHT}, mode shadow, revision 1, by season" in ending_text(plan, ending, 40.0)


def assert_weeks_follow_the_clock(weeks: list[dict[str, Any]]) -> None:
    """Checkouts come in six weeks, outcomes from the third on, and a week is evaluated five weeks after it ended."""
    assert [each["week"] for each in weeks] == list(range(1, 12))
    assert len({each["checkouts"] for each in weeks}) == 6
    assert [each["week"] for each in weeks if not each["outcomes"]] == [1, 2]
    assert [each["rows"] and each["rows"]["week"] for each in weeks] == [None] * 5 + [1, 2, 3, 4, 5, 6]
    assert all(each["stored"]["predictions"] == each["checkouts"] for each in weeks)
    assert all(each["stored"]["outcomes"] == each["outcomes"] for each in weeks)
    assert weeks[-1]["rows"]["transactions"] == weeks[-1]["checkouts"]
    assert weeks[-1]["rows"]["coverage"] > 0.98
