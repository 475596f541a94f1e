"""Rules and models at other shares than the rules' own: everybody flags the same share of the evaluated rows, and
ratio, lift and money are those of that share.

At the rules' own share these are the figures of `evaluate`, from the same rows and by the same formulas. Elsewhere the
rules flag by their risk score. The low band keeps the rules' share of it, so that only the high band moves; it bounds
how far the slider goes.

Intervals are those of rows (`evaluation/ratio.py`, `evaluation/money.py`), with the error widened by what customers
with several rows do to it at the rules' own share, where `evaluate` measured both (Kish's design effect). At that share
they are hence the intervals of `evaluate`; elsewhere they suppose that customers matter as much.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from clickhouse_connect.driver.client import Client

from consumer.errors import NothingToEvaluate
from consumer.evaluation.money import Economics
from consumer.evaluation.outcomes import quantile
from consumer.evaluation.rates import Rate, rates_of
from consumer.evaluation.ratio import ends
from consumer.evaluation.sample import RULES, Floats
from consumer.scoring.rules import RISK_FLAGS
from consumer.views.buckets import FLAGS, SUMS, Buckets, Scored, Sums, read_inside
from consumer.views.evaluated import Document

STEP = 0.005
_HIGHEST_SHARE = 0.5
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
    opportunity_low: float
    opportunity_high: float


@dataclass(frozen=True)
class Thresholds:
    """Sums over the bands of every scorer at every share: small, however many rows there are."""

    shares: tuple[float, ...]
    """Of the weight of all rows; the rules' own among them."""
    own: int
    """Where in `shares` the rules' own is."""
    total: Sums
    high: dict[str, Sums]
    """(shares, SUMS) by scorer: `rules`, then the models"""
    low: dict[str, Sums]
    minimum_defaults: int
    confidence: float
    economics: Economics
    """the policy's"""
    ratio_effect: dict[str, float]
    """By scorer: variance of ln ratio in `evaluate`, over that of independent rows; 1 where it gave none."""
    money_effect: dict[str, float]

    def at(self, place: int, economics: Economics | None = None) -> list[AtShare]:
        """Everybody at `shares[place]`; under the policy's economics unless told others."""
        return [self._at(scorer, place, economics or self.economics) for scorer in self.high]

    def _at(self, scorer: str, place: int, economics: Economics) -> AtShare:
        high, low = self.high[scorer][place], self.low[scorer][place]
        low_rate, high_rate = _rates(np.stack([low, high]), self.confidence)
        ratio, ratio_low, ratio_high = self._ratio(scorer, high, low)
        everybody = _rate(self.total)
        lift, lift_low, lift_high = (
            each / everybody if each is not None and everybody else None
            for each in (high_rate.rate, high_rate.interval_low, high_rate.interval_high)
        )
        opportunity = _opportunity(high, economics)
        variance = _money_variance(high, self.total, economics) * self.money_effect[scorer]
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
            opportunity_low=opportunity - half,
            opportunity_high=opportunity + half,
        )

    def _ratio(self, scorer: str, high: Sums, low: Sums) -> tuple[float | None, float | None, float | None]:
        if self._lacking(high, low):
            return None, None, None
        logarithm = math.log(_rate(high) / _rate(low))
        error = math.sqrt(_log_variance(high, low) * self.ratio_effect[scorer])
        return math.exp(logarithm), *ends(logarithm, error, self.confidence)

    def _lacking(self, high: Sums, low: Sums) -> str | None:
        lacking = [
            f"{int(band[_DEFAULTS])} defaults in the {name} band, {self.minimum_defaults} are wanted"
            for name, band in (("high", high), ("low", low))
            if band[_DEFAULTS] < max(self.minimum_defaults, 1)
        ]
        return "insufficient: " + "; ".join(lacking) if lacking else None


