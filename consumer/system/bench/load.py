"""The bench's load: simulated transactions of 43 fields in a topic of 4 partitions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from consumer.clock import utc_now
from consumer.research.simulate import CHUNK, SimulationConfig, simulate
from consumer.services.produce import TransactionSender
from consumer.settings import Settings

Say = Callable[[str], None]

_DISTINCT_EVENTS = 200_000


def distinct_events() -> list[pa.RecordBatch]:
    """200,000 simulated transactions of the day before yesterday, as columns of EVENT_SCHEMA."""
    start = (utc_now() - timedelta(days=2)).date()
    config = SimulationConfig(_DISTINCT_EVENTS, start=start, days=1, outcomes=False)
    return list(islice(simulate(config), _DISTINCT_EVENTS // CHUNK))


def _with_new_ids(batch: pa.RecordBatch, turn: int) -> pa.RecordBatch:
    at = batch.schema.get_field_index("transaction_id")
    ids = pc.binary_join_element_wise(batch.column(at), str(turn), "-")
    return batch.set_column(at, batch.schema.field(at), ids)


class Load:
    """What is in the topic so far; beyond 200,000 events the same come again under new ids."""

    def __init__(self, settings: Settings, say: Say) -> None:
        self._settings = settings
        self._say = say
        self._batches: list[pa.RecordBatch] = []
        self.events = 0

    def fill(self, events: int) -> None:
        """Send until at least so many are there."""
        if self.events >= events:
            return
        self._batches = self._batches or distinct_events()
        sender = TransactionSender(self._settings)
        while self.events < events:
            turn, number = divmod(self.events // CHUNK, len(self._batches))
            batch = self._batches[number]
            sender.send(_with_new_ids(batch, turn))
            self.events += batch.num_rows
        sender.flush()
        self._say(f"load: {self.events:,} transactions are in the topic")
