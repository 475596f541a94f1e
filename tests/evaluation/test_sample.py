"""A sample refuses columns that cannot be so, and says what share of it is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from made import MODELS, sample

from consumer.evaluation.sample import Segment


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"amount": np.zeros(3)}, r"amount is float64\(3,\), not float64\(100,\)"),
        ({"rules_flag": np.zeros(100, np.int64)}, "rules_flag is int64"),
        ({"rules_flag": np.full(100, 3, np.int8)}, "100 of 100 rows: rules_flag is not one of the 3"),
        ({"approved": np.zeros(100, np.bool_)}, "100 of 100 rows: observed, but not approved"),
        ({"weight": np.zeros(100)}, "weight is not a positive number"),
        ({"weight": np.full(100, np.inf)}, "weight is not a positive number"),
        ({"amount": np.full(100, np.nan)}, "amount is not a number"),
        ({"rules_score": np.full(100, np.nan)}, "rules_score is not a number"),
        ({"scores": {name: np.full(100, 1.5) for name in MODELS}}, "score of ridge is outside 0 to 1"),
        ({"scores": {name: np.full(100, np.inf) for name in MODELS}}, "score of ridge is infinite"),
        ({"probability": {"ridge": True}}, "do not name the same models"),
        ({"scores": {"rules": np.zeros(100)}, "probability": {"rules": True}}, "a model is called 'rules'"),
        ({"segments": {"x": Segment(np.full(100, 2, np.int32), ("a", "b"))}}, "code of segment x has no label"),
    ],
)
def test_columns_that_cannot_be_so_are_refused_by_name(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        sample(100, **changes)


def test_coverage_is_the_known_share_of_what_was_approved() -> None:
    made = sample(2000, declined=0.3, pending=0.2)
    assert made.coverage == made.observed.sum() / made.approved.sum()
    assert 0.7 < made.coverage < 0.9
    nothing = np.zeros(2000, np.bool_)
    assert sample(2000, approved=nothing, observed=nothing).coverage == 0


def test_only_the_rows_that_every_model_scored_are_compared() -> None:
    made = sample(1000, pending=0.1)
    made.scores["ridge"][:50] = np.nan
    made.scores["elastic"][:] = np.nan
    assert made.scored_share("elastic") == 0
    kept = ("ridge", "logistic", "ensemble")
    rows = made.evaluable(kept)
    assert rows.sum() == made.observed[50:].sum()
    taken = made.only(rows, kept)
    assert taken.models == kept
    assert taken.amount.tolist() == made.amount[rows].tolist()
    assert taken.segments["provider"].codes.tolist() == made.segments["provider"].codes[rows].tolist()


def test_a_sample_of_all_rows_is_itself() -> None:
    made = sample(100)
    assert made.only(made.evaluable(made.models), made.models) is made


def test_unequal_weights_leave_fewer_rows() -> None:
    assert sample(500).effective_size == pytest.approx(500)
    made = sample(500, weighted=True)
    assert made.effective_size == pytest.approx(made.weight.sum() ** 2 / (made.weight**2).sum())
    assert made.effective_size < 500
