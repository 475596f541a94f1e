"""Everything at once: whatever rows come in, plain finite JSON comes out."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import MODELS, POLICY, POLICY_FILE, TARGETS, sample

from consumer.evaluation.evaluate import Evaluation, evaluate
from consumer.evaluation.multiplicity import Look
from consumer.evaluation.plain import plain
from consumer.evaluation.policy import load_policy
from consumer.evaluation.sample import Sample
from consumer.evaluation.vintages import FollowUp
from consumer.settings import PROJECT


def evaluated(made: Sample, week: int = 4) -> Evaluation:
    return evaluate(made, POLICY, TARGETS, week)


def test_all_figures_are_of_the_same_rows() -> None:
    made = sample(6000, declined=0.1, pending=0.02, rows_a_customer=1.5)
    made.scores["ridge"][:40] = np.nan
    found = evaluated(made)
    rows = made.evaluable(MODELS)
    assert found.rows.evaluated == rows.sum() < found.rows.observed == made.observed.sum()
    assert found.rows.defaults == (rows & made.defaulted).sum()
    assert found.rows.customers == len(np.unique(made.customer[rows]))
    assert list(found.scorers) == ["rules", *MODELS]
    for figures in found.scorers.values():
        bands = (figures.ratio.high, figures.ratio.medium, figures.ratio.low)
        assert sum(band.rows for band in bands) == rows.sum()
        assert sum(band.defaults for band in bands) == found.rows.defaults
        assert sum(each.rate.rows for each in figures.deciles) == rows.sum()
        assert figures.money.declined == figures.ratio.high.rows == found.scorers["rules"].ratio.high.rows
    assert found.scorers["rules"].calibration is None
    assert found.scorers["ridge"].calibration is not None
    assert len(found.agreements) == 10
    assert len(found.auc_comparisons) == 7
    assert [each.model for each in found.disagreements] == list(MODELS)
    assert all(rows[each.examples].all() for each in found.disagreements)


def test_an_evaluation_is_the_same_twice_and_plain() -> None:
    made = sample(3000, declined=0.1)
    once, again = (json.dumps(evaluated(made).as_json(), allow_nan=False, sort_keys=True) for _ in range(2))
    assert once == again


def test_a_look_comes_back_from_json_as_it_was() -> None:
    found = evaluated(sample(3000))
    assert Look(**json.loads(json.dumps(found.as_json()["look"]))) == found.look


def test_scores_that_are_no_probabilities_are_not_held_to_be_some() -> None:
    made = sample(3000, probability=dict.fromkeys(MODELS, False))
    made = replace(made, scores={name: 10 * values - 3 for name, values in made.scores.items()})
    found = evaluated(made)
    assert all(figures.calibration is None for figures in found.scorers.values())
    assert all(vintage.observed_expected == {} for vintage in found.vintages)
    assert found.scorers["ridge"].ratio.estimate is not None


def test_a_monotone_change_of_a_score_changes_no_ranking_and_no_verdict() -> None:
    made = sample(3000)
    bent = replace(made, scores={name: values**3 for name, values in made.scores.items()})
    before, after = evaluated(made), evaluated(bent)
    assert [each.verdict for each in before.verdicts] == [each.verdict for each in after.verdicts]
    for model in MODELS:
        assert before.scorers[model].ratio == after.scorers[model].ratio
        assert before.scorers[model].ranking == after.scorers[model].ranking


def test_a_model_that_scored_too_little_is_left_out_and_takes_no_rows_along() -> None:
    made = sample(3000)
    made.scores["elastic"][::10] = np.nan
    found = evaluated(made)
    assert found.left_out == {"elastic": "it scored 90.0% of the observed transactions, 95% are wanted"}
    assert found.rows.evaluated == 3000
    assert "elastic" not in found.scorers
    assert {each.verdict for each in found.verdicts if each.model == "elastic"} == {"no verdict"}


def test_weights_shift_every_rate_towards_the_rows_that_stand_for_more() -> None:
    made = sample(6000)
    heavy = replace(made, weight=np.where(made.defaulted, 3.0, 1.0))
    plainly, weighted = evaluated(made), evaluated(heavy)
    for model in ("rules", *MODELS):
        before, after = plainly.scorers[model], weighted.scorers[model]
        assert after.ratio.high.rate > before.ratio.high.rate  # type: ignore[operator]
    assert weighted.rows.effective_size < plainly.rows.effective_size == pytest.approx(6000)
    assert weighted.vintages[0].observed.rate > plainly.vintages[0].observed.rate  # type: ignore[operator]


def test_the_curve_of_defaults_is_drawn_when_it_is_asked_for() -> None:
    made = sample(500)
    days = np.random.default_rng(1).integers(1, 60, 500).astype(float)
    found = evaluate(made, POLICY, TARGETS, 4, follow_up=FollowUp(days, made.defaulted))
    assert found.cumulative_default is not None
    assert found.cumulative_default.share == sorted(found.cumulative_default.share)
    assert evaluated(made).cumulative_default is None


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_no_rows_are_too_odd(data: st.DataObject) -> None:
    """None, few, all alike, nothing observed, nothing defaulted, one customer, scores missing: never a crash or NaN."""
    n = data.draw(st.integers(0, 30))
    made = sample(
        max(n, 1), data.draw(st.integers(0, 99)), weighted=data.draw(st.booleans()),
        declined=data.draw(st.sampled_from([0.0, 0.5, 1.0])), pending=data.draw(st.sampled_from([0.0, 0.5, 1.0])),
        decimals=data.draw(st.sampled_from([None, 1, 0])),
    ).only(np.arange(max(n, 1)) < n)  # fmt: skip
    if data.draw(st.booleans()):
        made = replace(made, defaulted=made.observed if data.draw(st.booleans()) else np.zeros(n, np.bool_))
    if data.draw(st.booleans()):
        made = replace(made, customer=np.zeros(n, np.int64))
    if data.draw(st.booleans()):
        made = replace(made, rules_flag=np.full(n, data.draw(st.integers(0, 2)), np.int8))
    missing = data.draw(st.lists(st.sampled_from(MODELS), unique=True))
    made = replace(made, scores={
        name: np.full(n, np.nan) if name in missing else values for name, values in made.scores.items()
    })  # fmt: skip
    policy = POLICY.model_copy(
        update={"minimum_defaults": 1, "segments": POLICY.segments.model_copy(update={"rows": 1, "defaults": 1})}
    )
    found = evaluate(made, policy, TARGETS, data.draw(st.integers(0, 8)))
    json.dumps(found.as_json(), allow_nan=False)
    assert set(found.left_out) >= set(missing)
    assert found.recommendation.sentences


def test_the_example_of_the_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (PROJECT / "docs" / "evaluation.md").read_text(), re.S)
    monkeypatch.chdir(PROJECT)
    names = {"sample": sample(3000), "targets": TARGETS}
    exec(block, names)
    assert isinstance(names["found"], Evaluation)
    assert names["sha256"] == load_policy(POLICY_FILE)[1]


def test_what_has_no_place_in_json_is_refused() -> None:
    assert plain({"a": [np.float64(1.5), np.int64(2), math.nan, math.inf, np.bool_(True), None, "x"]}) == {
        "a": [1.5, 2, None, None, True, None, "x"]
    }
    with pytest.raises(TypeError, match="bytes has no place"):
        plain(b"x")
