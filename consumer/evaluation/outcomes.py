"""What became of the evaluated rows, and how far a figure made from them may be trusted.

Every figure that is compared here (a ratio, an AUC, a sum of money) is a smooth function of sums over the rows. To
first order it moves by `influence[i]` when row i counts a little more, so its variance is that of a sum (Taylor
linearisation: Binder, "On the variances of asymptotically normal estimators from complex surveys", 1983). Rows of one
customer are not independent: their influences are added up before they are squared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from consumer.evaluation.sample import Floats, Mask, Sample


class Clusters:
    """Which rows belong to one customer."""

    def __init__(self, customer: npt.NDArray[np.int64]) -> None:
        distinct, codes = np.unique(customer, return_inverse=True)
        self.count = len(distinct)
        self.rows = len(customer)
        self._codes = codes

    def sums(self, values: Floats) -> Floats:
        """The values added up by customer."""
        if self.count == self.rows:
            return values
        added: Floats = np.bincount(self._codes, values, self.count).astype(np.float64, copy=False)
        return added

    def variance(self, influence: Floats) -> float:
        """Cluster-robust variance; infinite for a single customer, of whom nothing can be inferred.

        The factor C/(C-1) · (n-1)/n (MacKinnon & White 1985's HC1 for clusters) is 1 when every row is a cluster of its
        own: the formulas for independent rows (Katz' for a ratio, DeLong's for an AUC) then hold exactly.
        """
        if self.count < 2:
            return math.inf
        factor = self.count / (self.count - 1) * (self.rows - 1) / self.rows
        sums = self.sums(influence)
        return factor * float(sums @ sums)

    def variance_of_sum(self, values: Floats) -> float:
        """Variance of Σ values over customers drawn as these were: C times the variance of a customer's sum."""
        if self.count < 2:
            return math.inf
        return self.count * float(self.sums(values).var(ddof=1))


@dataclass(frozen=True)
class Outcomes:
    """Of rows whose outcome is known."""

    defaulted: Mask
    weight: Floats
    clusters: Clusters

    @classmethod
    def of(cls, sample: Sample) -> Outcomes:
        """Of a sample that holds observed rows only."""
        return cls(sample.defaulted, sample.weight, Clusters(sample.customer))


def quantile(confidence: float) -> float:
    """The standard normal's two-sided quantile: 1.96 for 0.95."""
    return float(ndtri((1 + confidence) / 2))
