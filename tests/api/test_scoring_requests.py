"""Scores, decisions and outcomes over HTTP: what the code in process says, and what comes out of the topic."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from harness import eventually, outcome, read_topic, simulated
from samples import transaction
from served import Api, let_decide

from consumer.clock import utc_now
from consumer.contracts.control import Mode
from consumer.contracts.transaction import transaction_batch
from consumer.scoring.activation import in_canary
from consumer.scoring.controller import ShadowModeController
from consumer.services.feed import feeds

ADVISORY = {"mode", "decision", "decided_by", "advisory"}


def test_a_score_is_what_the_code_in_process_says(api: Api, controller: ShadowModeController) -> None:
    event = transaction(device_type="hologram")
    told = api.post("/v1/score", event, "score").json()
    said = controller.score_single(event)
    assert {name: value for name, value in told.items() if name not in ADVISORY} == {
        name: value for name, value in said.items() if name not in ADVISORY
    }
    assert told["advisory"] is True
    assert "decision" not in told


def test_a_thousand_at_once_are_a_thousand_one_by_one(api: Api) -> None:
    events = simulated(1000, seed=3)
    for event in events:
        event.pop("will_default", None)
    many = api.post("/v1/score", events, "score").json()
    assert [each["transaction_id"] for each in many] == [each["transaction_id"] for each in events]
    with api.client("score") as client:
        for event, told in list(zip(events, many, strict=True))[::100]:
            alone = client.post("/v1/score", json=event).json()
            for name, says in alone.pop("models").items():
                assert says["score"] == pytest.approx(told["models"][name]["score"], abs=1e-12)
            assert alone == {name: pytest.approx(told[name], abs=1e-12) for name in alone}


def promote(api: Api, controller: ShadowModeController, mode: Mode, percent: float | None = None) -> None:
    written = let_decide(api.settings, controller, mode, percent)
    eventually(lambda: api.parts.control.newest().revision == written.revision, 20, "the promotion is followed")


def test_a_decision_is_the_rules_until_a_promotion_and_after_a_kill(api: Api, controller: ShadowModeController) -> None:
    """Every mode, by the code that the score service decides by; the canary by customer; hard rules stand."""
    model_set = controller.predictor.model_set
    threshold = next(each.flag_threshold for each in model_set.models if each.name == "elastic")
    assert threshold is not None
    events = simulated(400, seed=11)
    scores = [controller.score_single(each)["models"]["elastic"]["score"] for each in events]
    risky = events[scores.index(max(scores))]
    before = api.post("/v1/decision", risky, "score").json()
    assert (before["mode"], before["decided_by"], before["control_revision"]) == ("shadow", "rules", 0)
    assert before["decision"] == before["business_decision"]
    began = utc_now()

    promote(api, controller, "champion")
    for event in (risky, events[scores.index(min(scores))], *events[:20]):
        told = api.post("/v1/decision", event, "score").json()
        said = controller.score_single(event, api.parts.control.newest())
        assert {name: told[name] for name in said} == said
        assert told["decided_by"] == ("champion" if told["business_decision"] == "approve" else "rules")
        flagged = told["champion_score"] >= threshold
        assert told["decision"] == ("decline" if flagged or told["business_decision"] == "decline" else "approve")
    hard = transaction(customer_verification_level="unverified", risk_score=0.99, risk_level="very_high", amount=5000)
    refused = api.post("/v1/decision", hard, "score").json()
    if refused["business_decision"] == "decline":
        assert (refused["decision"], refused["decided_by"]) == ("decline", "rules")

    promote(api, controller, "canary", 30.0)
    inside = in_canary(transaction_batch(events[:40]).column("customer_id"), 30.0)
    assert any(inside)
    assert not all(inside)
    for event, asked in zip(events[:40], inside, strict=True):
        told = api.post("/v1/decision", event, "score").json()
        expected = "champion" if asked and told["business_decision"] == "approve" else "rules"
        assert told["decided_by"] == expected

    assert api.get("/v1/models").json()["mode"] == "canary"
    shown = api.get("/metrics").text
    assert 'bnpl_control_info{champion="elastic",mode="canary"} 1.0' in shown
    assert shown.count("bnpl_control_info{") == 1
    assert f"bnpl_control_revision {api.parts.control.newest().revision}.0" in shown
    assert api.get("/v1/models", params={"as_of": began.isoformat()}).json()["mode"] == "shadow"
    promote(api, controller, "shadow")
    assert api.post("/v1/decision", risky, "score").json()["decided_by"] == "rules"


def test_a_score_is_never_decided_by_a_promotion(api: Api, controller: ShadowModeController) -> None:
    event = transaction()
    before = api.post("/v1/score", event, "score").json()
    promote(api, controller, "champion")
    try:
        assert api.post("/v1/score", event, "score").json() == before
    finally:
        promote(api, controller, "shadow")


def as_json(told: dict[str, Any], **changes: Any) -> dict[str, Any]:
    found = told | changes
    return {name: each.isoformat() if isinstance(each, datetime) else each for name, each in found.items()}


def test_outcomes_come_out_of_the_topic_and_bad_ones_are_named(api: Api) -> None:
    good = [as_json(outcome(f"api-{number}", loss_amount=float(number))) for number in range(5)]
    late = (utc_now() + timedelta(days=3)).isoformat()
    bad = [
        as_json(outcome("api-bad"), label="no such label"),
        as_json(outcome("api-bad"), observed_at=late),
        {"label": "d28"},
        as_json(outcome("api-bad"), will_default=True),
        "no outcome",
    ]
    mixed = [good[0], bad[0], good[1], bad[1], bad[2], good[2], bad[3], good[3], bad[4], good[4]]
    answer = api.post("/v1/outcomes", mixed, "outcomes")
    assert answer.status_code == 202
    told = answer.json()
    assert told["accepted"] == 5
    assert [each["index"] for each in told["refused"]] == [1, 3, 4, 6, 8]
    first = {each["index"]: each["errors"][0] for each in told["refused"]}
    assert first[1]["pointer"] == "#/1/label"
    assert first[3] == {"pointer": "#/3/observed_at", "detail": "observed_at lies in the future"}
    assert first[6]["pointer"] == "#/6/will_default"
    assert first[8]["pointer"] == "#/8"
    values = {each.key(): each.value() for each in read_topic(api.settings, api.settings.topic_outcomes)}
    ours = [values[f"api-{number}".encode()] for number in range(5)]
    taken = feeds(api.settings)[api.settings.topic_outcomes].read(ours)
    assert taken.rejected == []
    assert taken.batch.column("loss_amount").to_pylist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert b"api-bad" not in values


@pytest.mark.parametrize("many", [True, False])
def test_outcomes_of_which_none_is_good_are_refused(api: Api, many: bool) -> None:
    wrong = as_json(outcome("t"), days_to_resolution=-1)
    answer = api.post("/v1/outcomes", [wrong] if many else wrong, "outcomes")
    assert answer.status_code == 422
    (at,) = answer.json()["errors"]
    assert at["pointer"] == ("#/0/days_to_resolution" if many else "#/days_to_resolution")
