"""The simulated customers: who they are, what they shop with, and how often they come back.

Every number here is invented: plausible, and taken from no data set.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

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
# invented: the steps of a small lender's credit line, from a first purchase to a good old customer
CREDIT_LIMITS = np.array([300, 600, 1200, 2000, 3500])
DEVICES_EACH = 3

# invented: a young clientele of middling credit and income, mostly verified
_CREDIT_SHARES = (0.17, 0.27, 0.33, 0.23)
_INCOME_SHARES = (0.12, 0.24, 0.30, 0.21, 0.13)
_VERIFICATION_SHARES = (0.06, 0.20, 0.74)
_AGE_SHARES = (0.27, 0.34, 0.20, 0.12, 0.07)
_ADDRESS_SHARES = (0.71, 0.18, 0.11)

# invented: how strongly each follows a customer's hidden soundness (a correlation)
_CREDIT_BOND, _INCOME_BOND, _VERIFICATION_BOND, _AGE_BOND = 0.45, 0.35, 0.25, 0.2

# invented: phones first, the first device known best
_DEVICE_SHARES = (0.22, 0.70, 0.08)
_DEVICES_TRUSTED = (0.94, 0.75, 0.5)

# invented: a few customers buy very often; those we know joined within three years; some hide a weakness
_ACTIVITY_SHAPE = 0.9
_LONGEST_TENURE_DAYS = 1_100
_FRAILTY_SPREAD = 0.6


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

    credit = _ranked(related(_CREDIT_BOND), _CREDIT_SHARES)
    income = _ranked(related(_INCOME_BOND), _INCOME_SHARES)
    weights = rng.gamma(_ACTIVITY_SHAPE, size=customers)
    shape = (customers, DEVICES_EACH)
    return Population(
        activity=np.cumsum(weights) / weights.sum(),
        credit=credit,
        income=income,
        verification=_ranked(related(_VERIFICATION_BOND), _VERIFICATION_SHARES),
        age=_ranked(related(_AGE_BOND), _AGE_SHARES),
        address=rng.choice(len(ADDRESS_STABILITY), customers, p=_ADDRESS_SHARES),
        state=rng.choice(len(STATES), customers, p=_state_shares()),
        limit=CREDIT_LIMITS[np.clip((credit + income + rng.integers(-1, 3, customers)) // 2, 0, 4)],
        joined=rng.integers(0, _LONGEST_TENURE_DAYS, customers),
        frailty=rng.normal(scale=_FRAILTY_SPREAD, size=customers),
        device_type=rng.choice(len(DEVICE_TYPES), shape, p=_DEVICE_SHARES),
        device_os=rng.integers(0, 12, shape),
        device_trusted=rng.random(shape) < _DEVICES_TRUSTED,
    )


def _ranked(values: Floats, shares: tuple[float, ...]) -> Codes:
    """Codes 0, 1, … so that the lowest `shares[0]` of standard normal `values` are 0, and so on."""
    cuts = [NormalDist().inv_cdf(below) for below in np.cumsum(shares)[:-1]]
    return np.searchsorted(cuts, values).astype(np.int64)


def _state_shares() -> Floats:
    """Fewer customers in states further down a fixed shuffled order: uneven, as a real book is."""
    order = np.random.default_rng(1787).permutation(len(STATES))
    shares = 1.0 / (order + 4.0)
    normalised: Floats = shares / shares.sum()
    return normalised
