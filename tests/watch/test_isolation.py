"""The proof of isolation holds on the shipped rules and models, and fails where something reaches a decision."""

from __future__ import annotations

import gzip
import itertools
import json
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from harness import Commands, encoded, send, send_events, simulated

from consumer.cli.main import cli
from consumer.contracts.transaction import columns_from_dicts
from consumer.errors import Fatal, KafkaUnavailable
from consumer.scoring.activation import Activation
from consumer.scoring.artifacts import ModelEntry, ModelSet
from consumer.scoring.breaker import Budget
from consumer.scoring.controller import Shadow, ShadowModeController
from consumer.scoring.predictor import BNPLMultiModelPredictor
from consumer.scoring.shadow_event import Source
from consumer.settings import PROJECT, Settings
from consumer.watch.isolation import Events, Proof, Variant, prove, prove_isolation

SHARED = PROJECT.parent / "shared" / "data" / "transactions-2026-summer.jsonl.gz"
BUDGET = Budget(2, 60)
MODELS = ["ridge", "logistic", "elastic", "ensemble"]
FAILING = {
    "raising": ["RuntimeError"],
    "NaN": ["NotFinite"],
    "slow": ["SwitchedOff", "TooSlow"],
}


def events_of(given: list[dict[str, Any]]) -> Events:
    count = len(given)
    return Events(columns_from_dicts(given), Source("t", np.zeros(count, np.int64), np.arange(count)))


def only(model_set: ModelSet, *names: str) -> tuple[ModelEntry, ...]:
    return tuple(entry for entry in model_set.models if entry.name in names)


def assert_holds(proof: Proof) -> None:
    assert proof.isolated
    assert {each.decisions for each in proof.variants} == {proof.variants[0].decisions}
    expected = {f"{model} {fault}": {model: FAILING[fault]} for model in MODELS for fault in FAILING}
    told = {each.name: each.errors for each in proof.variants}
    assert told.pop("healthy") == {}
    together = told.pop("all failing")
    assert told == expected
    for model, fault in zip(MODELS, itertools.cycle(FAILING), strict=False):
        assert together[model]
        assert {*together[model]} <= {*FAILING[fault], *FAILING["slow"]}, "beside a slow one"


def test_it_holds_on_the_newest_events_of_the_topic(settings: Settings, commands: Commands) -> None:
    send_events(settings, simulated(300))
    bad = [{"value": b"rubbish"}, {"value": encoded(simulated(1)[0], amount=-1.0)}]
    send(settings, settings.topic_transactions, bad)
    patient = settings.model_copy(update={"model_budget_ms": 2000})
    done = commands.run(patient, "prove-isolation", "--last", "3000", "--json", seconds=180)
    assert done.process.returncode == 0, done.output
    told = json.loads(done.output)
    assert told.pop("isolated") is True
    variants = [Variant(**each) for each in told.pop("variants")]
    activation = Activation(**told.pop("activation"))
    assert activation == Activation("ridge")
    assert_holds(Proof(variants=variants, activation=activation, **told))
    assert told == {"events": 300, "refused": 2}


@pytest.mark.skipif(not SHARED.exists(), reason=f"{SHARED.name} is not there")
def test_it_holds_on_the_shared_events(controller: ShadowModeController) -> None:
    with gzip.open(SHARED) as lines:
        events = events_of([json.loads(line) for line in itertools.islice(lines, 5000)])
    make = partial(ShadowModeController, controller.rules)
    assert_holds(prove(events, controller.predictor.model_set, make, BUDGET))


class Leaky(ShadowModeController):
    """Declines whom the champion has no score for: shadow mode as it must not be."""

    def score_batch(self, transactions: pa.RecordBatch, *rest: Any, **named: Any) -> Shadow:
        shadow = super().score_batch(transactions, *rest, **named)
        said = shadow.decisions
        missing = pa.array(np.isnan(shadow.predictions.champion_scores))
        decision = pa.compute.if_else(missing, "decline", said.decision)
        return replace(shadow, decisions=replace(said, decision=decision))


def test_a_decision_that_hangs_on_a_model_is_found(controller: ShadowModeController) -> None:
    shipped = controller.predictor.model_set
    model_set = replace(shipped, models=only(shipped, "ridge", "logistic"))
    proof = prove(events_of(simulated(50)), model_set, partial(Leaky, controller.rules), BUDGET)
    assert not proof.isolated
    found = {each.name for each in proof.variants if "the decisions are other ones" in each.differences}
    assert found == {"ridge raising", "ridge NaN", "ridge slow", "all failing"}


class Partial(ShadowModeController):
    """Lets a model that is not champion have a say, or the champion one that failed."""

    def score_batch(self, transactions: pa.RecordBatch, *rest: Any, **named: Any) -> Shadow:
        shadow = super().score_batch(transactions, *rest, **named)
        missing = pa.array(np.isnan(shadow.predictions.scores).any(axis=0))
        decision = pa.compute.if_else(missing, "decline", shadow.standing.decision)
        return replace(shadow, standing=replace(shadow.standing, decision=decision))


