"""The producer's side: transactions from JSON lines or columns onto the topic, as its teams would send them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from consumer.contracts.transaction import EVENT_SCHEMA, columns_from_dicts
from consumer.services.lines import Lines, json_object, read_records
from consumer.services.sender import Sender
from consumer.settings import Settings


def read_lines(stream: BinaryIO) -> Iterator[Lines]:
    """Transactions of a JSON-lines stream as columns of EVENT_SCHEMA, a chunk at a time; labels are dropped here."""
    return read_records(stream, json_object, partial(columns_from_dicts, schema=EVENT_SCHEMA))


class TransactionSender(Sender):
    """Sends transactions (columns of EVENT_SCHEMA), keyed by customer."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(
            settings, "transaction", settings.topic_transactions, settings.topic_dead_letters, key="customer_id"
        )


def new_ids(batch: pa.RecordBatch, turn: int) -> pa.RecordBatch:
    """The same transactions under ids of their own, for sending a file again as new ones."""
    at = batch.schema.get_field_index("transaction_id")
    suffix = pa.scalar(f"-{turn}")
    return batch.set_column(at, batch.schema.field(at), pc.binary_join_element_wise(batch.column(at), suffix, ""))


class Pace:
    """Holds a sender to a rate, in events a second; None does not hold it."""

    def __init__(self, rate: float | None, pieces_per_second: int = 20) -> None:
        self._rate = rate
        self._pieces_per_second = pieces_per_second
        self._started = time.monotonic()
        self._count = 0

    def slices(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """The batch in pieces, each when it is due."""
        if self._rate is None:
            yield batch
            return
        size = max(1, int(self._rate / self._pieces_per_second))
        for start in range(0, batch.num_rows, size):
            time.sleep(max(0.0, self._started + self._count / self._rate - time.monotonic()))
            piece = batch.slice(start, size)
            self._count += piece.num_rows
            yield piece
