"""Models that fail in a running score service: the decisions stay the same bytes, and the event says what happened."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from harness import (
    Event,
    decoded,
    eventually,
    read_topic,
    running,
    send_events,
    shadow_events,
    simulated,
    wait_scored,
)
from structlog.testing import capture_logs

from consumer.contracts.transaction import columns_from_dicts
from consumer.scoring.breaker import Budget
from consumer.scoring.controller import ShadowModeController
from consumer.scoring.predictor import BNPLMultiModelPredictor
from consumer.services import topics
from consumer.services.score import ScoreService
from consumer.settings import Settings

OF_MODELS = ("models", "champion_score", "consensus", "scored_at")
OF_ITS_OWN = ("score_group", "topic_shadow_scores", "instance")
BUDGET_SECONDS = 3.0


@dataclass
class Unruly:
    """A fitted classifier that scores 0.25 until it is told otherwise."""

    how: str = ""
    go: threading.Event = field(default_factory=threading.Event)
    classes_: Any = field(default_factory=lambda: np.array([0, 1]))

    def predict_proba(self, matrix: Any) -> Any:
        match self.how:
            case "raises":
                raise RuntimeError
            case "gives NaN":
                return np.full((len(matrix), 2), np.nan)
            case "is slow":
                self.go.wait(1.5 * BUDGET_SECONDS)
            case "hangs":
                self.go.wait(300)
        return np.full((len(matrix), 2), [0.75, 0.25])


REASONS = {
    "": set(),
    "raises": {"RuntimeError"},
    "gives NaN": {"NotFinite"},
    "is slow": {"TooSlow", "SwitchedOff"},
    "hangs": {"TooSlow", "SwitchedOff"},
}


@contextmanager
def with_fifth_model(shipped: ShadowModeController, unruly: Unruly, others: str = "") -> Iterator[ShadowModeController]:
    """The shipped rules and models and an unruly one, which behaves while it is loaded; with `others`, the shipped
    models all do that.
    """
    model_set = shipped.predictor.model_set
    how, unruly.how = unruly.how, ""
    rest = [Unruly() for _ in model_set.models]
    entries = tuple(
        replace(entry, estimator=each if others else entry.estimator)
        for entry, each in zip(model_set.models, rest, strict=True)
    )
    fifth = replace(model_set.models[0], name="unruly", role="challenger", estimator=unruly, score_kind="probability")
    five = replace(model_set, models=(*entries, fifth))
    controller = ShadowModeController(shipped.rules, BNPLMultiModelPredictor(five, Budget(BUDGET_SECONDS, 1)))
    unruly.how = how
    for each in rest:
        each.how = others
    try:
        yield controller
    finally:
        for each in (*rest, unruly):
            each.go.set()


def decisions(events: list[Event]) -> bytes:
    """All that the events say but what models have a say in, in the order of the topic that was scored."""
    ordered = sorted(events, key=lambda each: (each["source_partition"], each["source_offset"]))
    return b"\n".join(
        json.dumps({name: each[name] for name in each if name not in OF_MODELS}, default=str, sort_keys=True).encode()
        for each in ordered
    )


def said(events: list[Event], model: str) -> tuple[set[float | None], set[str]]:
    entries = [entry for each in events for entry in each["models"] if entry["name"] == model]
    return {entry["score"] for entry in entries}, {entry["error"] for entry in entries} - {None}


def test_the_same_stream_is_decided_the_same_whatever_the_models_do(
    settings: Settings, controller: ShadowModeController
) -> None:
    sent = simulated(400)
    send_events(settings, sent)
    streams, shipped = {}, {}
    for number, (how, others) in enumerate([*((each, "") for each in REASONS), ("gives NaN", "raises")]):
        own = {name: f"{getattr(settings, name)}-{number}" for name in OF_ITS_OWN}
        variant = settings.model_copy(update=own)
        topics.apply(variant)
        with with_fifth_model(controller, Unruly(how), others) as five, running(ScoreService(variant, five)):
            wait_scored(variant, 60)
        found = [decoded(each.value()) for each in read_topic(variant, variant.topic_shadow_scores)]
        assert len(found) == len(sent)
        streams[how, others] = decisions(found)
        scores, errors = said(found, "unruly")
        assert scores == ({None} if how else {0.25})
        assert errors <= REASONS[how]
        assert bool(errors) == bool(how)
        if others:
            assert {each["consensus"] for each in found} == {each["champion_score"] for each in found} == {None}
        else:
            shipped[how] = sorted(
                (each["transaction_id"], *(entry["score"] for entry in each["models"][:4])) for each in found
            )
    assert set(streams.values()) == {streams["", ""]}
    wanted = dict(zip([each["transaction_id"] for each in sent], rules_say(controller, sent), strict=True))
    assert {each["transaction_id"]: each["business_decision"] for each in found} == wanted
    for scores_of_the_shipped in shipped.values():
        ids = [each[0] for each in scores_of_the_shipped]
        assert ids == [each[0] for each in shipped[""]]
        np.testing.assert_allclose(
            np.array([each[1:] for each in scores_of_the_shipped], float),
            np.array([each[1:] for each in shipped[""]], float),
            rtol=0,
            atol=1e-15,  # batches are cut elsewhere
        )


def rules_say(controller: ShadowModeController, events: list[Event]) -> list[str]:
    decided: list[str] = controller.rules.decide(columns_from_dicts(events)).decision.to_pylist()
    return decided


def test_a_model_that_hangs_is_switched_off_within_one_budget_and_comes_back(
    settings: Settings, controller: ShadowModeController
) -> None:
    unruly, events = Unruly(), iter(simulated(2000))
    own = settings.model_copy(update={"model_budget_ms": int(1000 * BUDGET_SECONDS), "model_off_seconds": 1})
    with capture_logs() as logs, with_fifth_model(controller, unruly) as five:
        service = ScoreService(own, five)
        switched_off = service.metrics.registry.get_sample_value

        def burst() -> tuple[set[float | None], set[str]]:
            """Five more transactions; what the fifth model said of them."""
            ids = {(each := next(events))["transaction_id"]: each for _ in range(5)}
            send_events(settings, ids.values())
            wait_scored(settings, 60)
            return said([each for each in shadow_events(settings) if each["transaction_id"] in ids], "unruly")

        def off() -> dict[str, float | None]:
            names = [entry.name for entry in five.predictor.model_set.models]
            return {name: switched_off("bnpl_model_switched_off", {"model": name}) for name in names}

        with running(service):
            assert burst() == ({0.25}, set())
            assert set(off().values()) == {0.0}
            unruly.how = "hangs"
            scores, errors = burst()
            assert scores == {None}
            assert "TooSlow" in errors
            assert eventually(lambda: off()["unruly"] == 1.0, 10, off)
            assert burst() == ({None}, {"SwitchedOff"})
            unruly.how = ""
            unruly.go.set()
            eventually(lambda: burst() == ({0.25}, set()), 60, "it comes back")
            assert eventually(lambda: off()["unruly"] == 0.0, 10, off)
        assert sum(off().values()) == 0.0  # type: ignore[arg-type]
        found = shadow_events(settings)
        late = service.metrics.registry.get_sample_value
        for error in ("TooSlow", "SwitchedOff"):
            counted = late("bnpl_model_errors_total", {"model": "unruly", "error": error})
            seen = sum(each["models"][4]["error"] == error for each in found)
            assert counted == seen > 0
    told = [each["event"] for each in logs if each["event"].startswith("model ")]
    assert told == ["model switched off", "model back"]
    assert all(entry["error"] is None for each in found for entry in each["models"][:4])
