"""What one process has counted and not yet stored, so that every record counts once, however often it is read.

Counts are kept by block, a fixed stretch of BLOCK offsets of a partition. A stored row tells what a block holds up to
an offset; one that was counted further replaces it. So storing again, dying between storing and committing, or two
members counting the same after a rebalance, all end with the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from consumer.evaluation.drift.counting import BinCounter, Tally
from consumer.scoring.features import FeatureEngineer

BLOCK = 10_000
"""Offsets. Smaller ones make more rows, larger ones more to store again each time."""
_MOST_KEPT = 1000
"""Days of blocks that wait to be stored: about 40,000 rows of one insert."""
_MS_A_DAY = 86_400_000

BlockDay = tuple[int, int]
"""First offset of the block, and days since 1970."""
Ints = npt.NDArray[np.int64]


@dataclass
class Partition:
    """One partition: every record before `counted_to` is counted. `changed` are to be stored; the last block stays, to
    be counted on.
    """

    counted_to: int = 0
    tallies: dict[BlockDay, Tally] = field(default_factory=dict)
    changed: set[BlockDay] = field(default_factory=set)


class Counts:
    """Counts of the partitions of one process."""

    def __init__(self, engineer: FeatureEngineer, counter: BinCounter, load: Callable[[int], Partition]) -> None:
        """`load` gives what is stored of a partition: how far it was counted, and its last block."""
        self._engineer, self._counter, self._load = engineer, counter, load
        self._partitions: dict[int, Partition] = {}

    def add(self, transactions: pa.RecordBatch, partitions: Ints, offsets: Ints) -> int:
        """Count those that are not counted yet; says how many. Rows of a partition are in order of offset."""
        counted_to = np.zeros(partitions.max(initial=0) + 1, np.int64)
        for number in np.unique(partitions).tolist():
            counted_to[number] = self._partition(number).counted_to
        news = offsets >= counted_to[partitions]
        if not news.all():
            transactions = transactions.filter(pa.array(news))
            partitions, offsets = partitions[news], offsets[news]
        if not transactions.num_rows:
            return 0
        days = transactions.column("transaction_timestamp").to_numpy() // _MS_A_DAY
        group, keys = pd.factorize((partitions << 48) | (offsets // BLOCK << 16) | days)
        matrix = self._engineer.engineer(transactions).matrix
        tallies = self._counter.count(transactions, matrix, group, len(keys))
        for key, tally in zip(keys.tolist(), tallies, strict=True):
            state, place = self._partition(key >> 48), ((key >> 16 & 0xFFFFFFFF) * BLOCK, key & 0xFFFF)
            state.tallies.setdefault(place, self._counter.empty()).add(tally)
            state.changed.add(place)
        return int(transactions.num_rows)

    def pass_to(self, partition: int, offset: int) -> None:
        """All records before `offset` were looked at, those that cannot be used too."""
        state = self._partition(partition)
        state.counted_to = max(state.counted_to, offset)

    def changed(self) -> Iterator[tuple[int, int, BlockDay, Tally]]:
        """(partition, counted to, block and day, tally) of what is to be stored."""
        for number, state in self._partitions.items():
            for key in sorted(state.changed):
                yield number, state.counted_to, key, state.tallies[key]

    @property
    def full(self) -> bool:
        """Whether so much waits to be stored that it should not wait any longer."""
        return sum(len(state.changed) for state in self._partitions.values()) >= _MOST_KEPT

    def stored(self) -> None:
        """All that `changed` gave is stored: only the blocks that are still being counted are kept."""
        for state in self._partitions.values():
            state.changed.clear()
            last = state.counted_to - state.counted_to % BLOCK
            state.tallies = {key: tally for key, tally in state.tallies.items() if key[0] >= last}

    def forget(self, partitions: set[int] | None = None) -> None:
        """These, or all, are read again from what is committed, by whoever has them then."""
        for number in set(self._partitions) if partitions is None else partitions:
            self._partitions.pop(number, None)

    def _partition(self, number: int) -> Partition:
        if number not in self._partitions:
            self._partitions[number] = self._load(number)
        return self._partitions[number]
