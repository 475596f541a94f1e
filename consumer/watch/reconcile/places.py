"""Places of records as columns of single numbers: ten million are compared in a few array operations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.int64]
"""Partition and offset in one number; in the order of partitions, then offsets."""
Mask = npt.NDArray[np.bool_]

NOWHERE = -1
"""The key of what is no place of the topic in question."""
_OFFSET_BITS = 44
_OFFSETS = 1 << _OFFSET_BITS
_PARTITIONS = 1 << (62 - _OFFSET_BITS)


def keys(partitions: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64]) -> Keys:
    """The keys of places; NOWHERE for numbers that no broker gives."""
    possible = (partitions >= 0) & (partitions < _PARTITIONS) & (offsets >= 0) & (offsets < _OFFSETS)
    return np.where(possible, partitions << _OFFSET_BITS | offsets, NOWHERE)


def partitions_of(places: Keys) -> npt.NDArray[np.int64]:
    return places >> _OFFSET_BITS


def offsets_of(places: Keys) -> npt.NDArray[np.int64]:
    return np.where(places < 0, NOWHERE, places & (_OFFSETS - 1))


def joined(parts: Iterable[Keys]) -> Keys:
    """One column of several, or of none."""
    found = list(parts)
    return np.concatenate(found) if found else np.empty(0, np.int64)


def positions(places: Keys, among: Keys) -> tuple[Mask, npt.NDArray[np.int64]]:
    """Which of `places` are in `among`, which is sorted, and where; the position of one that is not means nothing."""
    if not len(among):
        return np.zeros(len(places), bool), np.zeros(len(places), np.int64)
    order = np.argsort(places, kind="stable")  # in order, ten million searches take seconds instead of minutes
    at = np.empty(len(places), np.int64)
    at[order] = np.searchsorted(among, places[order])
    at[at == len(among)] = 0
    return among[at] == places, at


def contained(places: Keys, among: Keys) -> Mask:
    """Which of `places` are in `among`, which is sorted."""
    return positions(places, among)[0]


def below(places: Keys, ends: Mapping[int, int]) -> Mask:
    """Which places lie before the end of their partition; none of a partition that has no end."""
    limits = np.full(max(ends, default=0) + 2, NOWHERE)  # the last is for partitions that are not there
    for partition, end in ends.items():
        limits[partition] = end
    partitions = partitions_of(places)
    partitions[(partitions < 0) | (partitions >= len(limits))] = len(limits) - 1
    return offsets_of(places) < limits[partitions]


def repeated(places: Keys) -> Keys:
    """Those that occur more than once, each once, sorted."""
    in_order = np.sort(places)
    return np.unique(in_order[1:][in_order[1:] == in_order[:-1]])


def counts(places: Keys) -> dict[int, int]:
    """How many there are of each partition."""
    found = np.bincount(partitions_of(places) - NOWHERE)
    return {partition + NOWHERE: int(found[partition]) for partition in np.flatnonzero(found).tolist()}


@dataclass(frozen=True)
class Fault:
    """What is wrong in one partition. `ranges` are (first offset, last offset); `count` is the number of records or
    rows, which may be more than the offsets when rows share one.
    """

    kind: str
    topic: str
    partition: int
    count: int
    ranges: tuple[tuple[int, int], ...]

    def told(self, most: int | None = None) -> str:
        """`lost bnpl.transactions/2 offsets 1041-1050, 1077`; of more than `most` ranges only the first."""
        shown = [str(first) if first == last else f"{first}-{last}" for first, last in self.ranges[:most]]
        more = len(self.ranges) - len(shown)
        text = f"{self.kind.replace('_', ' ')} {self.topic}/{self.partition} offsets {', '.join(shown)}"
        return f"{text} and {more:,} more ranges" if more else text

    def __str__(self) -> str:
        return self.told()


def faults(kind: str, topic: str, places: Keys) -> list[Fault]:
    """One fault a partition. A place may be given more than once."""
    in_order = np.sort(places)
    found = []
    for partition in np.unique(partitions_of(in_order)).tolist():
        own = in_order[partitions_of(in_order) == partition]
        found.append(Fault(kind, topic, partition, len(own), ranges(offsets_of(own))))
    return found


def ranges(offsets: npt.NDArray[np.int64]) -> tuple[tuple[int, int], ...]:
    """(first, last) of each run of neighbours, in order."""
    distinct = np.unique(offsets)
    if not len(distinct):
        return ()
    ends = np.flatnonzero(np.diff(distinct) > 1)
    firsts = distinct[np.concatenate(([0], ends + 1))]
    lasts = distinct[np.concatenate((ends, [len(distinct) - 1]))]
    return tuple(zip(firsts.tolist(), lasts.tolist(), strict=True))
