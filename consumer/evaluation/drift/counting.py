"""Live rows counted into training's bins: a column at a time, for several groups of rows at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from consumer.evaluation.drift.reference import Counts, Feature, Floats, Reference

Mask = npt.NDArray[np.bool_]
Unseen = Counter[tuple[str, str]]
"""Rows by (category column, value that training did not have)."""

VALUES_KEPT = 20
"""Distinct unseen values of one column that one tally counts by name: a producer may send any number of them."""
OTHER_VALUES = "(other values)"


@dataclass(frozen=True)
class Tally:
    """What was counted of some rows: `cells` of all features side by side, and sums over each feature's numbers that
    are neither missing nor unseen. `Counter.cells_of` finds one feature's own.
    """

    cells: Counts
    sums: Floats
    squares: Floats
    unseen: Unseen

    def add(self, more: Tally) -> None:
        self.cells.__iadd__(more.cells)
        self.sums.__iadd__(more.sums)
        self.squares.__iadd__(more.squares)
        add_unseen(self.unseen, more.unseen)


def add_unseen(to: Unseen, more: Unseen) -> None:
    """Add, with a name of its own for no more than VALUES_KEPT values of a column."""
    named = Counter(column for column, value in to if value != OTHER_VALUES)
    for (column, value), count in more.items():
        if (column, value) not in to and value != OTHER_VALUES:
            if named[column] >= VALUES_KEPT:
                value = OTHER_VALUES
            else:
                named[column] += 1
        to[column, value] += count


class BinCounter:
    """Counts features, in the order of the matrix that `names` tells, by the bins of a reference."""

    def __init__(self, reference: Reference, names: Sequence[str]) -> None:
        self.features = reference.features
        self._known = {
            column: pc.SetLookupOptions(value_set=pa.array(sorted(values), pa.string()))
            for column, values in reference.known.items()
        }
        self._at = [names.index(feature.name) for feature in self.features]
        self._cuts = [feature.bins.cuts for feature in self.features]
        ends = np.cumsum([0, *(feature.bins.cells for feature in self.features)])
        self._cells = [slice(int(start), int(end)) for start, end in pairwise(ends)]
        self._width = int(ends[-1])

    def empty(self) -> Tally:
        return Tally(
            np.zeros(self._width, np.int64), np.zeros(len(self.features)), np.zeros(len(self.features)), Counter()
        )

    def cells_of(self) -> list[tuple[Feature, slice]]:
        """Each feature and where its cells stand in a tally's."""
        return list(zip(self.features, self._cells, strict=True))

    def count(self, transactions: pa.RecordBatch, matrix: Floats, groups: npt.NDArray[np.int64], n: int) -> list[Tally]:
        """A tally for each of `n` groups; `matrix` holds the features of `transactions`, `groups` their group."""
        masks = self._unseen_rows(transactions)
        cells = np.empty((n, self._width), np.int64)
        sums, squares = np.empty((2, n, len(self.features)))
        for row, (feature, at, cuts, place) in enumerate(
            zip(self.features, self._at, self._cuts, self._cells, strict=True)
        ):
            values, cell = _cells(matrix[:, at], cuts, masks.get(feature.column or ""))
            width = feature.bins.cells
            cells[:, place] = np.bincount(groups * width + cell, minlength=n * width).reshape(n, width)
            sums[:, row] = np.bincount(groups, values, n)
            squares[:, row] = np.bincount(groups, values * values, n)
        unseen = _unseen_values(transactions, masks, groups)
        return [Tally(cells[at], sums[at], squares[at], unseen.get(at, Counter())) for at in range(n)]

    def _unseen_rows(self, transactions: pa.RecordBatch) -> dict[str, Mask]:
        """By column the rows whose value training did not have; columns without any are left out."""
        found = {}
        for column, known in self._known.items():
            seen = pc.call_function("is_in", [transactions.column(column)], known)
            if not pc.all(seen, min_count=0).as_py():
                found[column] = ~seen.to_numpy(zero_copy_only=False)
        return found


def _cells(values: Floats, cuts: Floats, unseen: Mask | None) -> tuple[Floats, npt.NDArray[np.int64]]:
    """(what to sum, cell) of each number."""
    cell = np.searchsorted(cuts, values, "right")
    outside = np.isnan(values)
    cell[outside] = len(cuts) + 1
    if unseen is not None:
        cell[unseen] = len(cuts) + 2
        outside |= unseen
    return (np.where(outside, 0.0, values) if outside.any() else values), cell


def _unseen_values(
    transactions: pa.RecordBatch, masks: Mapping[str, Mask], groups: npt.NDArray[np.int64]
) -> dict[int, Unseen]:
    found: dict[int, Unseen] = {}
    for column, mask in masks.items():
        values = transactions.column(column).filter(pa.array(mask)).to_pylist()
        for (group, value), count in Counter(zip(groups[mask].tolist(), values, strict=True)).items():
            add_unseen(found.setdefault(group, Counter()), Counter({(column, value): count}))
    return found
