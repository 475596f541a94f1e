"""Default rates of groups of rows, with their intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from consumer.evaluation.outcomes import quantile
from consumer.evaluation.sample import Floats, Mask

Counts = npt.NDArray[np.int64]
Sums = npt.NDArray[Any]


@dataclass(frozen=True)
class Rate:
    """Counts are of rows; the rate is weighted. None where there are no rows."""

    rows: int
    defaults: int
    rate: float | None
    interval_low: float | None
    interval_high: float | None


def rates(
    codes: npt.NDArray[np.integer[Any]], groups: int, defaulted: Mask, weight: Floats, confidence: float
) -> list[Rate]:
    """Of every group 0 … groups-1."""
    return rates_of(
        np.bincount(codes, minlength=groups),
        np.bincount(codes[defaulted], minlength=groups),
        np.bincount(codes, weight, groups),
        np.bincount(codes[defaulted], weight[defaulted], groups),
        np.bincount(codes, np.square(weight), groups),
        confidence,
    )


def rates_of(
    rows: Counts, defaults: Counts, weight: Sums, defaulted_weight: Sums, squares: Sums, confidence: float
) -> list[Rate]:
    """The same of counts and sums by group, with Wilson's interval on the effective number of rows (Kish); `squares`
    are the sums of squared weights.
    """
    with np.errstate(invalid="ignore"):
        share, size = np.minimum(defaulted_weight / weight, 1.0), weight**2 / squares
    low, high = wilson(share, size, confidence)
    return [
        Rate(int(rows[g]), int(defaults[g]), *(float(each[g]) if rows[g] else None for each in (share, low, high)))
        for g in range(len(rows))
    ]


def wilson(rate: Floats, size: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Wilson's score interval of shares (Wilson 1927); `size` may be an effective one, hence not an integer."""
    z2 = quantile(confidence) ** 2
    middle = (rate + z2 / (2 * size)) / (1 + z2 / size)
    half = np.sqrt(z2 * (rate * (1 - rate) / size + z2 / (4 * size**2))) / (1 + z2 / size)
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)
