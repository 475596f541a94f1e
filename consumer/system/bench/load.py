"""The bench's load: simulated transactions of 43 fields in a topic of 4 partitions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import islice

import pyarrow as pa

from consumer.clock import utc_now
from consumer.research.simulate import CHUNK, SimulationConfig, simulate
from consumer.services.produce import TransactionSender
from consumer.settings import Settings

Say = Callable[[str], None]

_DISTINCT_EVENTS = 200_000


def distinct_events() -> list[pa.RecordBatch]:
    """200,000 simulated transactions of the last weeks, as columns of EVENT_SCHEMA."""
    start = (utc_now() - timedelta(days=40)).date()
    config = SimulationConfig(_DISTINCT_EVENTS, start=start, days=30, outcomes=False)
    return list(islice(simulate(config), _DISTINCT_EVENTS // CHUNK))


class Load:
    """What is in the topic so far; beyond 200,000 events the same come again."""

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
            batch = self._batches[self.events // CHUNK % len(self._batches)]
            sender.send(batch)
            self.events += batch.num_rows
        sender.flush()
        self._say(f"load: {self.events:,} transactions are in the topic")
