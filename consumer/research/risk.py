"""The simulated checkout's risk score, whom it approves, and who then misses a payment.

Public facts these numbers are fitted to: the score weighs credit .3, verification .2, income .2, device .1,
product .1, scenario .1; 5 % default; at risk_score ≥ .55 (3.8 % of transactions) default is 3.0 times as frequent as
below, at ≥ .50 (9.5 %) 2.5 times; missed payments fall on day 14, 28, … 14×installments. All else is invented.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from consumer.research.population import Codes, Floats, Population

Mask = npt.NDArray[np.bool_]

# invented: each component's risk, worst to best as the features rank it; the score's two public shares hold
CREDIT_RISK = np.array([0.78, 0.53, 0.30, 0.12])
INCOME_RISK = np.array([0.70, 0.50, 0.40, 0.30, 0.15])
VERIFICATION_RISK = np.array([0.85, 0.45, 0.15])
TRUSTED_DEVICE_RISK, NEW_DEVICE_RISK = 0.2, 0.7
PRODUCT_RISK = np.array([0.15, 0.45, 0.85])
SCENARIO_RISK = np.array([0.80, 0.90, 0.55, 0.25])
SCORE_NOISE = 0.025

LEVEL_BOUNDS = np.array([0.3, 0.6, 0.8])
"""A public fact: low < .3 ≤ medium < .6 ≤ high < .8 ≤ very_high."""

# invented: checkout turns away the riskiest, and is least sure near this score
DECLINE_MIDPOINT, DECLINE_WIDTH = 0.66, 0.03
SLIMMEST_CHANCE = 0.05

# fitted to the public default rate and the two public ratios; newness, load and the long plan are invented
LOG_ODDS = -3.41
SLOPE, STEEPER_SLOPE, STEEPER_FROM = 1.9, 5.0, 0.45
NEWNESS_EFFECT, NEWNESS_DAYS = 0.4, 90.0
LOAD_EFFECT = 0.6
LONG_PLAN_EFFECT = 0.03

# invented: trouble comes early rather than late in a plan
MISSED_EARLY, MISSED_LATE = 1.3, 2.2


def risk_score(
    rng: np.random.Generator, population: Population, who: Codes, trusted: Mask, product_risk: Codes, scenario: Codes
) -> Floats:
    """0 (safe) to 1, four digits, for each purchase by customer `who`."""
    score: Floats = (
        0.3 * CREDIT_RISK[population.credit[who]]
        + 0.2 * VERIFICATION_RISK[population.verification[who]]
        + 0.2 * INCOME_RISK[population.income[who]]
        + 0.1 * np.where(trusted, TRUSTED_DEVICE_RISK, NEW_DEVICE_RISK)
        + 0.1 * PRODUCT_RISK[product_risk]
        + 0.1 * SCENARIO_RISK[scenario]
    )
    noisy: Floats = np.clip(score + rng.normal(scale=SCORE_NOISE, size=len(who)), 0.0, 1.0)
    return noisy.round(4)


def approval_propensity(score: Floats) -> Floats:
    """The chance that checkout approves, never none, so that outcomes can be weighted by it."""
    chance: Floats = 1.0 / (1.0 + np.exp((score - DECLINE_MIDPOINT) / DECLINE_WIDTH))
    return chance.clip(SLIMMEST_CHANCE).round(4)


def outcomes(
    rng: np.random.Generator,
    score: Floats,
    frailty: Floats,
    tenure: Codes,
    load: Floats,
    installments: Codes,
    declined: Mask,
    planted: Floats,
) -> dict[str, pa.Array]:
    """Whether the customer will miss a payment, and on which day; null for what checkout declined.

    `load` is the amount's share of the credit limit, `planted` what a simulation adds to the log-odds of default.
    """
    log_odds = (
        LOG_ODDS
        + SLOPE * (score - 0.35)
        + STEEPER_SLOPE * np.maximum(score - STEEPER_FROM, 0)
        + frailty
        + NEWNESS_EFFECT * np.exp(-tenure / NEWNESS_DAYS)
        + LOAD_EFFECT * load
        + LONG_PLAN_EFFECT * (installments - 4)
        + planted
    )
    defaults = rng.random(len(score)) < 1.0 / (1.0 + np.exp(-log_odds))
    missed = np.ceil(rng.beta(MISSED_EARLY, MISSED_LATE, len(score)) * installments).clip(1).astype(np.int64)
    return {
        "will_default": pa.array(defaults, mask=declined),
        "days_to_first_missed_payment": pa.array(14 * missed, mask=~defaults | declined),
    }
