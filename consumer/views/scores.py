"""How scores lie, and how they part defaulters from the others: distributions and ROC curves of the evaluated rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from consumer.views.buckets import FLAGS, SUMS, Scored

_BAD, _WEIGHT = SUMS.index("bad"), SUMS.index("weight")
_TAIL = 0.001
"""Of the rows at either end, which are counted into the outermost bins."""


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


def roc_curves(scored: Scored, points: int = 200) -> list[Roc]:
    """Of the rules' score and every model, at most so many points each, evenly along the rows; none where all or no
    rows defaulted.
    """
    if not 0 < scored.total[_BAD] < scored.total[_WEIGHT]:
        return []
    curves = []
    for scorer, buckets in scored.of.items():
        if scorer == FLAGS:
            continue
        through = buckets.through
        wanted = np.linspace(0, through[-1, _WEIGHT], points)
        at = np.unique(
            np.append(np.searchsorted(through[:, _WEIGHT], wanted), len(through) - 1).clip(max=len(through) - 1)
        )
        bad, good = through[at, _BAD], through[at, _WEIGHT] - through[at, _BAD]
        curves.append(Roc(scorer, [0.0, *(good / good[-1]).tolist()], [0.0, *(bad / bad[-1]).tolist()]))
    return curves


def distributions(scored: Scored, bins: int = 40) -> list[Distribution]:
    """Of the rules' score and every model, in even bins."""
    found = []
    for scorer, buckets in scored.of.items():
        if scorer == FLAGS or not len(buckets.keys):
            continue
        scores, bad = buckets.lowest, buckets.sums[:, _BAD]
        good = buckets.sums[:, _WEIGHT] - bad
        share = np.cumsum(buckets.sums[:, _WEIGHT]) / scored.total[_WEIGHT]
        places = np.searchsorted(share, [_TAIL, 1 - _TAIL]).clip(max=len(scores) - 1)
        top, bottom = scores[places].tolist()
        edges = np.linspace(bottom, top if top > bottom else bottom + 1, bins + 1)
        at = (np.searchsorted(edges, scores, side="right") - 1).clip(0, bins - 1)
        counted = [np.bincount(at, each, bins) / max(each.sum(), 1e-300) for each in (bad, good)]
        found.append(
            Distribution(scorer, edges[:-1].tolist(), edges[1:].tolist(), counted[0].tolist(), counted[1].tolist())
        )
    return found
