"""What is drawn of the evaluated rows: rules and models cut at many shares, ROC curves, distributions of scores.

At another share than their own the rules flag by their risk score. The low band keeps the rules' share of it, so that
only the high band moves; it bounds how far shares go.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from consumer.evaluation.bands import HIGH, LOW, descending
from consumer.evaluation.sample import RULES, Floats, Mask, Positions, Sample

_STEP = 0.005
_HIGHEST_SHARE = 0.5
_ROC_POINTS = 200
_BINS = 40
_TAIL = 0.001
"""Of the rows at either end, which are counted into the outermost bins."""

SUMS = ("rows", "defaults", "weight", "bad", "squares", "bad_squares", "stake", "lost", "stake_squares", "lost_squares")
"""What is summed over rows: their number; weights; squared weights; weight × amount; its square. The second of each
pair is of defaulted rows alone.
"""
Sums = Floats
"""Last axis as SUMS."""


@dataclass(frozen=True)
class Shares:
    """Sums over the bands of every scorer at every share: what ratio, lift and money follow from, whatever the
    economics.
    """

    shares: tuple[float, ...]
    """Of the weight of all rows; the rules' own among them."""
    own: int
    """Where in `shares` the rules' own is."""
    total: Sums
    high: dict[str, Sums]
    """(shares, SUMS) by scorer: `rules`, then the models"""
    low: dict[str, Sums]


@dataclass(frozen=True)
class Roc:
    """Weighted shares of the others and of the defaulters that stand at or above each score, from (0, 0) to (1, 1)."""

    scorer: str
    others: list[float]
    defaulters: list[float]


@dataclass(frozen=True)
class Distribution:
    """Weighted shares of the defaulters, and of the others, by score; the outermost bins hold what lies beyond."""

    scorer: str
    begins: list[float]
    ends: list[float]
    defaulters: list[float]
    others: list[float]


@dataclass(frozen=True)
class Curves:
    """Small, however many rows they are of."""

    shares: Shares
    roc: list[Roc]
    """none where all rows defaulted, or none did"""
    distributions: list[Distribution]


def curves(sample: Sample) -> Curves | None:
    """Of rows whose outcome is known and that every model scored; None when there are none."""
    if not len(sample):
        return None
    columns, cuts = _Columns.of(sample), _Cuts(sample)
    high, low, roc, distributions = {}, {}, [], []
    for name, scores in {RULES: sample.rules_score, **sample.scores}.items():
        ranked = _Ranked(scores, descending(scores, sample.order), columns)
        high[name], low[name] = cuts.bands(ranked)
        if 0 < ranked.bad[-1] < ranked.weight[-1]:
            roc.append(_roc(name, ranked))
        distributions.append(_distribution(name, ranked))
    for bands, band in ((high, HIGH), (low, LOW)):
        bands[RULES][cuts.own] = columns.taken(sample.rules_flag == band).total()
    return Curves(Shares(cuts.shares, cuts.own, columns.total(), high, low), roc, distributions)


@dataclass(frozen=True)
class _Columns:
    """By row: what all of SUMS are made of."""

    defaulted: Mask
    weight: Floats
    stake: Floats

    @classmethod
    def of(cls, sample: Sample) -> _Columns:
        return cls(sample.defaulted, sample.weight, sample.weight * sample.amount)

    def taken(self, rows: Positions | Mask) -> _Columns:
        return _Columns(self.defaulted[rows], self.weight[rows], self.stake[rows])

    def between(self, counts: Positions) -> Sums:
        """Of the rows from each count to the next, the first from none, for counts that ascend: (counts, SUMS)."""
        starts = np.concatenate([[0], counts[:-1]])
        filled = counts > starts
        parts = np.zeros((len(counts), len(SUMS)))
        if filled.any():
            for at, values in enumerate(self._summands()):
                parts[filled, at] = np.add.reduceat(values[: counts[-1]], starts[filled])
        return parts

    def _summands(self) -> Iterator[Floats]:
        """As SUMS."""
        for values in (np.ones(len(self.weight)), self.weight, self.weight**2, self.stake, self.stake**2):
            yield values
            yield values * self.defaulted

    def total(self) -> Sums:
        whole: Sums = self.between(np.array([len(self.weight)]))[0]
        return whole


