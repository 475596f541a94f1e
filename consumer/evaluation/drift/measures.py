"""How far two distributions over the same bins are apart, and intervals of shares and counts.

Distances that scipy has are scipy's; the population stability index it has not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2, norm, wasserstein_distance

from consumer.evaluation.drift.reference import Bins, Counts, Floats, Share


@dataclass(frozen=True)
class Stability:
    """The population stability index, and what it exceeds by chance alone with probability alpha."""

    psi: float
    critical: float


def stability(expected: Counts, observed: Counts, alpha: float) -> Stability:
    """PSI = Σ (q−p)·ln(q/p) with shares (count+½)/(n+½B), and Yurdakul's (2018) critical value
    χ²(B−1, 1−alpha)·(1/N+1/M). Cells that are empty on both sides are left out: they say nothing.
    """
    used = (expected > 0) | (observed > 0)
    expected, observed = expected[used], observed[used]
    p, q = smoothed(expected), smoothed(observed)
    chance = chi2.ppf(1 - alpha, len(p) - 1) if len(p) > 1 else 0.0
    return Stability(
        psi=float(np.sum((q - p) * np.log(q / p))),
        critical=float(chance * (1 / expected.sum() + 1 / observed.sum())),
    )


def smoothed(counts: Counts) -> Floats:
    """Shares that are never 0, so that a logarithm can be taken of them."""
    shares: Floats = (counts + 0.5) / (counts.sum() + 0.5 * len(counts))
    return shares


def jensen_shannon(expected: Counts, observed: Counts) -> float:
    """The Jensen-Shannon distance, base 2: 0 for equal shares, 1 for nothing in common."""
    return float(jensenshannon(expected, observed, base=2))


def scaled_wasserstein(bins: Bins, expected: Counts, observed: Counts, sigma: float) -> float | None:
    """How far the mass has to be moved, from bin middle to bin middle, in standard deviations of training.

    What lies outside the bins stands on their edge, so a move beyond them is told as smaller than it is. None where
    either side has no number.
    """
    middles = bins.middles
    p, q = expected[: len(middles)], observed[: len(middles)]
    if not p.sum() or not q.sum() or sigma <= 0:
        return None
    return float(wasserstein_distance(middles, middles, p, q)) / sigma


def wilson(share: Share, z: float) -> tuple[float, float]:
    """Wilson's (1927) score interval of a share."""
    p, n = share.value, share.rows
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def difference_of_shares(now: Share, before: Share, alpha: float) -> tuple[float, float]:
    """Newcombe's (1998) interval of `now` − `before`, made of Wilson's."""
    z = float(norm.ppf(1 - alpha / 2))
    (low_now, high_now), (low_before, high_before) = wilson(now, z), wilson(before, z)
    difference = now.value - before.value
    return (
        difference - math.hypot(now.value - low_now, high_before - before.value),
        difference + math.hypot(high_now - now.value, before.value - low_before),
    )


def poisson_interval(observed: int, alpha: float) -> tuple[float, float]:
    """The exact interval of a Poisson mean of which `observed` events were seen (Garwood, 1936)."""
    low = chi2.ppf(alpha / 2, 2 * observed) / 2 if observed else 0.0
    return float(low), float(chi2.ppf(1 - alpha / 2, 2 * observed + 2) / 2)
