"""One call that makes every figure, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from consumer.evaluation.agreement import Agreement, Lonely, agreements, disagreements
from consumer.evaluation.bands import HIGH, Banding, Threshold, descending, match
from consumer.evaluation.calibration import Calibration, calibration
from consumer.evaluation.comparison import Contender
from consumer.evaluation.deciles import Decile, deciles
from consumer.evaluation.money import Money, money
from consumer.evaluation.multiplicity import Look
from consumer.evaluation.observability import Observability, observability
from consumer.evaluation.outcomes import Outcomes
from consumer.evaluation.plain import plain
from consumer.evaluation.policy import Policy, Targets
from consumer.evaluation.ranking import AucDifference, Ranking, auc_difference, mid_ranks, ranking
from consumer.evaluation.ratio import Ratio
from consumer.evaluation.recommendation import Recommendation, recommend
from consumer.evaluation.sample import RULES, Floats, Mask, Sample
from consumer.evaluation.segments import Cell, segments
from consumer.evaluation.verdict import Maturity, Verdict, judge
from consumer.evaluation.vintages import Curve, FollowUp, Vintage, cumulative_default, vintages


@dataclass(frozen=True)
class Rows:
    """What was evaluated."""

    transactions: int
    """old enough for the label horizon, declined and not observed ones too"""
    approved: int
    observed: int
    evaluated: int
    """observed, and scored by every model that was not left out: the same rows for all"""
    defaults: int
    """among the evaluated"""
    customers: int
    """among the evaluated"""
    effective_size: float
    """of the observed rows, when weights differ"""
    coverage: float
    week: int


@dataclass(frozen=True)
class Figures:
    """The rules, or one model."""

    ratio: Ratio
    level: str | None
    """where its ratio lies among the targets"""
    threshold: Threshold | None
    """from which row on it flags; None for the rules"""
    ranking: Ranking
    calibration: Calibration | None
    """only of scores that claim to be probabilities"""
    deciles: list[Decile]
    observability: Observability
    money: Money


@dataclass(frozen=True)
class AucComparison:
    """AUC of a model less that of another, secondary to the verdict."""

    model: str
    against: str
    difference: AucDifference


@dataclass(frozen=True)
class Evaluation:
    """Everything that is said of one sample under one policy."""

    rows: Rows
    policy: Policy
    targets: Targets
    scorers: dict[str, Figures]
    """`rules`, then every model that was not left out"""
    left_out: dict[str, str]
    """models that scored too few rows to be compared, and why"""
    verdicts: list[Verdict]
    recommendation: Recommendation
    look: Look
    """what later looks need of this one"""
    auc_comparisons: list[AucComparison]
    agreements: list[Agreement]
    disagreements: list[Lonely]
    segments: list[Cell]
    vintages: list[Vintage]
    cumulative_default: Curve | None

    def as_json(self) -> dict[str, Any]:
        """Dicts, lists, text and finite numbers, or null."""
        document: dict[str, Any] = plain(self)
        return document


@dataclass(frozen=True)
class _Scored:
    """One scorer's figures, and the columns that comparisons are made from."""

    figures: Figures
    banding: Banding
    contender: Contender
    ranks: Floats
    auc_influence: Floats | None


