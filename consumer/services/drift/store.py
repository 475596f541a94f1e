"""The tables of drift: counts by day (`deploy/clickhouse/0006_drift_counts.sql`) and what was found in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
from clickhouse_connect.driver.client import Client

from consumer.evaluation.drift.counting import OTHER_VALUES, BinCounter, Tally
from consumer.evaluation.drift.judge import Seen
from consumer.services.clickhouse import errors_named
from consumer.services.drift.counts import BlockDay, Partition
from consumer.services.tally import printable

COUNTS, RESULTS = "drift_counts", "drift_results"
_EPOCH = date(1970, 1, 1)
_INSERT_SETTINGS = {
    "async_insert": 0,  # the default of recent servers holds small inserts back
    "insert_deduplicate": 0,  # rows replace each other by key
}
_ROWS = pa.schema(
    [
        ("artifact_sha256", pa.string()),
        ("topic_id", pa.string()),
        ("source_partition", pa.int32()),
        ("block", pa.int64()),
        ("day", pa.date32()),
        ("name", pa.string()),
        ("value", pa.string()),
        ("counted_to", pa.int64()),
        ("counts", pa.list_(pa.int64())),
        ("total", pa.float64()),
        ("squares", pa.float64()),
    ]
)
_LAST_BLOCK = f"""
WITH (
    SELECT max((block, counted_to)) FROM {COUNTS} WHERE artifact_sha256 = {{sha:String}} AND topic_id = {{topic:String}}
    AND source_partition = {{partition:Int32}}
) AS last
SELECT last.1, last.2, day, name, value, counts, total, squares FROM {COUNTS} FINAL
WHERE artifact_sha256 = {{sha:String}} AND topic_id = {{topic:String}} AND source_partition = {{partition:Int32}}
AND block = last.1
"""  # noqa: S608
_BY_DAY = f"""
SELECT day, name, sumForEach(counts), arraySum(arraySort(groupArray(total))), arraySum(arraySort(groupArray(squares)))
FROM {COUNTS} FINAL
WHERE artifact_sha256 = {{sha:String}} AND day >= {{first:Date}} AND day < {{after:Date}} AND value = ''
GROUP BY day, name
"""  # noqa: S608
_UNSEEN = f"""
SELECT name, value, sum(counts[1]), min(day), max(day) FROM {COUNTS} FINAL
WHERE artifact_sha256 = {{sha:String}} AND day < {{after:Date}} AND value != ''
GROUP BY name, value ORDER BY sum(counts[1]) DESC, name, value LIMIT {{most:UInt32}}
"""  # noqa: S608
_NEWEST_DAY = f"SELECT max(day), count() FROM {COUNTS} WHERE artifact_sha256 = {{sha:String}}"  # noqa: S608

_NEWEST_RESULT = f"""
SELECT max(as_of), count() FROM {RESULTS} WHERE artifact_sha256 = {{sha:String}} AND as_of <= {{until:Date}}
"""  # noqa: S608


@dataclass(frozen=True)
class UnseenValue:
    """A category that training did not have."""

    column: str
    value: str
    count: int
    first_day: date
    last_day: date


class DriftStore:
    """Counts made by the bins of one export, in one topic. For one thread."""

    def __init__(self, client: Client, digest: str, counter: BinCounter) -> None:
        self._client, self._digest = client, digest
        self._counter = counter

    def load(self, topic_id: str, partition: int) -> Partition:
        """How far a partition was counted, and what its last block holds. Raises ClickHouseUnavailable or Fatal."""
        asked = {"sha": self._digest, "topic": topic_id, "partition": partition}
        with errors_named():
            found = self._client.query(_LAST_BLOCK, asked).result_rows
        state = Partition()
        cells = {feature.name: (row, place) for row, (feature, place) in enumerate(self._counter.cells_of())}
        for block, counted_to, day, name, value, counts, total, squares in found:
            state.counted_to = counted_to
            tally = state.tallies.setdefault((block, (day - _EPOCH).days), self._counter.empty())
            if value:
                tally.unseen[name, value] = counts[0]
            else:
                row, place = cells[name]
                tally.cells[place] = counts
                tally.sums[row], tally.squares[row] = total, squares
        return state

    def save(self, topic_id: str, changed: Iterable[tuple[int, int, BlockDay, Tally]]) -> int:
        """Store tallies, as one block; says how many rows these are. Raises ClickHouseUnavailable or Fatal."""
        rows = [
            (self._digest, topic_id, partition, block, day, *row[:2], counted_to, *row[2:])
            for partition, counted_to, (block, day), tally in changed
            for row in self._rows(tally)
        ]
        if rows:
            columns = zip(*rows, strict=True)
            table = pa.table([pa.array(each, field.type) for each, field in zip(columns, _ROWS, strict=True)], _ROWS)
            with errors_named():
                self._client.insert_arrow(COUNTS, table, settings=_INSERT_SETTINGS)
        return len(rows)

    def _rows(self, tally: Tally) -> Iterator[tuple[str, str, list[int], float, float]]:
        """(name, value, counts, total, squares) of each feature, and of each category that was not in training."""
        for row, (feature, place) in enumerate(self._counter.cells_of()):
            yield feature.name, "", tally.cells[place].tolist(), float(tally.sums[row]), float(tally.squares[row])
        unseen: Counter[tuple[str, str]] = Counter()
        for (column, value), count in tally.unseen.items():
            unseen[column, value if value == OTHER_VALUES else printable(value)] += count
        for (column, value), count in unseen.items():
            yield column, value, [count], 0.0, 0.0

    def by_day(self, first: date, after: date) -> dict[date, dict[str, Seen]]:
        """What was counted of each feature on each day of [first, after). Raises ClickHouseUnavailable or Fatal."""
        asked = {"sha": self._digest, "first": first, "after": after}
        found: dict[date, dict[str, Seen]] = {}
        with errors_named():
            for day, name, counts, total, squares in self._client.query(_BY_DAY, asked).result_rows:
                found.setdefault(day, {})[name] = Seen(np.array(counts, np.int64), total, squares)
        return found

    def unseen(self, after: date, most: int) -> list[UnseenValue]:
        """The most frequent categories that training did not have, until `after`."""
        with errors_named():
            found = self._client.query(_UNSEEN, {"sha": self._digest, "after": after, "most": most}).result_rows
        return [UnseenValue(*row) for row in found]

    def newest_day(self) -> date | None:
        """The last day that anything was counted of."""
        with errors_named():
            ((day, rows),) = self._client.query(_NEWEST_DAY, {"sha": self._digest}).result_rows
        return day if rows else None


def newest_result(client: Client, digest: str, until: date) -> date | None:
    """The newest day, `until` at the latest, that something was stored as of by `save_results` for an export; None for
    none. Raises ClickHouseUnavailable or Fatal.
    """
    with errors_named():
        ((day, rows),) = client.query(_NEWEST_RESULT, {"sha": digest, "until": until}).result_rows
    return day if rows else None


def save_results(client: Client, rows: Sequence[Mapping[str, Any]]) -> None:
    """Store what was found, columns by name. Raises ClickHouseUnavailable or Fatal."""
    values = [list(row.values()) for row in rows]
    with errors_named():
        client.insert(RESULTS, values, column_names=list(rows[0]), settings=_INSERT_SETTINGS)
