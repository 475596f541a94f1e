"""Rules and models at other shares than the rules' own: everybody flags the same share of the evaluated rows, and
ratio, lift and money are those of that share.

They follow from the sums of `evaluation/curves.py`. At the rules' own share they are the figures of `evaluate`, from
the same rows and by the same formulas.

Intervals are those of rows (`evaluation/ratio.py`, `evaluation/money.py`), with the error widened by what customers
with several rows do to it at the rules' own share, where `evaluate` measured both (Kish's design effect). At that share
they are hence the intervals of `evaluate`; elsewhere they suppose that customers matter as much.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from consumer.evaluation.curves import SUMS, Shares, Sums
from consumer.evaluation.money import Economics
from consumer.evaluation.outcomes import quantile
from consumer.evaluation.rates import Rate, rates_of
from consumer.evaluation.ratio import ends

_ROWS, _DEFAULTS, _WEIGHT, _BAD, _SQUARES, _BAD_SQUARES, _STAKE, _LOST, _STAKE_SQUARES, _LOST_SQUARES = range(len(SUMS))


@dataclass(frozen=True)
class AtShare:
    """One scorer that flags a share of the rows."""

    scorer: str
    flagged: int
    high: Rate
    low: Rate
    ratio: float | None
    """None where a band has too few defaults (`why`)"""
    ratio_low: float | None
    ratio_high: float | None
    why: str | None
    lift: float | None
    """default rate of the high band over that of all rows"""
    lift_low: float | None
    lift_high: float | None
    """by the interval of the high band's rate; that of all rows is taken as known"""
    loss_avoided: float
    margin_forgone: float
    opportunity: float
    opportunity_low: float | None
    opportunity_high: float | None
    """None where nothing bounds it, as with `ratio_high`: of one customer nothing can be inferred"""


@dataclass(frozen=True)
class Thresholds:
    """Everybody at every share."""

    sums: Shares
    minimum_defaults: int
    confidence: float
    economics: Economics
    """the policy's"""
    ratio_effect: dict[str, float]
    """By scorer: variance of ln ratio in `evaluate`, over that of independent rows; 1 where it gave none, infinite of
    one customer.
    """
    money_effect: dict[str, float]

    @property
    def shares(self) -> tuple[float, ...]:
        """Of the weight of all rows; the rules' own among them."""
        return self.sums.shares

    @property
    def own(self) -> int:
        """Where in `shares` the rules' own is."""
        return self.sums.own

    def at(self, place: int, economics: Economics | None = None) -> list[AtShare]:
        """Everybody at `shares[place]`; under the policy's economics unless told others."""
        return [self._at(scorer, place, economics or self.economics) for scorer in self.sums.high]

    def _at(self, scorer: str, place: int, economics: Economics) -> AtShare:
        high, low = self.sums.high[scorer][place], self.sums.low[scorer][place]
        low_rate, high_rate = _rates(np.stack([low, high]), self.confidence)
        ratio, ratio_low, ratio_high = self._ratio(scorer, high, low)
        everybody = _rate(self.sums.total)
        lift, lift_low, lift_high = (
            each / everybody if each is not None and everybody else None
            for each in (high_rate.rate, high_rate.interval_low, high_rate.interval_high)
        )
        opportunity = _opportunity(high, economics)
        variance = _widened(_money_variance(high, self.sums.total, economics), self.money_effect[scorer])
        half = quantile(self.confidence) * math.sqrt(variance)
        return AtShare(
            scorer=scorer,
            flagged=int(high[_ROWS]),
            high=high_rate,
            low=low_rate,
            ratio=ratio,
            ratio_low=ratio_low,
            ratio_high=ratio_high,
            why=self._lacking(high, low),
            lift=lift,
            lift_low=lift_low,
            lift_high=lift_high,
            loss_avoided=economics.loss_given_default * float(high[_LOST]),
            margin_forgone=economics.margin * float(high[_STAKE] - high[_LOST]),
            opportunity=opportunity,
            opportunity_low=_bound(opportunity - half),
            opportunity_high=_bound(opportunity + half),
        )

    def _ratio(self, scorer: str, high: Sums, low: Sums) -> tuple[float | None, float | None, float | None]:
        if self._lacking(high, low):
            return None, None, None
        logarithm = math.log(_rate(high) / _rate(low))
        error = math.sqrt(_widened(_log_variance(high, low), self.ratio_effect[scorer]))
        ratio_low, ratio_high = ends(logarithm, error, self.confidence)
        return math.exp(logarithm), ratio_low, _bound(ratio_high)

    def _lacking(self, high: Sums, low: Sums) -> str | None:
        lacking = [
            f"{int(band[_DEFAULTS])} defaults in the {name} band, {self.minimum_defaults} are wanted"
            for name, band in (("high", high), ("low", low))
            if band[_DEFAULTS] < max(self.minimum_defaults, 1)
        ]
        return "insufficient: " + "; ".join(lacking) if lacking else None


