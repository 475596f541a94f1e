"""How alike the rules' and the models' views of the same rows are, and where exactly one model stands alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from consumer.evaluation.bands import HIGH, Banding, Bands
from consumer.evaluation.outcomes import Outcomes
from consumer.evaluation.rates import Rate, rates
from consumer.evaluation.sample import Floats, Positions, Sample


@dataclass(frozen=True)
class Agreement:
    """Of two scorers: flags are their high bands."""

    a: str
    b: str
    equal_flags: float
    """weighted share of rows that both flag or both do not"""
    kappa: float | None
    """Cohen's (1960): agreement beyond chance; None where neither flags anything"""
    spearman: float | None
    """rank correlation of the scores, ties by mid-ranks; None where a score is constant"""


@dataclass(frozen=True)
class Lonely:
    """The rows that one model flags and no other model does."""

    model: str
    rate: Rate
    amount: float
    examples: list[int]
    """positions in the sample, the farthest above the threshold first"""
    distances: list[float]
    """score - threshold of the examples"""


def agreements(bands: Mapping[str, Bands], ranks: Mapping[str, Floats], weight: Floats) -> list[Agreement]:
    """Of every pair; none without rows."""
    if not len(weight):
        return []
    correlation = _correlations(list(ranks.values()))
    names = list(bands)
    flags = {name: each == HIGH for name, each in bands.items()}
    found = []
    for a, b in combinations(range(len(names)), 2):
        joint = np.bincount(2 * flags[names[a]] + flags[names[b]], weight, 4).reshape(2, 2) / weight.sum()
        equal = float(np.trace(joint))
        chance = float(joint.sum(axis=1) @ joint.sum(axis=0))
        rho = float(correlation[a, b])
        found.append(
            Agreement(
                names[a],
                names[b],
                equal,
                (equal - chance) / (1 - chance) if chance < 1 else None,
                rho if np.isfinite(rho) else None,
            )
        )
    return found


def disagreements(
    sample: Sample,
    bandings: Mapping[str, Banding],
    outcomes: Outcomes,
    positions: Positions,
    examples: int,
    confidence: float,
) -> list[Lonely]:
    """The ledger. `sample` holds the evaluated rows, `positions` say where those stand in the whole one."""
    flags = {model: banding.bands == HIGH for model, banding in bandings.items()}
    times = np.zeros(len(sample), np.int16)
    for flagged in flags.values():
        times += flagged
    ledger = []
    for model, flagged in flags.items():
        rows = np.flatnonzero(flagged & (times == 1))
        threshold = bandings[model].high
        distance = sample.scores[model][rows] - (threshold.score if threshold else 0.0)
        top = np.lexsort((sample.order[rows], -distance))[:examples]
        ledger.append(
            Lonely(
                model,
                rates(np.zeros(len(rows), np.int64), 1, outcomes.defaulted[rows], outcomes.weight[rows], confidence)[0],
                float(sample.amount[rows].sum()),
                positions[rows[top]].tolist(),
                distance[top].tolist(),
            )
        )
    return ledger


def _correlations(ranks: list[Floats]) -> Floats:
    """Pearson's of the ranks, which is Spearman's of the scores; a pair at a time keeps the memory flat."""
    found = np.eye(len(ranks))
    centred = [each - each.mean() for each in ranks]
    with np.errstate(invalid="ignore", divide="ignore"):
        for a, b in combinations(range(len(ranks)), 2):
            product = centred[a] @ centred[b]
            found[a, b] = product / np.sqrt((centred[a] @ centred[a]) * (centred[b] @ centred[b]))
    return found
