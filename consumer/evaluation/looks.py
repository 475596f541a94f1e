"""A look by itself: the p-values that later looks must know, without all the other figures."""

from __future__ import annotations

from consumer.evaluation.bands import Bands, descending, match
from consumer.evaluation.comparison import Contender
from consumer.evaluation.multiplicity import Look
from consumer.evaluation.outcomes import Outcomes
from consumer.evaluation.policy import Policy
from consumer.evaluation.sample import RULES, Sample
from consumer.evaluation.verdict import Maturity, judge


def look_week(policy: Policy, weeks: int) -> int:
    """The look that so many whole weeks allow: the policy's last one that is reached, or, before the first, the weeks
    themselves. Weeks after the last look are left alone, for each further look would be one that nobody corrected for.
    """
    reached = [week for week in policy.looks_at_weeks if week <= weeks]
    return reached[-1] if reached else weeks


def look_at(sample: Sample, policy: Policy, week: int) -> Look:
    """What `evaluate` would keep of this sample for later looks."""
    models = tuple(model for model in sample.models if sample.scored_share(model) >= policy.minimum_scored)
    evaluated = sample.only(sample.evaluable(models), models)
    outcomes = Outcomes.of(evaluated)
    bands = {RULES: evaluated.rules_flag} | {model: _bands(evaluated, model) for model in models}
    contenders = {name: Contender.of(name, each, outcomes, policy) for name, each in bands.items()}
    return judge(contenders, {}, outcomes, Maturity(week, sample.coverage), policy).look


def _bands(evaluated: Sample, model: str) -> Bands:
    scores = evaluated.scores[model]
    positions = descending(scores, evaluated.order)
    return match(positions, scores, evaluated.order, evaluated.weight, evaluated.rules_flag).bands
