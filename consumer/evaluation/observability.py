"""What can never be seen: the outcomes of what the rules declined, and how much they could change a ratio."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from consumer.evaluation.ratio import Ratio
from consumer.evaluation.sample import Mask, Sample

FACTOR_OF_FLAGGED = 3.0
"""The chosen range lets declined flags default at most thrice as often as the flags that were approved."""


@dataclass(frozen=True)
class Bound:
    """A ratio, if the unseen flags defaulted at a rate."""

    unseen_rate: float
    ratio: float


@dataclass(frozen=True)
class Observability:
    """Of all rows that a threshold flags, declined and not yet observed ones too. Weighted."""

    flagged: int
    declined: int
    """flags whose outcome can never be seen"""
    pending: int
    """approved flags whose outcome is not known yet"""
    unobservable_share: float | None
    none_defaults: Bound | None
    all_default: Bound | None
    plausible_low: Bound | None
    """the declined flags default like the low band"""
    plausible_high: Bound | None
    """they default at thrice the rate of the flags that were seen, at most all"""


def observability(sample: Sample, flagged: Mask, ratio: Ratio) -> Observability:
    """`sample` and the flags are of all rows, `ratio` is of the evaluated ones.

    Worst-case bounds after Manski (1989): the high band's rate is mixed from that of its seen and of its declined rows.
    The low band is taken as seen. None where the ratio itself is insufficient.
    """
    declined = flagged & ~sample.approved
    total = float(sample.weight[flagged].sum())
    share = float(sample.weight[declined].sum()) / total if total else None
    bounds: list[Bound | None] = [None] * 4
    seen, low = ratio.high.rate, ratio.low.rate
    if share is not None and ratio.estimate is not None and seen is not None and low:
        unseen_rates = (0.0, 1.0, low, min(FACTOR_OF_FLAGGED * seen, 1.0))
        bounds = [Bound(unseen, (share * unseen + (1 - share) * seen) / low) for unseen in unseen_rates]
    return Observability(
        int(np.count_nonzero(flagged)),
        int(np.count_nonzero(declined)),
        int(np.count_nonzero(flagged & sample.approved & ~sample.observed)),
        share,
        *bounds,
    )