def evaluate(
    sample: Sample,
    policy: Policy,
    targets: Targets,
    week: int,
    *,
    earlier: Sequence[Look] = (),
    follow_up: FollowUp | None = None,
    examples: int = 10,
) -> Evaluation:
    """All figures and the verdict.

    `week`: how many whole weeks of transactions the sample holds; it should hold no others. `earlier`: the looks of
    earlier evaluations under this policy. `follow_up`: for the curve of cumulative default. `examples`: how many lone
    flags of each model are named, by their position in `sample`.
    """
    left_out = {
        model: f"it scored {share:.1%} of the observed transactions, {policy.minimum_scored:.0%} are wanted"
        for model in sample.models
        if (share := sample.scored_share(model)) < policy.minimum_scored
    }
    models = tuple(model for model in sample.models if model not in left_out)
    rows = sample.evaluable(models)
    evaluated = sample.only(rows, models)
    outcomes = Outcomes.of(evaluated)
    scored = {name: _score(name, sample, evaluated, outcomes, policy, targets) for name in (RULES, *models)}
    maturity = Maturity(week, sample.coverage)
    contenders = {name: each.contender for name, each in scored.items()}
    judgement = judge(contenders, left_out, outcomes, maturity, policy, earlier)
    ratios = {name: each.figures.ratio for name, each in scored.items()}
    bands = {name: each.banding.bands for name, each in scored.items()}
    of_models = {model: bands[model] for model in models}
    return Evaluation(
        Rows(
            len(sample),
            int(np.count_nonzero(sample.approved)),
            int(np.count_nonzero(sample.observed)),
            len(evaluated),
            int(np.count_nonzero(evaluated.defaulted)),
            outcomes.clusters.count,
            sample.effective_size,
            sample.coverage,
            week,
        ),
        policy,
        targets,
        {name: each.figures for name, each in scored.items()},
        left_out,
        judgement.verdicts,
        recommend(judgement.verdicts, ratios, targets, policy.champion),
        judgement.look,
        _auc_comparisons(scored, outcomes, policy),
        agreements(bands, {name: each.ranks for name, each in scored.items()}, evaluated.weight),
        disagreements(
            evaluated,
            {model: scored[model].banding for model in models},
            outcomes,
            np.flatnonzero(rows),
            examples,
            policy.confidence,
        ),
        segments(evaluated, bands[RULES], of_models, policy.segments, policy.confidence),
        vintages(sample, policy.confidence),
        cumulative_default(follow_up, policy.confidence) if follow_up else None,
    )


def _score(
    name: str, sample: Sample, evaluated: Sample, outcomes: Outcomes, policy: Policy, targets: Targets
) -> _Scored:
    """Every figure of one scorer, from one sort of its scores."""
    scores = evaluated.rules_score if name == RULES else evaluated.scores[name]
    positions = descending(scores, evaluated.order)
    banding = (
        Banding(evaluated.rules_flag, None)
        if name == RULES
        else match(positions, scores, evaluated.order, evaluated.weight, evaluated.rules_flag)
    )
    contender = Contender.of(name, banding.bands, outcomes, policy)
    ranked, influence = ranking(scores, positions, outcomes, policy.confidence)
    calibrated = len(evaluated) > 0 and evaluated.probability.get(name, False)
    figures = Figures(
        contender.ratio,
        None if contender.ratio.estimate is None else targets.level(contender.ratio.estimate),
        banding.high,
        ranked,
        calibration(scores, positions, outcomes, policy.confidence) if calibrated else None,
        deciles(scores, positions, outcomes, evaluated.amount, policy.confidence),
        observability(sample, _all_flags(name, sample, banding), contender.ratio),
        money(banding.bands, evaluated.amount, outcomes, policy.economics, policy.confidence),
    )
    return _Scored(figures, banding, contender, mid_ranks(scores, positions), influence)


def _all_flags(name: str, sample: Sample, banding: Banding) -> Mask:
    """The flags among all rows, evaluated or not."""
    if name == RULES:
        flags: Mask = sample.rules_flag == HIGH
        return flags
    return banding.flags(sample.scores[name], sample.order)


def _auc_comparisons(scored: dict[str, _Scored], outcomes: Outcomes, policy: Policy) -> list[AucComparison]:
    """Every model against the rules, and every other one against the champion."""
    aucs = {
        name: (each.figures.ranking.auc, each.auc_influence)
        for name, each in scored.items()
        if each.figures.ranking.auc is not None and each.auc_influence is not None
    }
    return [
        AucComparison(model, against, auc_difference(aucs[model], aucs[against], outcomes, policy.confidence))
        for against in (RULES, policy.champion)
        for model in aucs
        if against in aucs and model not in (RULES, against)
    ]
