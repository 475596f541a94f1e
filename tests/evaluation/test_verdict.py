"""What may be said of a model, when, and with which p."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import POLICY, TARGETS
from scipy.stats import norm, poisson
from statsmodels.stats.multitest import multipletests

from consumer.evaluation.bands import HIGH, LOW, Bands
from consumer.evaluation.comparison import Contender, compare, weeks_to_decision
from consumer.evaluation.multiplicity import Look, corrected, holm
from consumer.evaluation.outcomes import Clusters, Outcomes
from consumer.evaluation.ratio import Difference, Ratio, equivalence
from consumer.evaluation.recommendation import recommend
from consumer.evaluation.verdict import Judgement, Maturity, Verdict, judge

WEEK_4, WEEK_6 = Maturity(4, 0.99), Maturity(6, 0.99)
TESTS = 3
"""against the rules: one model, three looks"""


def world(rates: tuple[float, float, float, float], n: int = 20_000) -> tuple[dict[str, Bands], Outcomes]:
    """A quarter of the rows each: flagged by both, by the rules, by ridge, by neither; with these default rates."""
    kind = np.arange(n) % 4
    defaulted = (np.arange(n) // 4 / (n / 4)) < np.array(rates)[kind]
    bands = {
        name: np.where(np.isin(kind, flagged), HIGH, LOW).astype(np.int8)
        for name, flagged in (("rules", (0, 1)), ("ridge", (0, 2)))
    }
    return bands, Outcomes(defaulted, np.ones(n), Clusters(np.arange(n)))


def judged(
    rates: tuple[float, float, float, float],
    maturity: Maturity = WEEK_4,
    earlier: tuple[Look, ...] = (),
    left_out: dict[str, str] | None = None,
    n: int = 20_000,
) -> Judgement:
    bands, outcomes = world(rates, n)
    contenders = {name: Contender.of(name, each, outcomes, POLICY) for name, each in bands.items()}
    return judge(contenders, left_out or {}, outcomes, maturity, POLICY, earlier)


def of_ridge(found: Judgement) -> Verdict:
    (verdict,) = [each for each in found.verdicts if each.model == "ridge"]
    return verdict


@pytest.mark.parametrize(
    ("rates", "maturity", "verdict"),
    [
        ((0.10, 0.05, 0.10, 0.03), WEEK_4, "better"),
        ((0.10, 0.10, 0.05, 0.03), WEEK_4, "worse"),
        ((0.10, 0.0501, 0.05, 0.03), WEEK_4, "continue"),
        ((0.10, 0.0501, 0.05, 0.03), WEEK_6, "inconclusive"),
        ((0.10, 0.05, 0.10, 0.03), Maturity(3, 0.99), "no verdict"),
        ((0.10, 0.05, 0.10, 0.03), Maturity(4, 0.94), "no verdict"),
        ((0.0002, 0.05, 0.0002, 0.03), WEEK_4, "no verdict"),
    ],
)
def test_each_verdict(rates: tuple[float, float, float, float], maturity: Maturity, verdict: str) -> None:
    assert of_ridge(judged(rates, maturity)).verdict == verdict


def test_with_enough_rows_the_same_rates_are_equivalent() -> None:
    found = of_ridge(judged((0.10, 0.0501, 0.05, 0.03), n=1_000_000))
    assert found.verdict == "equivalent"
    assert found.comparison is not None
    assert found.comparison.equivalence_interval is not None
    low, high = found.comparison.equivalence_interval
    assert 1 / 1.1 < low < high < 1.1


def test_a_difference_that_is_sure_but_small_is_not_better() -> None:
    """1.08 times the ratio, at p < 1e-9: within the margin, hence equivalent, never promoted."""
    found = of_ridge(judged((0.10, 0.05, 0.054, 0.03), n=2_000_000))
    assert found.p_corrected is not None
    assert found.p_corrected < 1e-9
    assert found.verdict == "equivalent"


@pytest.mark.parametrize(
    ("maturity", "told"),
    [
        (Maturity(1, 0.99), "1 mature week, the first look is after 4"),
        (Maturity(3, 0.99), "3 mature weeks, the first look is after 4"),
        (Maturity(4, 0.9), "outcomes cover 90.0%, 95% are wanted"),
    ],
)
def test_an_immature_look_says_why(maturity: Maturity, told: str) -> None:
    found = of_ridge(judged((0.10, 0.05, 0.10, 0.03), maturity))
    assert found.why == told
    assert found.comparison is not None, "the figures are there all the same"
    assert found.weeks_needed == pytest.approx(4 - maturity.week), "this much would be shown at the first look"


def test_a_week_between_looks_is_no_look() -> None:
    policy = POLICY.model_copy(update={"looks_at_weeks": (4, 6)})
    bands, outcomes = world((0.10, 0.05, 0.10, 0.03))
    contenders = {name: Contender.of(name, each, outcomes, policy) for name, each in bands.items()}
    found = of_ridge(judge(contenders, {}, outcomes, Maturity(5, 0.99), policy))
    assert found.verdict == "no verdict"
    assert "not one of the policy's looks" in found.why


def test_too_few_defaults_are_named_with_the_band_they_lack_in() -> None:
    why = of_ridge(judged((0.0002, 0.05, 0.0002, 0.03))).why
    assert why == "ridge: insufficient: 2 defaults in the high band, 50 are wanted"


def test_a_model_that_was_left_out_has_no_verdict_and_counts_as_a_test() -> None:
    found = judged((0.10, 0.05, 0.10, 0.03), left_out={"elastic": "it scored nothing"})
    alone = judged((0.10, 0.05, 0.10, 0.03))
    assert [(each.model, each.against, each.verdict) for each in found.verdicts] == [
        ("ridge", "rules", "better"), ("elastic", "rules", "no verdict"), ("elastic", "ridge", "no verdict"),
    ]  # fmt: skip
    assert found.verdicts[1].why == "it scored nothing"
    assert of_ridge(found).p_corrected == pytest.approx(2 * (of_ridge(alone).p_corrected or 0))


def test_without_the_champion_there_is_no_comparison_with_it() -> None:
    bands, outcomes = world((0.10, 0.05, 0.10, 0.03))
    contenders = {name: Contender.of(name, each, outcomes, POLICY) for name, each in bands.items()}
    contenders["elastic"] = replace(contenders.pop("ridge"), name="elastic")
    found = judge(contenders, {}, outcomes, WEEK_4, POLICY).verdicts
    assert [(each.against, each.verdict) for each in found] == [("rules", "better"), ("ridge", "no verdict")]
    assert "ridge cannot be compared with" in found[1].why


@settings(max_examples=25, deadline=None)  # the oracle takes 30 ms a call
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holms_correction_is_that_of_statsmodels(p: list[float]) -> None:
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1].tolist(), rel=1e-9, abs=1e-300)


@given(st.lists(st.floats(0, 1), min_size=12, max_size=12), st.floats(0.001, 0.2))
def test_what_is_rejected_at_a_look_is_rejected_by_holm_over_all_of_them(p: list[float], alpha: float) -> None:
    """So the error rate of the whole season is that of one Holm correction over models and looks."""
    looks = [dict(zip("abcd", p[at : at + 4], strict=True)) for at in (0, 4, 8)]
    whole = dict(zip([(at, model) for at in range(3) for model in "abcd"], holm(p), strict=True))
    for at, look in enumerate(looks):
        for model, adjusted in corrected(look, looks[:at], 12).items():
            assert adjusted >= whole[at, model] - 1e-12


def test_earlier_looks_are_counted_and_a_look_beyond_the_last_is_paid_for() -> None:
    weak = Look(4, {"rules": {"ridge": 0.9}}, {"rules": {"ridge": 0.9}})
    strong = Look(5, {"rules": {"ridge": 1e-30}}, {"rules": {"ridge": 0.9}})
    rates = (0.10, 0.06, 0.072, 0.03)
    p = of_ridge(judged(rates)).comparison
    assert p is not None
    assert p.p is not None
    assert of_ridge(judged(rates)).p_corrected == pytest.approx(3 * p.p)
    assert of_ridge(judged(rates, WEEK_6, (weak,))).p_corrected == pytest.approx(3 * p.p)
    assert of_ridge(judged(rates, WEEK_6, (weak, strong))).p_corrected == pytest.approx(2 * p.p)
    late = (weak, replace(weak, week=5), replace(weak, week=6))
    assert of_ridge(judged(rates, Maturity(7, 0.99), late)).p_corrected == pytest.approx(4 * p.p)
    too_soon = replace(strong, week=2)
    assert of_ridge(judged(rates, WEEK_6, (too_soon,))).p_corrected == pytest.approx(3 * p.p)


def test_a_look_hands_on_the_p_values_before_correction() -> None:
    found = judged((0.10, 0.06, 0.08, 0.03))
    comparison = of_ridge(found).comparison
    assert comparison is not None
    assert found.look.week == 4
    assert found.look.different["rules"] == {"ridge": comparison.p}
    assert found.look.equivalent["rules"] == {"ridge": comparison.p_equivalent}


def clones(only_a: int, only_b: int) -> tuple[Contender, Contender, Outcomes]:
    """Two models that flag the same 1000 rows with 60 defaults, and 150 more each with these defaults."""
    kind = np.repeat([0, 1, 2, 3], [1000, 150, 150, 20_000])
    within = np.concatenate([np.arange(count) for count in (1000, 150, 150, 20_000)])
    defaulted = within < np.array([60, only_a, only_b, 600])[kind]
    outcomes = Outcomes(defaulted, np.ones(len(kind)), Clusters(np.arange(len(kind))))
    bands = [np.where(np.isin(kind, (0, own)), HIGH, LOW).astype(np.int8) for own in (1, 2)]
    a, b = (Contender.of(name, each, outcomes, POLICY) for name, each in zip("ab", bands, strict=True))
    return a, b, outcomes


def test_between_near_clones_the_exact_test_must_agree() -> None:
    """8 defaults against 1: the normal approximation would call it significant at 0.02, the exact test does not."""
    found = compare(*clones(8, 1), POLICY)
    assert found.difference is not None
    assert found.difference.p < 0.02 < found.discordant.p == found.p


def test_with_many_discordant_defaults_the_linearised_test_decides() -> None:
    found = compare(*clones(80, 40), POLICY)
    assert found.difference is not None
    assert found.p == found.difference.p != found.discordant.p


@pytest.mark.parametrize("defaults", [60, 100, 200])
def test_models_that_differ_by_the_margin_are_seldom_called_equivalent(defaults: int) -> None:
    """Even where a handful of discordant defaults is all there is: α is kept to within what whole numbers allow.

    A flags so many defaults more than B, drawn from Poisson's distribution, that its ratio is 1.1 times as great.
    """
    rows = np.arange(400)
    p_b, p_a = poisson.pmf(rows, 1.0), poisson.pmf(rows, 1.0 + 0.1 * defaults)
    called = 0.0
    for only_a in rows[p_a > 1e-6]:
        for only_b in rows[p_b > 1e-6]:
            high = defaults - 1
            logarithm = math.log((high + only_a) / (high + only_b))
            variance = only_a / (high + only_a) ** 2 + only_b / (high + only_b) ** 2
            error = math.hypot(math.sqrt(variance), 2 / (high + min(only_a, only_b)))
            called += p_a[only_a] * p_b[only_b] * (equivalence(logarithm, error, 1.1) < 0.05)
    assert called < 0.05


def test_even_one_and_the_same_banding_needs_some_defaults_to_be_called_equal() -> None:
    a, _, outcomes = clones(8, 1)
    few = compare(a, replace(a, name="b"), outcomes, POLICY)
    assert few.discordant.rows_a == few.discordant.rows_b == 0
    assert few.equivalence_interval is not None
    assert few.equivalence_interval[0] < 1 < few.equivalence_interval[1]
    assert few.p == 1


@pytest.mark.parametrize("logarithm", [0.0, 0.03, 0.11, 0.2, -0.3])
def test_after_the_weeks_that_are_needed_the_test_has_its_power(logarithm: float) -> None:
    found = Difference(math.exp(logarithm), 0.0, 0.0, logarithm, 0.15, 0.5, 0.5)
    weeks = weeks_to_decision(found, 4, 12, POLICY)
    assert weeks is not None
    error = 0.15 * math.sqrt(4 / (4 + weeks))
    margin, alpha = math.log(1.1), 0.05 / 12
    if abs(logarithm) > margin:
        power = norm.sf((max(norm.isf(alpha / 2) * error, margin) - abs(logarithm)) / error)
    else:
        reach = margin - norm.isf(alpha) * error
        power = norm.cdf((reach - logarithm) / error) - norm.cdf((-reach - logarithm) / error)
    assert power == pytest.approx(0.8, abs=0.003) if logarithm != 0.03 else power > 0.8


def test_on_the_margin_no_decision_is_in_sight() -> None:
    found = Difference(1.1, 0.0, 0.0, math.log(1.1), 0.1, 0.5, 0.5)
    assert weeks_to_decision(found, 4, 12, POLICY) is None
    shown = of_ridge(judged((0.10, 0.05, 0.0551, 0.03), n=20_000))
    assert shown.verdict == "continue"
    assert "more than ten years away" in shown.why
    assert shown.weeks_needed is None


def verdict(model: str, against: str, name: str) -> Verdict:
    return Verdict(model, against, name, "because", None, None, None, None)


def some_ratio(estimate: float | None) -> Ratio:
    found = of_ridge(judged((0.10, 0.05, 0.10, 0.03))).comparison
    assert found is not None
    ends = (None, None) if estimate is None else (estimate * 0.9, estimate * 1.1)
    bands, outcomes = world((0.10, 0.05, 0.10, 0.03))
    made = Contender.of("ridge", bands["ridge"], outcomes, POLICY).ratio
    return replace(made, estimate=estimate, interval_low=ends[0], interval_high=ends[1])


@pytest.mark.parametrize(
    ("against_rules", "against_ridge", "ratios", "promote", "told"),
    [
        (("better", "better"), "equivalent", (3.0, 3.2), "ridge", "ridge may be promoted: it is better than the rules"),
        (("better", "better"), "better", (3.0, 3.6), "elastic", "and better than ridge, the champion"),
        (("better", "better"), "inconclusive", (3.0, 3.6), "ridge", "no other model is better than it"),
        (
            ("inconclusive", "better"),
            "inconclusive",
            (2.7, 3.6),
            "elastic",
            "not shown to be worse than ridge, the champion",
        ),
        (("inconclusive", "better"), "worse", (2.7, 3.6), None, "none is shown to be better"),
        (("better", "equivalent"), "better", (3.0, 3.6), "ridge", "ridge may be promoted"),
        (("equivalent", "equivalent"), "equivalent", (2.8, 2.8), None, "all are as good as the rules"),
        (("no verdict", "no verdict"), "no verdict", (None, None), None, "the data allow no verdict yet"),
        (("better", "worse"), "worse", (1.4, 1.1), None, "to reach the targets"),
        (("better", "worse"), "worse", (1.05, 1.1), None, "to reach the targets"),
    ],
)
def test_the_recommendation(
    against_rules: tuple[str, str],
    against_ridge: str,
    ratios: tuple[float | None, float | None],
    promote: str | None,
    told: str,
) -> None:
    models = ("ridge", "elastic")
    verdicts = [verdict(model, "rules", name) for model, name in zip(models, against_rules, strict=True)]
    verdicts.append(verdict("elastic", "ridge", against_ridge))
    known = {model: some_ratio(each) for model, each in zip(models, ratios, strict=True)}
    found = recommend(verdicts, known, TARGETS, "ridge")
    assert found.promote == promote
    assert told in found.sentences[0]
    assert len(found.sentences) == 4


def test_a_sentence_says_where_the_ratio_and_its_interval_stand() -> None:
    found = recommend([verdict("ridge", "rules", "better")], {"ridge": some_ratio(2.9)}, TARGETS, "ridge")
    assert found.sentences[1] == (
        "ridge against the rules: better. Because. Its ratio is 2.90 (success), the interval 2.61 to 3.19"
        " (acceptable to success)."
    )
