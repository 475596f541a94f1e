"""Bands of high and low risk: the rules' own, and every model's at the rules' shares.

A discrimination ratio depends on how many rows are flagged, so models are compared at one share: a model's high band is
as large as the rules', and so is its low band. Where a band begins follows from scores and weights alone, never from an
outcome: thresholds that are picked on the labels they are judged by make any score look better than it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from consumer.evaluation.sample import Floats, Mask, Positions
from consumer.scoring.rules import RISK_FLAGS

Bands = npt.NDArray[np.int8]
"""Indices into RISK_FLAGS."""
Order = npt.NDArray[np.uint64]

LOW, HIGH = RISK_FLAGS.index("low"), RISK_FLAGS.index("high")
MEDIUM = RISK_FLAGS.index("medium")


def descending(scores: Floats, order: Order) -> Positions:
    """Positions of the rows from the highest score to the lowest; of equal scores the smaller `order` comes first."""
    positions = np.argsort(-scores)
    ordered = scores[positions]
    equal = ordered[1:] == ordered[:-1]
    tied = np.zeros(len(scores), np.bool_)
    tied[1:] |= equal
    tied[:-1] |= equal
    rows = positions[tied]  # few, so that the slower sort by two keys is left to them
    positions[tied] = rows[np.lexsort((order[rows], -scores[rows]))]
    return positions


@dataclass(frozen=True)
class Threshold:
    """The last row inside the high band, which other rows are compared with."""

    score: float
    order: int

    def reached(self, scores: Floats, order: Order) -> Mask:
        """Rows that stand where it does, or higher."""
        reached: Mask = (scores > self.score) | ((scores == self.score) & (order <= np.uint64(self.order)))
        return reached


@dataclass(frozen=True)
class Banding:
    """The bands of the rows, and the last row of the high band; None when that is empty, or follows from no score."""

    bands: Bands
    high: Threshold | None

    def flags(self, scores: Floats, order: Order) -> Mask:
        """Which of any rows, evaluated or not, the high band takes; a missing score is never flagged."""
        return self.high.reached(scores, order) if self.high else np.zeros(len(scores), np.bool_)


def match(positions: Positions, scores: Floats, order: Order, weight: Floats, rules: Bands) -> Banding:
    """A model's bands at the shares of the rules' bands, from its rows in descending order.

    With weights the shares of the population are matched, to within half a row; without, the numbers of rows are equal.
    """
    n = len(positions)
    in_order = weight[positions]
    middle = np.cumsum(in_order) - in_order / 2
    highs = int(np.searchsorted(middle, weight[rules == HIGH].sum(), side="right"))
    first_low = int(np.searchsorted(middle, weight.sum() - weight[rules == LOW].sum(), side="left"))
    first_low = max(first_low, highs)
    bands = np.full(n, MEDIUM, np.int8)
    bands[positions[:highs]] = HIGH
    bands[positions[first_low:]] = LOW
    last = positions[highs - 1]
    return Banding(bands, Threshold(float(scores[last]), int(order[last])) if highs else None)
