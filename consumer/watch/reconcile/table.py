"""What the table says, row by row compared with the events, as it streams in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from clickhouse_connect.driver.client import Client

from consumer.services.clickhouse import errors_named
from consumer.services.rows import SCORES
from consumer.watch.reconcile.bounds import Bounds
from consumer.watch.reconcile.places import Keys, below, joined, keys, positions
from consumer.watch.reconcile.topics import Events, hashes

_ROWS = f"""
SELECT shadow_partition, shadow_offset, if(source_topic = {{transactions:String}}, source_partition, -1), source_offset
FROM {SCORES.name} FINAL
"""  # noqa: S608
_PREDICTIONS = f"SELECT prediction_id FROM {SCORES.name} FINAL"  # noqa: S608
_IDS = f"""
SELECT transaction_id, source_partition, max(source_offset) FROM {SCORES.name} FINAL
WHERE source_topic = {{transactions:String}} AND transaction_id IN {{ids:Array(String)}}
GROUP BY transaction_id, source_partition
"""  # noqa: S608


@dataclass(frozen=True)
class Rows:
    """What the rows are."""

    stored: npt.NDArray[np.bool_]
    """For each event, whether it has its row."""
    too_many: Keys
    """Shadow places of rows without an event of their own; one twice for two rows."""
    later: Keys
    """Those of rows from beyond the end of what was read."""
    expired: Keys
    """Sources of rows whose event is gone from the topic, sorted."""


def read_rows(client: Client, bounds: Bounds, events: Events, kept: dict[int, int]) -> Rows:
    """Find each row's event by its place and its source. `kept` is from where on the shadow topic has all events.

    Raises ClickHouseUnavailable or Fatal.
    """
    stored = np.zeros(len(events.places), bool)
    too_many, later, expired = [], [], []
    for block in _blocks(client, bounds):
        place, source = keys(block[:, 0], block[:, 1]), keys(block[:, 2], block[:, 3])
        found, at = positions(place, events.places)
        found[found] = events.sources[at[found]] == source[found]
        own, first = np.unique(at[found], return_index=True)
        again = np.ones(len(at[found]), bool)
        again[first] = stored[own]
        stored[own] = True
        too_many.append(place[found][again])
        gone = ~found & below(place, kept)
        expired.append(source[gone])
        here = ~found & ~gone & below(place, bounds.scores.ends)
        too_many.append(place[here])
        later.append(place[~found & ~gone & ~here])
    return Rows(stored, joined(too_many), joined(later), np.sort(joined(expired)))


def later_predictions(client: Client, bounds: Bounds) -> Keys:
    """Hashes of the prediction ids of rows from beyond the end of what was read, sorted."""
    beyond = _places("shadow", bounds.scores.ends)
    with errors_named(), client.query_column_block_stream(f"{_PREDICTIONS} WHERE {beyond}") as blocks:
        found = [hashes(block[0]) for block in blocks]
    return np.sort(joined(found))


def newest_sources(client: Client, transactions: str, ids: list[str]) -> dict[str, list[tuple[int, int]]]:
    """The partition and offset of the last transaction that rows name, by transaction id."""
    asked = {"transactions": transactions, "ids": ids}
    found: dict[str, list[tuple[int, int]]] = {}
    with errors_named():
        for name, partition, offset in client.query(_IDS, asked).result_rows:
            found.setdefault(name, []).append((partition, offset))
    return found


def _blocks(client: Client, bounds: Bounds) -> Iterator[npt.NDArray[np.int64]]:
    """Rows of what is looked at, and those that nothing can be looked at for."""
    asked = {"transactions": bounds.transactions.topic}
    wanted = f"{_places('shadow', bounds.scores.starts)} OR {_places('source', bounds.transactions.starts)}"
    with errors_named(), client.query_np_stream(f"{_ROWS} WHERE {wanted}", asked) as blocks:
        yield from blocks


def _places(kind: str, starts: dict[int, int]) -> str:
    """A condition: at or after the start of its partition, or of a partition that the topic has not."""
    known = [f"({kind}_partition = {partition} AND {kind}_offset >= {start})" for partition, start in starts.items()]
    return " OR ".join([*known, f"{kind}_partition NOT IN ({', '.join(map(str, starts))})"])