@pytest.mark.parametrize("activation", [Activation("logistic", "champion"), Activation("logistic", "canary", 60.0)])
def test_where_the_champion_decides_only_it_reaches_what_stands_and_only_while_it_does_not_fail(
    controller: ShadowModeController, activation: Activation
) -> None:
    shipped = controller.predictor.model_set
    model_set = replace(shipped, models=only(shipped, "ridge", "logistic"))
    events = events_of(simulated(80))

    def proved(kind: type[ShadowModeController]) -> Proof:
        return prove(events, model_set, partial(kind, controller.rules), BUDGET, activation=activation)

    proof = proved(ShadowModeController)
    assert proof.isolated, [each.differences for each in proof.variants]
    assert proof.activation == activation
    assert not proved(Leaky).isolated
    differences = {each.name: each.differences for each in proved(Partial).variants if each.differences}
    assert set(differences) == {f"{model} {fault}" for model in ("ridge", "logistic") for fault in FAILING} | {
        "all failing"
    }
    assert differences["ridge NaN"] == ["a model that is not champion reaches what stands"]
    assert all("logistic fails, and " in differences[f"logistic {fault}"][0] for fault in FAILING)


class Nosy:
    """Scores by how often it was asked: so much for being on its own."""

    classes_ = np.array([0, 1])

    def __init__(self) -> None:
        self.asked = 0

    def predict_proba(self, matrix: Any) -> Any:
        self.asked += 1
        return np.full((len(matrix), 2), 1 / self.asked)


def test_a_model_that_scores_otherwise_because_of_another_is_found(controller: ShadowModeController) -> None:
    shipped = controller.predictor.model_set
    nosy = replace(shipped.models[0], name="nosy", role="challenger", estimator=Nosy())
    model_set = replace(shipped, models=(*only(shipped, "ridge"), nosy))
    proof = prove(events_of(simulated(50)), model_set, partial(ShadowModeController, controller.rules), BUDGET)
    differences = {each.name: each.differences for each in proof.variants if each.differences}
    assert {name: differences[name] for name in ("ridge raising", "ridge NaN", "ridge slow")} == {
        f"ridge {fault}": ["nosy scores otherwise (no error)"] for fault in FAILING
    }


def test_a_fault_without_effect_proves_nothing(controller: ShadowModeController) -> None:
    model_set = replace(controller.predictor.model_set, models=only(controller.predictor.model_set, "ridge"))
    steady = BNPLMultiModelPredictor(model_set)
    proof = prove(events_of(simulated(50)), model_set, lambda _: ShadowModeController(controller.rules, steady), BUDGET)
    assert not proof.isolated
    (told,) = proof.variants[1].differences
    assert told == "ridge did not fail as it was made to (no error): this proves nothing"


def test_what_differs_is_shown_and_is_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    healthy = Variant("healthy", {}, "a" * 64, {}, [])
    leak = Variant("ridge NaN", {"ridge": "NaN"}, "b" * 64, {"ridge": ["NotFinite"]}, ["the decisions are other ones"])
    for variants, code, verdict in (
        ([healthy, leak], 1, "NOT isolated: 1,200 events in 2 variants, 3 more cannot be used and are left out"),
        ([healthy], 0, "isolated: 1,200 events in 1 variants, 3 more cannot be used and are left out; all decided"),
    ):
        proof = Proof(1200, 3, variants, Activation("ridge"))
        monkeypatch.setattr("consumer.cli.prove_isolation.prove_isolation", lambda *_, proof=proof: proof)
        done = CliRunner().invoke(cli, ["prove-isolation"])
        assert done.exit_code == code
        assert done.stdout.splitlines()[-1].startswith(verdict)
        assert all(f"{each.name}  " in done.stdout and each.decisions[:16] in done.stdout for each in variants)


def test_where_the_champion_decides_it_is_said_what_is_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    proof = Proof(1200, 0, [Variant("healthy", {}, "a" * 64, {}, [])], Activation("ridge", "canary", 5.0, 7))
    monkeypatch.setattr("consumer.cli.prove_isolation.prove_isolation", lambda *_: proof)
    done = CliRunner().invoke(cli, ["prove-isolation"])
    assert done.exit_code == 0
    *_, warned, told = done.stdout.splitlines()
    assert warned == "ridge DECIDES (mode canary, revision 7): what stands depends on it"
    assert told.startswith("isolated but for that: 1,200 events in 1 variants; the rules decided the same")


def test_without_events_to_prove_it_on_it_says_so(settings: Settings) -> None:
    topic = settings.topic_transactions
    with pytest.raises(Fatal, match=f"{topic} is empty, and a proof needs events: send some by `bnpl-shadow produce`"):
        prove_isolation(settings, 100)
    send(settings, topic, [{"value": b"rubbish"}] * 3)
    with pytest.raises(Fatal, match=rf"none of the newest 3 records of {topic} can be used \(begins neither with"):
        prove_isolation(settings, 100)
    with pytest.raises(KafkaUnavailable):
        prove_isolation(settings.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:1"}), 100)
