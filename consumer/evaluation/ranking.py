"""How well a score orders rows: AUC with its interval, Gini, KS, and differences of two AUCs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from consumer.evaluation.outcomes import Outcomes, quantile
from consumer.evaluation.sample import Floats, Mask, Positions


@dataclass(frozen=True)
class Ranking:
    """None where no row defaulted, or all did."""

    auc: float | None
    auc_low: float | None
    auc_high: float | None
    gini: float | None
    """2 AUC - 1"""
    ks: float | None
    """Kolmogorov-Smirnov: largest distance of the scores' distributions among defaulters and others"""


@dataclass(frozen=True)
class AucDifference:
    """AUC of A - AUC of B on the same rows. Secondary: between near clones its null is not normal and it has little
    power (Demler, Pencina & D'Agostino 2012).
    """

    estimate: float
    interval_low: float
    interval_high: float
    p: float


def tie_groups(ascending: Floats) -> tuple[Positions, Positions]:
    """For scores in ascending order: the group of equal scores each row is in, and where each group ends."""
    changes = ascending[1:] != ascending[:-1]
    ends = np.append(np.flatnonzero(changes), len(ascending) - 1)
    group = np.zeros(len(ascending), np.int64)
    np.cumsum(changes, out=group[1:])
    return group, ends


def mid_ranks(scores: Floats, positions: Positions) -> Floats:
    """Ranks from 1, equal scores sharing their mean rank, from the rows in descending order."""
    ascending = positions[::-1]
    group, ends = tie_groups(scores[ascending])
    starts = np.append(0, ends[:-1] + 1)
    ranks = np.empty(len(scores))
    ranks[ascending] = ((starts + ends) / 2 + 1)[group]
    return ranks


def ranking(
    scores: Floats, positions: Positions, outcomes: Outcomes, confidence: float
) -> tuple[Ranking, Floats | None]:
    """The figures, and every row's influence on the AUC.

    AUC as the weighted share of (defaulter, other) pairs in the right order, ties by half. Its influence is made of
    DeLong's placement values (DeLong, DeLong & Clarke-Pearson 1988, by ranks as in Sun & Xu 2014), added up by customer
    (Obuchowski 1997); without weights and clusters the interval is DeLong's.
    """
    if outcomes.defaulted.all() or not outcomes.defaulted.any():
        return Ranking(None, None, None, None, None), None
    ascending = positions[::-1]
    bad = outcomes.defaulted[ascending]
    weight = outcomes.weight[ascending]
    group, ends = tie_groups(scores[ascending])
    bad_upto = np.cumsum(np.where(bad, weight, 0.0))[ends]
    good_upto = np.cumsum(np.where(bad, 0.0, weight))[ends]
    bads, goods = float(bad_upto[-1]), float(good_upto[-1])
    placement = np.where(bad, (_middle(good_upto) / goods)[group], 1 - (_middle(bad_upto) / bads)[group])
    auc = float(weight[bad] @ placement[bad]) / bads
    influence = np.empty(len(scores))
    influence[ascending] = weight * (placement - auc) * np.where(bad, _unbiased(bad) / bads, _unbiased(~bad) / goods)
    half = quantile(confidence) * math.sqrt(outcomes.clusters.variance(influence))
    ks = float(np.abs(good_upto / goods - bad_upto / bads).max())
    return Ranking(auc, max(auc - half, 0.0), min(auc + half, 1.0), 2 * auc - 1, ks), influence


def auc_difference(
    a: tuple[float, Floats], b: tuple[float, Floats], outcomes: Outcomes, confidence: float
) -> AucDifference:
    """Of two AUCs with their influences, paired by row."""
    estimate = a[0] - b[0]
    error = math.sqrt(outcomes.clusters.variance(a[1] - b[1]))
    half = quantile(confidence) * error
    p = float(2 * ndtr(-abs(estimate) / error)) if error else 1.0
    return AucDifference(estimate, estimate - half, estimate + half, p)


def _middle(upto: Floats) -> Floats:
    """What lies below each group, and half of what is in it."""
    below = np.append(0.0, upto[:-1])
    return (below + upto) / 2


def _unbiased(side: Mask) -> float:
    """DeLong divides by m - 1 within each class."""
    m = int(np.count_nonzero(side))
    return math.sqrt(m / (m - 1)) if m > 1 else 1.0