def read_thresholds(client: Client, told: Document, scored: Scored) -> Thresholds:
    """The bands at every share, exact to the row: the buckets say which rows lie above, and of the one bucket in which
    a band ends the rows themselves are read.

    Raises NothingToEvaluate when no outcome is known of any row, ClickHouseUnavailable or Fatal.
    """
    by_flag = _by_flag(scored)
    weight = float(scored.total[_WEIGHT])
    if not weight:
        raise NothingToEvaluate("no outcome of the evaluated transactions is known yet, so no share of them can be cut")
    own_high, own_low = (float(by_flag[name][_WEIGHT]) for name in ("high", "low"))
    shares = _shares(own_high / weight, own_low / weight)
    targets = np.array(shares) * weight
    own = shares.index(own_high / weight)
    targets[own] = own_high  # not share × weight, which may miss it by a rounding
    scorers = {name: _Ranked(each) for name, each in scored.of.items() if name != FLAGS}
    cuts = np.append(targets, weight - own_low)
    inside = read_inside(client, told, {name: each.cut_by(cuts) for name, each in scorers.items()})
    high, low = {}, {}
    for name, each in scorers.items():
        high[name] = np.stack([each.above(name, inside, target, including=True) for target in targets])
        above_low = each.above(name, inside, weight - own_low, including=False)
        # where the high band has reached the low one, the low one is the rest
        ends_at = np.where((high[name][:, _ROWS] > above_low[_ROWS])[:, None], high[name], above_low)
        low[name] = scored.total - ends_at
    high[RULES][own], low[RULES][own] = by_flag["high"], by_flag["low"]
    policy = told["terms"]["policy"]
    found = Thresholds(
        shares,
        own,
        scored.total,
        high,
        low,
        policy["minimum_defaults"],
        1 - policy["alpha"],
        Economics(**policy["economics"]),
        dict.fromkeys(high, 1.0),
        dict.fromkeys(high, 1.0),
    )
    for name in high:
        _widen(found, name, told["evaluation"]["scorers"][name])
    return found


def _by_flag(scored: Scored) -> dict[str, Sums]:
    flags = scored.of[FLAGS]
    sums = dict(zip(flags.lowest.astype(int).tolist(), flags.sums, strict=True))
    return {name: sums.get(at, np.zeros(len(SUMS))) for at, name in enumerate(RISK_FLAGS)}


def _shares(own: float, low: float) -> tuple[float, ...]:
    """Even steps as far as the low band and half of all rows allow, and the rules' own."""
    most = min(_HIGHEST_SHARE, 1 - low)
    steps = {round(at * STEP, 3) for at in range(1, math.floor(most / STEP + 1e-9) + 1)}
    return tuple(sorted(steps | {own}))


class _Ranked:
    """One scorer's buckets, cut where a band ends.

    A row belongs above a cut when half of its weight does (`evaluation/bands.py`).
    """

    def __init__(self, buckets: Buckets) -> None:
        self._keys, self._through = buckets.keys, buckets.through
        self._before = self._through - buckets.sums

    def cut_by(self, targets: Floats) -> set[int]:
        """Keys of the buckets in which bands of these weights end."""
        places = self._places(targets)
        return set(self._keys[places[places < len(self._keys)]].tolist())

    def above(self, name: str, inside: dict[tuple[str, int], Sums], target: float, *, including: bool) -> Sums:
        """Sums over the rows above a weight; `including` one whose middle is just there."""
        place = int(self._places(np.array([target]))[0])
        if place == len(self._keys):
            whole: Sums = self._through[-1]
            return whole
        rows = inside[name, int(self._keys[place])]
        before = self._before[place]
        middle = before[_WEIGHT] + np.cumsum(rows[:, _WEIGHT]) - rows[:, _WEIGHT] / 2
        taken = int(np.searchsorted(middle, target, side="right" if including else "left"))
        sums: Sums = before + rows[:taken].sum(axis=0)
        return sums

    def _places(self, targets: Floats) -> Any:
        return np.searchsorted(self._through[:, _WEIGHT], targets, side="right")


def _rates(sums: Sums, confidence: float) -> list[Rate]:
    rows, defaults = (sums[:, at].astype(np.int64) for at in (_ROWS, _DEFAULTS))
    return rates_of(rows, defaults, sums[:, _WEIGHT], sums[:, _BAD], sums[:, _SQUARES], confidence)


def _rate(sums: Sums) -> float:
    return float(sums[_BAD] / sums[_WEIGHT]) if sums[_WEIGHT] else 0.0


def _log_variance(high: Sums, low: Sums) -> float:
    """Of ln ratio: Σ of w² (y/d - 1/n)² over both bands."""
    return sum(
        float(band[_BAD_SQUARES] * (1 / band[_BAD] ** 2 - 2 / (band[_BAD] * band[_WEIGHT])))
        + float(band[_SQUARES] / band[_WEIGHT] ** 2)
        for band in (high, low)
    )


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
    high, low = found.high[scorer][found.own], found.low[scorer][found.own]
    error = figures["ratio"]["standard_error"]
    if error and (by_rows := _log_variance(high, low)) > 0:  # 0 where all rows of both bands defaulted
        found.ratio_effect[scorer] = error**2 / by_rows
    top, middle = figures["money"]["interval_high"], figures["money"]["opportunity"]
    by_rows = _money_variance(high, found.total, found.economics)
    if top is not None and 0 < by_rows < math.inf:
        found.money_effect[scorer] = ((top - middle) / quantile(found.confidence)) ** 2 / by_rows
