"""How often seasons under a policy end wrongly: a model that is no better promoted, a better one not found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from scipy.stats import binomtest

from consumer.evaluation.policy import Policy, Targets
from consumer.evaluation.sample import RULES
from consumer.evaluation.simulation import World, frequencies
from consumer.research.season import TAUGHT
from consumer.research.training import ENSEMBLE, candidates

MODELS = (*candidates(0), ENSEMBLE)
AS_GOOD_AS_THE_RULES, BETTER = 0.4, 0.62
"""How a score correlates with the risk: that gives a discrimination ratio near 2.5, or near 4."""


@dataclass(frozen=True)
class Share:
    """How many of so many seasons, with the exact (Clopper-Pearson) 95 % interval of the share."""

    count: int
    seasons: int
    low: float
    high: float

    @classmethod
    def of(cls, count: int, seasons: int) -> Share:
        interval = binomtest(count, seasons).proportion_ci(0.95, "exact")
        return cls(count, seasons, float(interval.low), float(interval.high))

    @property
    def estimate(self) -> float:
        return self.count / self.seasons


@dataclass(frozen=True)
class Power:
    """Of a policy, over all its looks."""

    false_promotions: Share
    """Seasons of four models that are as good as the rules, after which one was promoted."""
    found: Share
    """Seasons in which TAUGHT is better than all others, after which it was promoted."""
    wrong_one: Share
    """Of the same seasons those after which another was."""


def power(policy: Policy, targets: Targets, seeds: int, advance: Callable[[], None] = lambda: None) -> Power:
    """Play so many seasons of both kinds. `advance` is called twice a seed."""
    alike = dict.fromkeys((RULES, *MODELS), AS_GOOD_AS_THE_RULES)

    def played(world: World) -> tuple[int, int]:
        found = frequencies(world, policy, targets, _seeds(seeds, advance))
        return found.promoted[TAUGHT], found.promoted.total() - found.promoted[TAUGHT]

    false = sum(played(World(alike)))
    right, wrong = played(World(alike | {TAUGHT: BETTER}))
    return Power(*(Share.of(count, seeds) for count in (false, right, wrong)))


def _seeds(count: int, advance: Callable[[], None]) -> Iterator[int]:
    for seed in range(count):
        advance()
        yield seed
