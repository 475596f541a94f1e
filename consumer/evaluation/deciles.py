"""A score's tenths, from the highest scores to the lowest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from consumer.evaluation.outcomes import Outcomes
from consumer.evaluation.rates import Rate, rates
from consumer.evaluation.sample import Floats, Positions

TENTHS = 10


@dataclass(frozen=True)
class Decile:
    """Of the rows in it, and (`capture`, `cumulative_ratio`) of those down to its end."""

    decile: int
    """1 holds the highest scores"""
    rate: Rate
    mean_score: float
    amount: float
    lift: float | None
    """its default rate over that of all rows"""
    capture: float | None
    """share of all defaults that it and the deciles above hold"""
    cumulative_ratio: float | None
    """default rate down to its end over that of the rest; None where the rest has no default"""


def deciles(
    scores: Floats, positions: Positions, outcomes: Outcomes, amount: Floats, confidence: float
) -> list[Decile]:
    """Ten bins of equal counts (of as many rows as there are, when fewer than ten)."""
    n = len(positions)
    bins = min(TENTHS, n)
    if not bins:
        return []
    codes = np.empty(n, np.int64)
    codes[positions] = np.arange(n) * bins // n
    found = rates(codes, bins, outcomes.defaulted, outcomes.weight, confidence)
    total = np.bincount(codes, outcomes.weight, bins)
    bad = np.bincount(codes, outcomes.weight * outcomes.defaulted, bins)
    score = np.bincount(codes, outcomes.weight * scores, bins) / total
    money = np.bincount(codes, outcomes.weight * amount, bins)
    bad_upto, total_upto = np.cumsum(bad), np.cumsum(total)
    bad_from, total_from = (np.cumsum(each[::-1])[::-1] for each in (bad, total))
    bads, everything = float(bad_upto[-1]), float(total_upto[-1])
    return [
        Decile(
            at + 1,
            found[at],
            float(score[at]),
            float(money[at]),
            float(bad[at] / total[at]) / (bads / everything) if bads else None,
            float(bad_upto[at]) / bads if bads else None,
            float(bad_upto[at] / total_upto[at]) / float(bad_from[at + 1] / total_from[at + 1])
            if at < bins - 1 and bad_from[at + 1]
            else None,
        )
        for at in range(bins)
    ]
