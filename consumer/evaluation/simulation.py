"""Seasons drawn by the hundred: how often the policy promotes what it should not, and finds what it should.

A season is played through the very functions that judge real ones, look after look, each knowing those before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.special import expit
from scipy.stats import norm

from consumer.evaluation.bands import HIGH, LOW, MEDIUM, Bands, descending, match
from consumer.evaluation.comparison import Contender
from consumer.evaluation.multiplicity import Look
from consumer.evaluation.outcomes import Clusters, Outcomes
from consumer.evaluation.policy import Policy, Targets
from consumer.evaluation.recommendation import recommend
from consumer.evaluation.sample import RULES, Floats, Mask, Positions
from consumer.evaluation.verdict import Maturity, Verdict, judge


@dataclass(frozen=True)
class World:
    """Where transactions come from. Risk is a normal variable that a customer's transactions share in part."""

    signal: Mapping[str, float]
    """of the rules and of every model: the correlation of its score with the risk"""
    likeness: float = 0.95
    """share of the models' noise that they have in common: near 1 they are clones"""
    rows_a_week: int = 2500
    rows_a_customer: float = 1.5
    log_odds: float = -3.2
    """of default, at average risk"""
    slope: float = 1.0
    """of the log-odds of default, along the risk"""
    high_share: float = 0.1
    low_share: float = 0.5


@dataclass(frozen=True)
class Season:
    """What came of one: the first model that was recommended, at which week, and the verdicts of the last look."""

    promoted: str | None
    week: int | None
    verdicts: list[Verdict]


@dataclass
class Frequencies:
    """Over many seasons."""

    seasons: int = 0
    promoted: Counter[str] = field(default_factory=Counter)
    """how often each model was promoted, at whatever look"""
    verdicts: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    """of the last look, by (model, against)"""

    def add(self, season: Season) -> None:
        self.seasons += 1
        if season.promoted:
            self.promoted[season.promoted] += 1
        for each in season.verdicts:
            self.verdicts.setdefault((each.model, each.against), Counter())[each.verdict] += 1


def play(world: World, policy: Policy, targets: Targets, seed: int) -> Season:
    """One season, look by look; it goes on after a promotion, so that its last verdicts can be counted."""
    drawn = _draw(world, policy.looks_at_weeks[-1], np.random.default_rng(seed))
    order = np.arange(len(drawn.rules), dtype=np.uint64)
    promoted, at = None, None
    earlier: list[Look] = []
    verdicts: list[Verdict] = []
    for week in policy.looks_at_weeks:
        seen = slice(world.rows_a_week * week)
        rules, tie = drawn.rules[seen], order[seen]
        outcomes = Outcomes(drawn.defaulted[seen], np.ones(len(rules)), Clusters(drawn.customer[seen]))
        bands = {RULES: rules}
        for model, column in drawn.scores.items():
            scores = column[seen]
            bands[model] = match(descending(scores, tie), scores, tie, outcomes.weight, rules).bands
        contenders = {name: Contender.of(name, each, outcomes, policy) for name, each in bands.items()}
        judged = judge(contenders, {}, outcomes, Maturity(week, 1.0), policy, earlier)
        ratios = {name: each.ratio for name, each in contenders.items()}
        chosen = recommend(judged.verdicts, ratios, targets, policy.champion).promote
        if chosen and not promoted:
            promoted, at = chosen, week
        earlier.append(judged.look)
        verdicts = judged.verdicts
    return Season(promoted, at, verdicts)


def frequencies(world: World, policy: Policy, targets: Targets, seeds: Iterable[int]) -> Frequencies:
    """Of a season for every seed."""
    found = Frequencies()
    for seed in seeds:
        found.add(play(world, policy, targets, seed))
    return found


@dataclass(frozen=True)
class _Drawn:
    """A season's rows, oldest first."""

    scores: dict[str, Floats]
    rules: Bands
    defaulted: Mask
    customer: Positions


def _draw(world: World, weeks: int, random: np.random.Generator) -> _Drawn:
    n = world.rows_a_week * weeks
    customer = random.integers(0, int(n / world.rows_a_customer), n)
    risk = (random.standard_normal(n)[customer] + random.standard_normal(n)) / np.sqrt(2)
    shared = random.standard_normal(n)
    likeness = {name: 0.0 if name == RULES else world.likeness for name in world.signal}
    scores = {
        name: signal * risk
        + np.sqrt(1 - signal**2)
        * (np.sqrt(likeness[name]) * shared + np.sqrt(1 - likeness[name]) * random.standard_normal(n))
        for name, signal in world.signal.items()
    }
    edges = norm.ppf([world.low_share, 1 - world.high_share])
    rules = np.array([LOW, MEDIUM, HIGH], np.int8)[np.digitize(scores.pop(RULES), edges)]
    return _Drawn(scores, rules, random.random(n) < expit(world.log_odds + world.slope * risk), customer)
