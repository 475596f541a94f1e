"""The simulated customers: who they are, what they shop with, and how often they come back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from consumer.research.catalog import DEVICE_TYPES

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# fmt: off
STATES = (
    "AL", "AK", "AZ", "AR", "CA", "CO", "CT", "DE", "DC", "FL", "GA", "HI", "ID", "IL", "IN", "IA",
    "KS", "KY", "LA", "ME", "MD", "MA", "MI", "MN", "MS", "MO", "MT", "NE", "NV", "NH", "NJ", "NM",
    "NY", "NC", "ND", "OH", "OK", "OR", "PA", "RI", "SC", "SD", "TN", "TX", "UT", "VT", "VA", "WA",
    "WV", "WI", "WY",
)
# fmt: on
ADDRESS_STABILITY = ("stable", "new", "frequent_mover")
CREDIT_LIMITS = np.array([500, 1000, 1500, 2500, 5000])
DEVICES_EACH = 3

_CREDIT_SHARES = (0.15, 0.34, 0.35, 0.16)
_INCOME_SHARES = (0.15, 0.28, 0.23, 0.18, 0.16)
_VERIFICATION_SHARES = (0.10, 0.30, 0.60)
_AGE_SHARES = (0.14, 0.25, 0.22, 0.19, 0.20)


@dataclass(frozen=True)
class Population:
    """Columns over customers. Category columns hold codes into `features.ORDINAL` or the tuples of this
    module.
    """

    activity: Floats
    """Cumulative share of all purchases, ending at 1: most customers buy a few times, some very often."""
    credit: Codes
    income: Codes
    verification: Codes
    age: Codes
    address: Codes
    state: Codes
    limit: Codes
    joined: Codes
    """Days between joining and the first simulated day."""
    frailty: Floats
    """What no feature shows: a customer's own tendency to miss payments, in log-odds."""
    device_type: Codes
    """customers × DEVICES_EACH"""
    device_os: Codes
    """customers × DEVICES_EACH, code into the systems of that device type"""
    device_trusted: npt.NDArray[np.bool_]
    """customers × DEVICES_EACH"""


def make_population(rng: np.random.Generator, customers: int) -> Population:
    """`customers` people whose credit, income and verification hang together through one hidden soundness."""
    soundness = rng.normal(size=customers)

    def related(strength: float) -> Floats:
        mixed: Floats = strength * soundness + np.sqrt(1 - strength**2) * rng.normal(size=customers)
        return mixed

    credit = _ranked(related(0.3), _CREDIT_SHARES)
    income = _ranked(related(0.25), _INCOME_SHARES)
    weights = rng.gamma(0.7, size=customers)
    shape = (customers, DEVICES_EACH)
    return Population(
        activity=np.cumsum(weights) / weights.sum(),
        credit=credit,
        income=income,
        verification=_ranked(related(0.2), _VERIFICATION_SHARES),
        age=_ranked(related(0.15), _AGE_SHARES),
        address=rng.choice(len(ADDRESS_STABILITY), customers, p=(0.6, 0.22, 0.18)),
        state=rng.choice(len(STATES), customers, p=_state_shares()),
        limit=CREDIT_LIMITS[np.clip((credit + income + rng.integers(-2, 3, customers)) // 2, 0, 4)],
        joined=rng.integers(0, 730, customers),
        frailty=rng.normal(scale=0.5, size=customers),
        device_type=rng.choice(len(DEVICE_TYPES), shape, p=(0.30, 0.56, 0.14)),
        device_os=rng.integers(0, 12, shape),
        device_trusted=rng.random(shape) < (0.99, 0.95, 0.85),
    )


def _ranked(values: Floats, shares: tuple[float, ...]) -> Codes:
    """Codes 0, 1, … so that the lowest `shares[0]` of standard normal `values` are 0, and so on."""
    cuts: Any = norm.ppf(np.cumsum(shares)[:-1])
    return np.searchsorted(cuts, values).astype(np.int64)


def _state_shares() -> Floats:
    """Fewer customers in states further down a fixed shuffled order: uneven, as a real book is."""
    order = np.random.default_rng(51).permutation(len(STATES))
    shares = 1.0 / (order + 8.0)
    normalised: Floats = shares / shares.sum()
    return normalised
