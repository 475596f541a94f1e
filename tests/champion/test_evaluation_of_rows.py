"""From ClickHouse's rows to figures, verdict and dossier: against figures made of the simulation itself."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from clickhouse_connect.driver.client import Client
from harness import Command, Commands, fresh_settings
from history import BEGAN, store_outcomes, transactions
from sklearn.metrics import roc_auc_score

from consumer.champion import dossier, evaluations
from consumer.champion.evaluate import Evaluated, evaluate_scope, read_terms
from consumer.champion.in_force import in_force
from consumer.champion.policies import register
from consumer.champion.promotion import NO_DOSSIER, Grounds, Signature, configured, promoted
from consumer.champion.report.html import html
from consumer.champion.report.markdown import markdown
from consumer.champion.report.wording import headline
from consumer.champion.scope import Scope
from consumer.contracts.horizons import Horizons
from consumer.contracts.transaction import SCHEMA
from consumer.errors import ConfigurationError, Fatal
from consumer.evaluation.plain import plain
from consumer.scoring.controller import ShadowModeController
from consumer.services import clickhouse, control
from consumer.services.rows import OUTCOMES
from consumer.settings import Settings
from consumer.stack.local import LocalStack
from consumer.system.bench.history import store, store_scores

COUNT, DAYS = 60_000, 42
FIRST = datetime.combine(BEGAN, datetime.min.time(), UTC)
MATURE = FIRST + timedelta(days=DAYS + 28 + 7 + 10)
"""When six weeks are old enough for label d28, and their last outcomes have come."""


@dataclass(frozen=True)
class History:
    """Six weeks in the tables, and what they are made of."""

    settings: Settings
    events: pa.RecordBatch
    outcomes: pa.RecordBatch

    def evaluated(self, as_of: datetime = MATURE, label: str | None = None, **scope: datetime) -> Evaluated:
        terms = read_terms(self.settings, "v1", label)
        return evaluate_scope(self.settings, Scope(as_of, "v1", **scope), terms)


@pytest.fixture(scope="module")
def history(
    stack: LocalStack, controller: ShadowModeController, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[History]:
    with fresh_settings(stack, tmp_path_factory.mktemp("history")) as settings:
        events = transactions(COUNT, DAYS)
        with clickhouse.connect(settings) as client:
            store_scores(client, settings, controller, events)
            outcomes = store_outcomes(client, events, Horizons.load(settings.horizons_file))
            register(client, settings.policy_file, FIRST - timedelta(days=30))
        yield History(settings, events, outcomes)


@pytest.fixture
def client(history: History) -> Iterator[Client]:
    with clickhouse.connect(history.settings) as client:
        yield client


def test_every_figure_is_that_of_the_simulation(history: History, controller: ShadowModeController) -> None:
    found = history.evaluated().evaluation
    approved = history.events.filter(history.events.column("will_default").is_valid())
    missed = approved.column("days_to_first_missed_payment").fill_null(10_000).to_numpy()
    defaulted = missed <= 28
    shadow = controller.score_batch(approved.select(SCHEMA.names))
    assert (found.rows.evaluated, found.rows.defaults) == (approved.num_rows, defaulted.sum())
    assert found.rows.transactions == COUNT
    assert found.rows.coverage == 1
    assert found.rows.week == 6
    assert list(found.scorers) == ["rules", "ridge", "logistic", "elastic", "ensemble"]
    weight = 1 / approved.column("approval_propensity").to_numpy()
    for entry, scores in zip(shadow.predictions.models, shadow.predictions.scores, strict=True):
        assert found.scorers[entry.name].ranking.auc == pytest.approx(
            roc_auc_score(defaulted, scores, sample_weight=weight), abs=1e-9
        )
    flags = shadow.decisions.risk_flag.to_numpy(zero_copy_only=False)
    high, low = (flags == "high"), (flags == "low")
    rates = [np.average(defaulted[band], weights=weight[band]) for band in (high, low)]
    assert found.scorers["rules"].ratio.estimate == pytest.approx(rates[0] / rates[1], abs=1e-9)
    assert found.scorers["rules"].ratio.high.rows == high.sum()


def test_a_day_in_the_past_sees_what_was_known_then(history: History) -> None:
    half = FIRST + timedelta(days=21 + 28 + 7)
    found = history.evaluated(half).evaluation
    assert found.rows.week == 3
    young = history.events.filter(
        pc.less(history.events.column("transaction_timestamp"), _ms(FIRST + timedelta(days=21)))
    )
    known = history.outcomes.filter(
        pc.and_(
            pc.equal(history.outcomes.column("label"), "d28"),
            pc.less_equal(history.outcomes.column("observed_at"), _ms(half)),
        )
    )
    assert found.rows.transactions == young.num_rows
    expected = set(young.column("transaction_id").to_pylist()) & set(known.column("transaction_id").to_pylist())
    assert found.rows.observed == len(expected)
    assert {each.verdict for each in found.verdicts} == {"no verdict"}
    assert all("first look is after 4" in each.why for each in found.verdicts)


def test_weeks_of_the_full_term_wait_for_the_longest_plan(history: History) -> None:
    """Else the first weeks would be judged by short plans alone, for those are old enough first."""
    longest = max(history.events.column("installment_count").to_pylist())
    assert longest > 4
    short = history.evaluated(FIRST + timedelta(days=14 * 4 + 7 + 14), label="full_term").evaluation
    assert short.rows.transactions > 0
    assert short.rows.week == 0
    whole = history.evaluated(FIRST + timedelta(days=14 * longest + 7 + 14), label="full_term").evaluation
    assert whole.rows.week == 2


def test_a_correction_counts_from_the_day_it_was_observed(history: History, client: Client) -> None:
    """Also when it was stored long before: in the tables its time is told by its source."""
    before = history.evaluated(label="d42", as_of=MATURE + timedelta(days=30))
    ours = history.outcomes.filter(
        pc.and_(pc.equal(history.outcomes.column("label"), "d42"), history.outcomes.column("defaulted"))
    )
    cured = pa.RecordBatch.from_pylist(
        [
            {
                **row,
                "defaulted": False,
                "days_to_resolution": None,
                "loss_amount": None,
                "version": 2,
                "observed_at": _ms(MATURE + timedelta(days=40)),
            }
            for row in ours.slice(0, 50).to_pylist()
        ],
        schema=ours.schema,
    )
    store(client, OUTCOMES, cured, first_offset=10**7)
    still = history.evaluated(label="d42", as_of=MATURE + timedelta(days=30))
    assert still.evaluation.rows.defaults == before.evaluation.rows.defaults
    assert still.digest == before.digest
    then = history.evaluated(label="d42", as_of=MATURE + timedelta(days=41))
    assert then.evaluation.rows.defaults == before.evaluation.rows.defaults - 50


def test_nobody_is_promoted_by_a_policy_that_may_have_been_made_for_the_data(history: History, tmp_path: Path) -> None:
    assert history.evaluated().unfounded is None
    later = tmp_path / "policy.json"
    told = json.loads(history.settings.policy_file.read_text())
    later.write_text(json.dumps(told | {"equivalence_margin": 1.01}))
    changed = replace(history, settings=history.settings.model_copy(update={"policy_file": later}))
    assert "never registered" in str(changed.evaluated().unfounded)
    with clickhouse.connect(changed.settings) as client:
        register(client, later, FIRST + timedelta(days=1))
        again = register(client, later, FIRST + timedelta(days=9))
    assert again.at == FIRST + timedelta(days=1)
    found = changed.evaluated()
    assert "after the first transactions" in str(found.unfounded)
    assert found.promote is None
    assert "the policy decides by d28" in str(history.evaluated(label="d42").unfounded)


def test_a_dossier_is_verified_also_when_more_came_in_and_a_changed_number_is_found(
    history: History, client: Client, controller: ShadowModeController
) -> None:
    settings = history.settings
    told = json.loads(dossier.to_bytes(dossier.document(history.evaluated())))
    more = transactions(500, 10, seed=77)
    store_scores(client, settings, controller, more, first_offset=10**6)
    found = dossier.verify(settings, told)
    assert found.differences == []
    assert found.numbers > 500
    wrong = copy.deepcopy(told)
    wrong["evaluation"]["scorers"]["ridge"]["ratio"]["estimate"] += 0.001
    (difference,) = dossier.verify(settings, wrong).differences
    assert difference.startswith("evaluation.scorers.ridge.ratio.estimate: the dossier says ")
    with pytest.raises(Fatal, match="damaged"):
        dossier.verify(settings, {name: each for name, each in told.items() if name != "data"})


def test_the_reports_say_what_the_dossier_says(history: History) -> None:
    told = dossier.document(history.evaluated())
    page = html(told)
    for text in (markdown(told), page):
        assert told["recommendation"]["sentences"][0] in text
        assert "customer_age_bracket_encoded" in text
        assert "2026-W23" in text
        assert all(each["verdict"] in text for each in told["verdicts"])
    assert page.count("<svg") == 4
    assert told["protected_features"][0]["coefficients"].keys() == {"ridge", "logistic", "elastic", "ensemble"}
    examples = told["examples"].values()
    assert examples
    assert {each["why"] for each in examples} == {
        "Kafka does not hold the transaction any more, and features are not stored"
    }


def test_the_commands(history: History, commands: Commands, tmp_path: Path) -> None:
    when = ("--as-of", MATURE.isoformat())
    report = tmp_path / "report.html"
    shown = commands.run(history.settings, "evaluate", *when, "--html", str(report))
    assert shown.process.returncode == 0, shown.output
    assert "ridge against the rules: " in shown.output
    assert report.read_text().startswith("<!doctype html>")
    told = json.loads(commands.run(history.settings, "evaluate", *when, "--json").output)
    assert told["format"] == dossier.FORMAT
    assert told["question"]["as_of"] == MATURE.isoformat()
    made = commands.run(history.settings, "dossier", "make", *when, "-o", str(tmp_path / "made"))
    assert made.process.returncode == 0, made.output
    verified = commands.run(history.settings, "dossier", "verify", str(tmp_path / "made.json"))
    assert verified.process.returncode == 0, verified.output
    assert "computed again and are the same" in verified.output


def test_an_evaluation_is_stored_as_it_was_printed_and_found_by_its_day(
    history: History, client: Client, commands: Commands
) -> None:
    week = timedelta(weeks=1)

    def printed(as_of: datetime) -> Command:
        when = ("--as-of", as_of.isoformat(), "--label", "d42")
        ran = commands.run(history.settings, "evaluate", *when, "--store", "--json")
        assert ran.process.returncode == 0, ran.output
        return ran

    def newest(as_of: datetime) -> evaluations.Stored:
        found = evaluations.newest(client, "v1", "d42", as_of)
        assert found is not None
        return found

    early, late = printed(MATURE + 2 * week), printed(MATURE + 3 * week)
    found = newest(MATURE + 2 * week)
    assert found.document == json.loads(early.output)
    assert found.listed.sha256 == hashlib.sha256(early.log.read_bytes()).hexdigest()
    assert found.listed.says.startswith("Nobody may be promoted on this: the policy decides by d28")
    assert found.listed.promote is None
    drawn = history.evaluated(MATURE + 2 * week, "d42").curves
    assert plain(evaluations.curves_of(client, found.listed)) == plain(drawn)
    assert newest(MATURE + 9 * week).document == json.loads(late.output)
    assert newest(MATURE + 2.5 * week) == found
    assert evaluations.newest(client, "v1", "d42", MATURE) is None
    assert evaluations.newest(client, "v9", "d42", MATURE + 9 * week) is None
    again = printed(MATURE + 2 * week)
    assert newest(MATURE + 2 * week).document == json.loads(again.output)
    listed = evaluations.stored(client, "v1", "d42")
    assert [each.as_of for each in listed] == [MATURE + 3 * week, MATURE + 2 * week]
    assert listed[1] == newest(MATURE + 2 * week).listed
    assert evaluations.stored(client, label="d42", most=1) == listed[:1]
    assert evaluations.stored(client, "v9") == []


def test_a_champion_in_force_that_the_policy_does_not_name_is_told(
    history: History, controller: ShadowModeController
) -> None:
    settings = history.settings
    before = dossier.document(history.evaluated())
    assert before["in_force"] == {"champion": "ridge", "mode": "shadow", "revision": 0, "why": None}
    assert "in force" not in " ".join(headline(before))
    override = Grounds(None, override=True, unsupported=NO_DOSSIER)
    signed = Signature("anna", FIRST, "a test")
    control.write(settings, promoted(None, configured(settings), "elastic", "shadow", None, override, signed))
    after = dossier.document(history.evaluated())
    assert headline(after) == [
        *headline(before),
        "Mind that the champion in force is elastic (revision 1), and the policy compares with ridge: nothing here "
        "says whether a model is better than elastic.",
    ]
    assert dossier.verify(settings, before).differences == [], "who rules is no figure"
    away = settings.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:1"})
    unknown = in_force(away, controller.predictor.model_set)
    assert unknown.champion is None
    assert "Kafka does not answer" in str(unknown.why)


def test_what_cannot_be_evaluated_is_named(history: History) -> None:
    with pytest.raises(Fatal, match=r"no scores of artifact version v9.*shadow_scores holds v1"):
        evaluate_scope(history.settings, Scope(MATURE, "v9"), read_terms(history.settings, "v1"))
    with pytest.raises(Fatal, match="no transaction of artifact version v1 is old enough for d28"):
        history.evaluated(FIRST + timedelta(days=10))
    with pytest.raises(ConfigurationError, match="is no dossier"):
        dossier.load(history.settings.policy_file)


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)