class _Ranked:
    """One scorer's rows from the highest score to the lowest."""

    def __init__(self, scores: Floats, positions: Positions, columns: _Columns) -> None:
        self.columns = columns.taken(positions)
        self.scores = scores[positions]
        self.weight: Floats = np.cumsum(self.columns.weight)
        """Down to and with each row; `bad` that of defaulted rows."""
        self.bad: Floats = np.cumsum(self.columns.weight * self.columns.defaulted)

    def at_or_above(self, scores: Floats) -> Positions:
        """How many rows stand at each score or above it."""
        count: Positions = len(self.scores) - np.searchsorted(self.scores[::-1], scores, side="left")
        return count


class _Cuts:
    """Where bands end: as weights, from the highest score down."""

    def __init__(self, sample: Sample) -> None:
        """Even steps as far as the low band and half of all rows allow, and the rules' own share."""
        whole = sample.weight.sum()
        high, low = (sample.weight[sample.rules_flag == band].sum() for band in (HIGH, LOW))
        most = min(_HIGHEST_SHARE, 1 - low / whole)
        steps = {round(at * _STEP, 3) for at in range(1, math.floor(most / _STEP + 1e-9) + 1)}
        self.shares = tuple(sorted(steps | {float(high / whole)}))
        self.own = self.shares.index(float(high / whole))
        self._high: Floats = np.array(self.shares) * whole
        self._high[self.own] = high  # not share × weight, which may miss it by a rounding
        self._low = whole - low

    def bands(self, ranked: _Ranked) -> tuple[Sums, Sums]:
        """High and low band at every share, as `bands.match` makes them: a row belongs above a cut when half of its
        weight does.
        """
        middle = ranked.weight - ranked.columns.weight / 2
        highs = np.searchsorted(middle, self._high, side="right")
        first_low = np.maximum(highs, np.searchsorted(middle, self._low, side="left"))
        counts, at = np.unique(np.concatenate([highs, first_low, [len(middle)]]), return_inverse=True)
        parts = ranked.columns.between(counts)
        from_top = parts.cumsum(axis=0)
        # not all less what is above: of a heavy row up there the difference would be nothing but its rounding
        from_bottom = np.concatenate([parts[::-1].cumsum(axis=0)[-2::-1], np.zeros((1, len(SUMS)))])
        return from_top[at[: len(highs)]], from_bottom[at[len(highs) : -1]]


def _roc(scorer: str, ranked: _Ranked) -> Roc:
    """Evenly along the rows; equal scores are not parted."""
    wanted = np.linspace(0, ranked.weight[-1], _ROC_POINTS)
    rows = np.searchsorted(ranked.weight, wanted).clip(max=len(ranked.weight) - 1)
    last = np.unique(ranked.at_or_above(ranked.scores[rows])) - 1
    bad, good = ranked.bad[last], ranked.weight[last] - ranked.bad[last]
    return Roc(scorer, [0.0, *(good / good[-1]).tolist()], [0.0, *(bad / bad[-1]).tolist()])


def _distribution(scorer: str, ranked: _Ranked) -> Distribution:
    """In even bins."""
    share = ranked.weight / ranked.weight[-1]
    top, bottom = ranked.scores[np.searchsorted(share, [_TAIL, 1 - _TAIL]).clip(max=len(share) - 1)].tolist()
    edges = np.linspace(bottom, top if top > bottom else bottom + 1, _BINS + 1)
    rows = np.concatenate([[len(share)], ranked.at_or_above(edges[1:-1]), [0]])
    weight, bad = (np.concatenate([[0.0], each])[rows] for each in (ranked.weight, ranked.bad))
    kinds = (-np.diff(bad), -np.diff(weight - bad))
    defaulters, others = (each / max(each.sum(), 1e-300) for each in kinds)
    return Distribution(scorer, edges[:-1].tolist(), edges[1:].tolist(), defaulters.tolist(), others.tolist())