def thresholds(told: Mapping[str, Any], sums: Shares) -> Thresholds:
    """Of an evaluation (of `dossier.document`) and the sums of its rows."""
    policy, evaluation, scorers = told["terms"]["policy"], told["evaluation"], list(sums.high)
    of_one = evaluation["rows"]["customers"] < 2
    effect = math.inf if of_one else 1.0
    found = Thresholds(
        sums,
        policy["minimum_defaults"],
        1 - policy["alpha"],
        Economics(**policy["economics"]),
        dict.fromkeys(scorers, effect),
        dict.fromkeys(scorers, effect),
    )
    if not of_one:
        for name in scorers:
            _widen(found, name, evaluation["scorers"][name])
    return found


def _rates(sums: Sums, confidence: float) -> list[Rate]:
    rows, defaults = (sums[:, at].astype(np.int64) for at in (_ROWS, _DEFAULTS))
    return rates_of(rows, defaults, sums[:, _WEIGHT], sums[:, _BAD], sums[:, _SQUARES], confidence)


def _rate(sums: Sums) -> float:
    return float(sums[_BAD] / sums[_WEIGHT]) if sums[_WEIGHT] else 0.0


def _widened(variance: float, effect: float) -> float:
    return math.inf if effect == math.inf else variance * effect


def _bound(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _log_variance(high: Sums, low: Sums) -> float:
    """Of ln ratio: Σ of w² (y/d - 1/n)² over both bands."""
    found = sum(
        float(band[_BAD_SQUARES] * (1 / band[_BAD] ** 2 - 2 / (band[_BAD] * band[_WEIGHT])))
        + float(band[_SQUARES] / band[_WEIGHT] ** 2)
        for band in (high, low)
    )
    return max(found, 0.0)  # where all rows of both bands defaulted nothing but a rounding is left


def _opportunity(high: Sums, economics: Economics) -> float:
    return float(economics.loss_given_default * high[_LOST] - economics.margin * (high[_STAKE] - high[_LOST]))


def _money_variance(high: Sums, total: Sums, economics: Economics) -> float:
    """Of the sum of what each row gains, as if drawn one by one."""
    rows = float(total[_ROWS])
    if rows < 2:
        return math.inf
    squares = economics.loss_given_default**2 * high[_LOST_SQUARES] + economics.margin**2 * (
        high[_STAKE_SQUARES] - high[_LOST_SQUARES]
    )
    return max(rows / (rows - 1) * float(squares - _opportunity(high, economics) ** 2 / rows), 0.0)


def _widen(found: Thresholds, scorer: str, figures: dict[str, Any]) -> None:
    """Note how `evaluate`'s errors at the rules' own share compare with those of rows."""
    high, low = found.sums.high[scorer][found.own], found.sums.low[scorer][found.own]
    error = figures["ratio"]["standard_error"]
    if error is not None and (by_rows := _log_variance(high, low)) > 0:
        found.ratio_effect[scorer] = error**2 / by_rows
    top, middle = figures["money"]["interval_high"], figures["money"]["opportunity"]
    by_rows = _money_variance(high, found.sums.total, found.economics)
    if top is not None and 0 < by_rows < math.inf:
        found.money_effect[scorer] = ((top - middle) / quantile(found.confidence)) ** 2 / by_rows
