"""What each model's policy would have earned or lost against what was decided, on rows whose outcome is known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from consumer.evaluation.bands import HIGH, Bands
from consumer.evaluation.outcomes import Outcomes, quantile
from consumer.evaluation.sample import Floats

SWINGS = (0.5, 1.0, 1.5)
"""Each of the two economics is varied by half of itself."""


class Economics(BaseModel):
    """What a transaction earns when it is repaid, and loses when it is not, as shares of its amount."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    margin: Annotated[float, Field(ge=0, le=1)]
    loss_given_default: Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Scenario:
    """The opportunity under other economics."""

    margin: float
    loss_given_default: float
    opportunity: float


@dataclass(frozen=True)
class Money:
    """Of a policy that declines its high band and leaves every other decision as it was."""

    declined: int
    """observed, hence approved, transactions that it would have declined"""
    loss_avoided: float
    margin_forgone: float
    opportunity: float
    """profit of the policy - profit of what was decided"""
    interval_low: float
    interval_high: float
    sensitivity: list[Scenario]


def money(bands: Bands, amount: Floats, outcomes: Outcomes, economics: Economics, confidence: float) -> Money:
    """A transaction it declines saves LGD · amount if it defaulted, and forgoes margin · amount if it was repaid.

    What was declined in fact stays declined, as nobody knows its outcome. The interval is that of a sum over customers.
    """
    declined = bands == HIGH
    at_stake = np.where(declined, outcomes.weight * amount, 0.0)
    bad = np.where(outcomes.defaulted, at_stake, 0.0)
    lost, repaid = float(bad.sum()), float(at_stake.sum() - bad.sum())
    gains = economics.loss_given_default * bad - economics.margin * (at_stake - bad)
    opportunity = float(gains.sum())
    half = quantile(confidence) * math.sqrt(outcomes.clusters.variance_of_sum(gains))
    scenarios = [
        (economics.margin * margin, min(economics.loss_given_default * loss, 1.0))
        for margin in SWINGS
        for loss in SWINGS
    ]
    return Money(
        int(np.count_nonzero(declined)),
        economics.loss_given_default * lost,
        economics.margin * repaid,
        opportunity,
        opportunity - half,
        opportunity + half,
        [Scenario(margin, loss, loss * lost - margin * repaid) for margin, loss in scenarios],
    )
