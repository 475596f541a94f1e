"""Who decides: in shadow no byte of what stands depends on a model; else a champion is only ever stricter than rules.

What stands is worked out here row by row, and compared with what the columns say.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from math import inf, isfinite, nan
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from fitted import RULES, Matrix, fit, model_set, transactions
from hypothesis import given
from hypothesis import strategies as st
from samples import examples
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression

from consumer.contracts.control import Control, Mode
from consumer.contracts.events import EventWriter
from consumer.contracts.schemas import latest
from consumer.scoring.activation import Activation, canary_point, in_canary, ruling
from consumer.scoring.breaker import Budget
from consumer.scoring.controller import ShadowModeController
from consumer.scoring.predictor import BNPLMultiModelPredictor
from consumer.scoring.shadow_event import Pseudonyms, ShadowEvents, Source

COUNT = 80
LINEAR = fit(LogisticRegression())
NOW = datetime(2026, 6, 15, tzinfo=UTC)
OF_MODELS = ("models", "champion_score", "consensus")


class Scripted(ClassifierMixin, BaseEstimator):
    """Behaves until it is loaded; then does what it was told to."""

    classes_ = np.array([0, 1])

    def __init__(self, act: Callable[[int], Matrix]) -> None:
        self.act = act

    def predict_proba(self, X: Matrix) -> Any:
        scores = np.full(len(X), 0.1) if len(X) == 25 else np.resize(np.asarray(self.act(len(X))), len(X))
        return np.column_stack((1 - scores, scores))


def raising(count: int) -> Matrix:
    raise RuntimeError


def exiting(count: int) -> Matrix:
    raise SystemExit(1)


BEHAVIOURS: dict[str, Callable[[int], Matrix]] = {
    "raising": raising,
    "exiting": exiting,
    "nan": lambda count: np.full(count, nan),
    "infinite": lambda count: np.resize([inf, -inf], count),
    "huge": lambda count: np.full(count, 1e308),
    "negative": lambda count: np.full(count, -1e308),
    "all": lambda count: np.ones(count),
    "none": lambda count: np.zeros(count),
    "mixed": lambda count: np.resize([0.9, nan, 0.1, inf, 0.5], count),
    "short": lambda count: np.empty((0, 0)),
}


@cache
def controller(first: str, second: str) -> ShadowModeController:
    """A linear model and two that behave like this."""
    models = model_set(linear=LINEAR, first=Scripted(BEHAVIOURS[first]), second=Scripted(BEHAVIOURS[second]))
    return ShadowModeController(RULES, BNPLMultiModelPredictor(models))


def batch() -> pa.RecordBatch:
    return transactions().slice(100, COUNT)


def told(one: ShadowModeController, activation: Activation | None) -> pa.RecordBatch:
    """The shadow events."""
    writer = EventWriter("shadow_event", latest("shadow_event").header)
    source = Source("t", np.zeros(COUNT, np.int64), np.arange(COUNT))
    shadow = one.score_batch(batch(), activation=activation)
    return ShadowEvents(one, writer.arrow_schema, Pseudonyms("key")).build(batch(), shadow, source, NOW)


behaviours = st.sampled_from(sorted(BEHAVIOURS))
MODES: list[tuple[Mode, float | None]] = [("canary", 1.0), ("canary", 50.0), ("canary", 99.99), ("champion", None)]


@examples(40)
@given(behaviours, behaviours, st.sampled_from(["linear", "first", "second"]))
def test_in_shadow_no_byte_of_a_decision_depends_on_a_model(first: str, second: str, champion: str) -> None:
    reference = told(controller("none", "none"), Activation(champion)).drop_columns(list(OF_MODELS))
    failing = told(controller(first, second), Activation(champion, "shadow", None, 7)).drop_columns(list(OF_MODELS))
    assert bytes(failing.serialize()) == bytes(reference.serialize())
    assert failing.column("decision").equals(failing.column("business_decision"))
    assert set(failing.column("decided_by").to_pylist()) == {"rules"}


@examples(80)
@given(behaviours, behaviours, st.sampled_from(["linear", "first", "second"]), st.sampled_from(MODES))
def test_what_stands_is_what_the_rules_and_the_champion_give_row_by_row(
    first: str, second: str, champion: str, mode: tuple[Mode, float | None]
) -> None:
    activation = Activation(champion, *mode)
    for event, customer in zip(
        told(controller(first, second), activation).to_pylist(),
        batch().column("customer_id").to_pylist(),
        strict=True,
    ):
        rules, score = event["business_decision"], event["champion_score"]
        point = int.from_bytes(hashlib.sha256(f"bnpl-canary/{customer}".encode()).digest()[:8], "big") % 10_000
        asked = rules == "approve" and (mode[1] is None or point < round(mode[1] * 100))
        if not asked:
            expected = (rules, "rules")
        elif score is None:
            expected = ("approve", "fallback")
        else:
            assert isfinite(score)
            expected = ("decline" if score >= 0.5 else "approve", "champion")
        assert (event["decision"], event["decided_by"]) == expected
        assert event["mode"] == mode[0]
        assert event["advisory"] == (event["decided_by"] != "champion")


@examples(30)
@given(behaviours, st.sampled_from(MODES))
def test_a_model_that_is_not_champion_reaches_nothing_that_stands(other: str, mode: tuple[Mode, float | None]) -> None:
    hidden = ["models", "consensus"]
    reference = told(controller("mixed", "none"), Activation("first", *mode)).drop_columns(hidden)
    assert reference.equals(told(controller("mixed", other), Activation("first", *mode)).drop_columns(hidden))


def test_a_slow_champion_falls_back_after_one_budget_and_a_switched_off_one_at_once() -> None:
    let_go = threading.Event()

    def slow(count: int) -> Matrix:
        let_go.wait(60)
        return np.ones(count)

    models = model_set(first=Scripted(slow), linear=LINEAR)
    one = ShadowModeController(RULES, BNPLMultiModelPredictor(models, Budget(0.5, 600)))
    try:
        for error, within in (("TooSlow", 30.0), ("SwitchedOff", 0.4)):
            began = time.monotonic()
            shadow = one.score_batch(batch(), activation=Activation("first", "champion"))
            assert time.monotonic() - began < within
            assert shadow.predictions.errors == {"first": error}
            assert shadow.standing.decision.equals(shadow.decisions.decision)
            assert set(shadow.standing.decided_by.to_pylist()) == {"rules", "fallback"}
        in_shadow = told(one, Activation("first")).drop_columns(list(OF_MODELS))
        assert in_shadow.equals(told(controller("none", "none"), Activation("first")).drop_columns(list(OF_MODELS)))
    finally:
        let_go.set()


def test_a_champion_without_a_threshold_decides_nothing() -> None:
    shipped = model_set(linear=LINEAR)
    (entry,) = shipped.models
    models = replace(shipped, models=(replace(entry, flag_threshold=None),))
    shadow = ShadowModeController(RULES, BNPLMultiModelPredictor(models)).score_batch(
        batch(), activation=Activation("linear", "champion")
    )
    assert shadow.standing.decision.equals(shadow.decisions.decision)
    assert set(shadow.standing.decided_by.to_pylist()) == {"rules", "fallback"}


def test_one_transaction_stands_as_it_does_in_a_batch() -> None:
    one = controller("mixed", "nan")
    for activation in (
        None,
        Activation("linear", "champion"),
        Activation("second", "champion"),
        Activation("linear", "canary", 40.0),
    ):
        whole = one.score_batch(batch(), activation=activation).standing
        for at, event in enumerate(batch().to_pylist()):
            said = one.score_single(event, activation)
            assert said["decision"] == whole.decision[at].as_py()
            assert said["decided_by"] == whole.decided_by[at].as_py()
            assert said["mode"] == (activation.mode if activation else "shadow")
            assert said["champion"] == (activation.champion if activation else "linear")
            assert said["advisory"] == (said["decided_by"] != "champion")


def test_no_transactions_are_no_trouble() -> None:
    for mode, percent in [("shadow", None), *MODES]:
        standing = (
            controller("none", "all")
            .score_batch(batch().slice(0, 0), activation=Activation("linear", mode, percent))
            .standing
        )
        assert len(standing.decision) == len(standing.decided_by) == 0


# the canary's customers

customers = st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=40)


@examples(150)
@given(customers, st.integers(1, 9999), st.integers(1, 9999))
def test_a_customer_keeps_its_side_and_a_larger_share_has_all_of_a_smaller_one(
    ids: list[str], one: int, other: int
) -> None:
    column = pa.array([*ids, *reversed(ids)], pa.string())
    small, large = sorted((one / 100, other / 100))
    inside, more = in_canary(column, small), in_canary(column, large)
    assert inside.tolist() == inside[::-1].tolist()
    assert not (inside & ~more).any()
    assert in_canary(column.slice(0, 1), small).tolist() == inside[:1].tolist()


def test_the_side_of_a_customer_never_changes() -> None:
    """Worked out by sha256sum and bc: `printf 'bnpl-canary/c-1' | sha256sum`."""
    assert [canary_point(each) for each in ("c-1", "c-77", "Zoë")] == PINNED


PINNED = [6270, 1427, 7266]


@pytest.mark.parametrize("percent", [0.5, 5.0, 37.5])
def test_a_share_is_about_as_large_as_it_says(percent: float) -> None:
    column = pa.array([f"customer-{at}" for at in range(40_000)])
    found = in_canary(column, percent).mean() * 100
    assert abs(found - percent) < 4 * (percent * (100 - percent) / 40_000) ** 0.5


# what rules a process, after all that was recorded

LOADED = model_set(ridge=LINEAR, logistic=LINEAR)
AT_REST = Activation("ridge")
OTHER = "e" * 64


def control(revision: int, champion: str, mode: Mode, digest: str = LOADED.digest) -> Control:
    return Control(
        revision=revision,
        action="rollback",
        champion=champion,
        mode=mode,
        canary_percent=5.0 if mode == "canary" else None,
        artifact_version="test",
        artifact_sha256=digest,
        made_by="anna",
        made_at=NOW,
        reason="a test",
    )


@pytest.mark.parametrize(
    ("controls", "expected"),
    [
        ([], AT_REST),
        ([("logistic", "shadow")], Activation("logistic", "shadow", None, 1)),
        ([("logistic", "canary")], Activation("logistic", "canary", 5.0, 1)),
        ([("logistic", "canary"), ("ridge", "champion")], Activation("ridge", "champion", None, 2)),
        ([("logistic", "champion"), ("unheard", "champion")], Activation("logistic", "champion", None, 1)),
        ([("logistic", "champion"), ("ridge", "champion", OTHER)], Activation("logistic", "champion", None, 1)),
        ([("logistic", "champion"), ("ridge", "shadow", OTHER)], Activation("logistic", "shadow", None, 2)),
        ([("logistic", "champion"), ("unheard", "shadow")], Activation("logistic", "shadow", None, 2)),
        ([("logistic", "champion", OTHER)], AT_REST),
        (
            [("logistic", "champion"), ("ridge", "champion", OTHER), ("ridge", "canary")],
            Activation("ridge", "canary", 5.0, 3),
        ),
    ],
)
def test_the_newest_record_rules_that_names_what_is_loaded_and_shadow_reaches_all(
    controls: list[Any], expected: Activation
) -> None:
    records = [control(revision, *each) for revision, each in enumerate(controls, 1)]
    assert ruling(AT_REST, records, LOADED) == expected


def test_how_much_the_champion_decides_is_told_in_percent() -> None:
    told = [
        Activation("a", mode, share).percent for mode, share in [("shadow", None), ("canary", 2.5), ("champion", None)]
    ]
    assert told == [0.0, 2.5, 100.0]
