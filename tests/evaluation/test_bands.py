"""Bands follow from scores alone, and are as large as the rules'."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from made import POLICY, TARGETS, sample

from consumer.evaluation.bands import HIGH, LOW, Banding, descending, match
from consumer.evaluation.evaluate import evaluate
from consumer.evaluation.sample import Sample


def banded(made: Sample, model: str = "ridge") -> Banding:
    scores = made.scores[model]
    return match(descending(scores, made.order), scores, made.order, made.weight, made.rules_flag)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), min_size=1, max_size=60),
    st.randoms(use_true_random=False),
)
def test_bands_are_as_large_as_the_rules_whatever_ties_there_are(rows: list[tuple[int, int]], random: object) -> None:
    scores = np.array([score / 5 for score, _ in rows])
    rules = np.array([flag for _, flag in rows], np.int8)
    order = np.array(random.sample(range(len(rows)), len(rows)), np.uint64)  # type: ignore[attr-defined]
    positions = descending(scores, order)
    assert positions.tolist() == sorted(range(len(rows)), key=lambda row: (-scores[row], order[row]))
    banding = match(positions, scores, order, np.ones(len(rows)), rules)
    for band in (LOW, HIGH):
        assert (banding.bands == band).sum() == (rules == band).sum()
    assert (banding.flags(scores, order) == (banding.bands == HIGH)).all()


@given(st.lists(st.floats(0.1, 20), min_size=2, max_size=60), st.integers(0, 1000))
def test_with_weights_shares_are_matched_to_half_a_row(weights: list[float], seed: int) -> None:
    random = np.random.default_rng(seed)
    weight, n = np.array(weights), len(weights)
    scores, order = random.random(n), np.arange(n, dtype=np.uint64)
    rules = random.integers(0, 3, n).astype(np.int8)
    bands = match(descending(scores, order), scores, order, weight, rules).bands
    for band in (LOW, HIGH):
        wanted, found = weight[rules == band].sum(), weight[bands == band].sum()
        assert abs(wanted - found) <= weight.max() / 2 + 1e-9


def test_the_order_of_the_rows_does_not_matter() -> None:
    made = sample(1000, decimals=1)
    shuffled = np.random.default_rng(3).permutation(1000)
    moved = replace(
        made,
        **{
            name: getattr(made, name)[shuffled]
            for name in ("order", "customer", "event_time", "amount", "rules_flag", "rules_score", "approved",
                         "observed", "defaulted", "weight")
        },
        scores={name: values[shuffled] for name, values in made.scores.items()},
        segments={},
    )  # fmt: skip
    assert (banded(made).bands[shuffled] == banded(moved).bands).all()
    assert banded(made).high == banded(moved).high


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 10_000))
def test_no_outcome_moves_a_band(seed: int) -> None:
    """Permuted outcomes leave thresholds and bands as they are, to the last row."""
    made = sample(1500, declined=0.1)
    permuted = made.defaulted.copy()
    permuted[made.observed] = np.random.default_rng(seed).permutation(made.defaulted[made.observed])
    before = evaluate(made, POLICY, TARGETS, 4)
    after = evaluate(replace(made, defaulted=permuted), POLICY, TARGETS, 4)
    for model, figures in before.scorers.items():
        assert after.scorers[model].threshold == figures.threshold
        for band in ("high", "medium", "low"):
            assert getattr(after.scorers[model].ratio, band).rows == getattr(figures.ratio, band).rows
        assert after.scorers[model].observability.flagged == figures.observability.flagged
        assert after.scorers[model].money.declined == figures.money.declined


def test_a_threshold_also_flags_rows_that_were_not_evaluated() -> None:
    made = sample(1000, decimals=2)
    banding = banded(made)
    assert banding.high is not None
    score, order = banding.high.score, banding.high.order
    others = np.array([score + 0.01, score, score, score - 0.01, np.nan])
    ties = np.array([order, order, order + 1, 0, 0], np.uint64)
    assert banding.flags(others, ties).tolist() == [True, True, False, False, False]


def test_an_empty_high_band_flags_nothing() -> None:
    made = sample(100, rules_flag=np.zeros(100, np.int8))
    banding = banded(made)
    assert banding.high is None
    assert not banding.flags(made.scores["ridge"], made.order).any()
    assert (banding.bands == LOW).all()
