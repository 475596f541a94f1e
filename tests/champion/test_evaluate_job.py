"""`evaluate --every`: what it shows is what it stored, and it does no work twice."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from click.testing import CliRunner
from clickhouse_connect.driver.client import Client
from harness import Commands, asked, eventually, fresh_settings
from history import store_outcomes, transactions
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from consumer.champion import evaluations
from consumer.champion.evaluate import read_terms
from consumer.champion.job import JOB, EvaluateJob
from consumer.champion.policies import register
from consumer.champion.rows import read_rows
from consumer.champion.scope import Scope, take_snapshot
from consumer.cli.evaluate import command
from consumer.clock import utc_now
from consumer.contracts.horizons import Horizons
from consumer.contracts.outcome import SCHEMA as OUTCOME
from consumer.metrics import Metrics
from consumer.scoring.controller import ShadowModeController
from consumer.services import clickhouse
from consumer.services.rows import OUTCOMES
from consumer.settings import Settings
from consumer.stack.local import LocalStack
from consumer.system.bench.history import store, store_scores

BEGAN = utc_now().date() - timedelta(days=90)
"""So that all are old enough for d28 today."""


@pytest.fixture(scope="module")
def history() -> pa.RecordBatch:
    return transactions(20_000, 42, seed=11, began=BEGAN)


@pytest.fixture(scope="module")
def empty(stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    with fresh_settings(stack, tmp_path_factory.mktemp("job")) as settings:
        yield settings


@pytest.fixture(scope="module")
def client(empty: Settings) -> Iterator[Client]:
    with clickhouse.connect(empty) as client:
        yield client


@pytest.fixture(scope="module")
def filled(empty: Settings, client: Client, history: pa.RecordBatch, controller: ShadowModeController) -> Settings:
    store_scores(client, empty, controller, history)
    store_outcomes(client, history, Horizons.load(empty.horizons_file))
    register(client, empty.policy_file, datetime.fromisoformat(f"{BEGAN}T00:00:00+00:00"))
    return empty


def stored(client: Client) -> int:
    return int(client.query("SELECT count() FROM evaluations").result_rows[0][0])


def shown(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Every series of an evaluation: name and label values to its value."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in metrics.evaluation.collect()
        for sample in family.samples
    }


def test_nothing_old_enough_is_a_state_and_no_error(empty: Settings, client: Client) -> None:
    job = EvaluateJob(empty)
    assert job.ready() == ["nothing was asked yet"]
    assert job.once()
    assert (job.ready(), job.live(), shown(job.metrics), stored(client)) == ([], [], {}, 0)
    assert job.metrics.registry.get_sample_value("bnpl_job_last_success_timestamp_seconds", {"job": JOB})


def test_it_stores_and_shows_and_evaluates_again_only_when_something_is_new(
    filled: Settings, client: Client, history: pa.RecordBatch
) -> None:
    job = EvaluateJob(filled)
    assert job.once()
    assert job.once()
    assert stored(client) == 1
    first = evaluations.newest(client, "v1", "d28", utc_now())
    assert first is not None
    assert_shows(shown(job.metrics), first.document)

    say_defaulted(client, history.filter(pc.equal(history.column("will_default"), False)).slice(0, 10))
    assert job.once()
    assert stored(client) == 2
    second = evaluations.newest(client, "v1", "d28", utc_now())
    assert second is not None
    before, after = (each.document["evaluation"]["rows"]["defaults"] for each in (first, second))
    assert after == before + 10

    anew = EvaluateJob(filled)
    assert anew.once()
    assert stored(client) == 2
    assert_shows(shown(anew.metrics), second.document)
    assert interim(client) == [False, True]


def test_a_transaction_that_could_never_be_approved_stops_no_evaluation(filled: Settings, client: Client) -> None:
    """As a decline by a fixed rule is told: approval_propensity 0; and next to 0, of which 1 / 0 is infinite."""
    names = [row[0] for row in client.query("DESCRIBE shadow_scores").result_rows]
    changed = {
        "artifact_version": "'never'",
        "prediction_id": "concat(prediction_id, 'n')",
        "approval_propensity": "[0, 1, NULL, 0.5, 5e-324][cityHash64(transaction_id) % 5 + 1]",
    }
    columns = ", ".join(changed.get(name, f"`{name}`") for name in names)
    rows = f"SELECT {columns} FROM shadow_scores FINAL LIMIT 1000"
    client.command(f"INSERT INTO shadow_scores (`{'`, `'.join(names)}`) {rows}")
    try:
        snapshot = take_snapshot(client, Scope(utc_now(), "never"), read_terms(filled, "v1").horizon)
        sample = read_rows(client, snapshot).sample
    finally:
        client.command("ALTER TABLE shadow_scores DELETE WHERE artifact_version = 'never' SETTINGS mutations_sync = 1")
    assert len(sample) == 1000
    assert sorted(set(sample.weight.tolist())) == [1, 2, pytest.approx(1e18)]


def interim(client: Client) -> list[bool]:
    return [each for (each,) in client.query("SELECT interim FROM evaluations ORDER BY evaluated_at").result_rows]


def test_of_a_day_long_ago_the_first_stays_and_what_was_asked_for(filled: Settings, client: Client) -> None:
    EvaluateJob(filled).once()
    now = evaluations.newest(client, "v1", "d28", utc_now())
    assert now is not None
    before, long_ago = stored(client), utc_now() - timedelta(days=31)
    for minutes, passing in ((0, False), (5, True), (10, True), (15, False)):
        at = (long_ago + timedelta(minutes=minutes)).isoformat()
        asked = now.document["question"] | {"as_of": at}
        evaluations.store(client, now.document | {"question": asked, "made_at": at}, None, interim=passing)
    client.command("OPTIMIZE TABLE evaluations FINAL")
    assert stored(client) == before + 2
    assert interim(client)[:2] == [False, False]
    assert evaluations.newest(client, "v1", "d28", utc_now()) == now


def test_an_evaluation_of_a_part_of_the_transactions_is_not_taken_for_one_of_all(
    filled: Settings, client: Client
) -> None:
    EvaluateJob(filled).once()
    whole, before = evaluations.newest(client, "v1", "d28", utc_now()), stored(client)
    assert whole is not None
    part = store_part(client, whole, since=f"{BEGAN}T00:00:00+00:00")
    assert part.since is not None
    store_part(client, whole, until=utc_now().isoformat())
    assert evaluations.newest(client, "v1", "d28", utc_now()) == whole
    assert EvaluateJob(filled).once()
    assert stored(client) == before + 2, "and the job goes on from the one of all"


def test_where_only_parts_are_stored_the_newest_of_them_is_found(filled: Settings, client: Client) -> None:
    whole = evaluations.newest(client, "v1", "d28", utc_now())
    assert whole is not None
    early = (whole.listed.as_of - timedelta(days=9)).isoformat()
    parts = [store_part(client, whole, since=f"{BEGAN}T00:00:00+00:00", as_of=early, label="d42") for _ in range(2)]
    found = evaluations.newest(client, "v1", "d42", utc_now())
    assert found is not None
    assert (found.listed, found.listed.is_whole) == (parts[-1], False)


def store_part(client: Client, whole: evaluations.Stored, **question: str) -> evaluations.Listed:
    """The same, as if it had been asked for otherwise."""
    asked = whole.document["question"] | {"as_of": utc_now().isoformat()} | question
    return evaluations.store(client, whole.document | {"question": asked, "made_at": utc_now().isoformat()}, None)


def assert_shows(series: dict[tuple[str, ...], float], told: dict[str, Any]) -> None:
    figures = told["evaluation"]["scorers"]
    assert set(figures) == {"rules", "ridge", "logistic", "elastic", "ensemble"}
    for name, each in figures.items():
        assert series["bnpl_model_auc", name, "d28"] == each["ranking"]["auc"]
        for bound, key in (("estimate", "estimate"), ("low", "interval_low"), ("high", "interval_high")):
            assert series["bnpl_discrimination_ratio", name, "d28", bound] == each["ratio"][key]
    calibration = figures["ridge"]["calibration"]
    assert series["bnpl_model_brier", "ridge", "d28"] == calibration["brier"]
    assert series["bnpl_model_oe_ratio", "ridge", "d28"] == calibration["observed_expected"]["estimate"]
    assert ("bnpl_model_brier", "rules", "d28") not in series
    assert series["bnpl_outcome_coverage_ratio", "d28"] == told["evaluation"]["rows"]["coverage"]
    assert series["bnpl_evaluated_transactions", "d28"] == told["evaluation"]["rows"]["evaluated"]
    as_of = datetime.fromisoformat(told["question"]["as_of"]).timestamp()
    assert series["bnpl_evaluation_as_of_timestamp_seconds", "d28"] == as_of


def say_defaulted(client: Client, transactions: pa.RecordBatch) -> None:
    """A newer version of each outcome says so."""
    told = {
        "label": "d28",
        "defaulted": True,
        "days_to_resolution": 28,
        "observed_at": int((utc_now() - timedelta(days=1)).timestamp() * 1000),
        "source": "test",
        "version": 2,
    }
    rows = [told | {"transaction_id": each} for each in transactions.column("transaction_id").to_pylist()]
    store(client, OUTCOMES, pa.RecordBatch.from_pylist(rows, OUTCOME), first_offset=10**8)


def test_clickhouse_away_is_told_and_waited_for(empty: Settings) -> None:
    job = EvaluateJob(empty.model_copy(update={"clickhouse_url": SecretStr("http://127.0.0.1:1/none")}))
    assert not job.once()
    assert job.ready() == ["ClickHouse does not answer"]
    assert job.live() == []
    assert job.metrics.registry.get_sample_value("bnpl_evaluate_failures_total") == 1


def test_the_job_as_a_process_answers_and_sigterm_ends_it_at_once(filled: Settings, commands: Commands) -> None:
    job = commands.start(filled, "evaluate", "--every", "3600")
    eventually(lambda: asked(job, "readyz")[0] == 200, 60, lambda: job.output)
    families = {each.name: each for each in text_string_to_metric_families(asked(job, "metrics")[1])}
    assert families["bnpl_discrimination_ratio"].samples
    assert asked(job, "livez")[0] == 200
    job.terminate()
    assert job.ended(5) == 0, job.output


def test_it_takes_no_other_options() -> None:
    refused = CliRunner().invoke(command, ["--every", "60", "--label", "d42"])
    assert refused.exit_code == 2
    assert "leave out the other options" in refused.output
