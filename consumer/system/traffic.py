"""Steady traffic whose producer writes into a ledger what the broker acknowledged."""

from __future__ import annotations

import threading
import uuid
from datetime import timedelta
from functools import partial
from itertools import cycle
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
from confluent_kafka import KafkaException, Producer

from consumer.clock import Deadline, utc_now
from consumer.contracts.events import EventWriter
from consumer.contracts.registry import schema_registry
from consumer.contracts.schemas import writer_header
from consumer.errors import KafkaUnavailable
from consumer.research.simulate import SimulationConfig, simulate
from consumer.services.kafka import as_error, made, producer_config
from consumer.services.produce import Pace
from consumer.settings import Settings
from consumer.system.ledger import Ledger

RUBBISH_EVERY = 500
_DISTINCT_EVENTS = 20_000
_PATIENCE_SECONDS = 300.0
_CONFIG = {
    "linger.ms": 20,
    "compression.type": "lz4",
    # a record is either acknowledged or still being sent: what a broker that is away makes it wait is not a failure
    "delivery.timeout.ms": int(_PATIENCE_SECONDS * 1000),
    "queue.buffering.max.messages": 1_000_000,
}


class Traffic:
    """Simulated checkouts of this moment at `rate` a second, one in 500 of them rubbish, from a thread of its own. A
    context manager: at the end of its block everything that was sent is acknowledged and in `ledger`.
    """

    def __init__(self, settings: Settings, rate: float, ledger: Ledger) -> None:
        self._topic, self._rate, self._ledger = settings.topic_transactions, rate, ledger
        header = writer_header("transaction", settings.topic_transactions, schema_registry(settings))
        self._writer = EventWriter("transaction", header)
        self._producer = made(Producer, producer_config(settings) | _CONFIG)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send, name="traffic", daemon=True)
        self._run = uuid.uuid4().hex[:8]
        self._failure: Exception | None = None
        self.sent = 0

    def check(self) -> None:
        """Raises what the traffic ended with, if it did."""
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Send no more, and wait until all is acknowledged. Raises KafkaUnavailable when it is not."""
        self._stop.set()
        self._thread.join(_PATIENCE_SECONDS)
        waiting = self._producer.flush(_PATIENCE_SECONDS)
        self.check()
        if waiting or len(self._ledger) < self.sent:
            raise KafkaUnavailable(f"{self.sent - len(self._ledger)} of {self.sent} records were not acknowledged")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.stop()
        self._stop.set()

    def _send(self) -> None:
        try:
            pace = Pace(self._rate)
            start = (utc_now() - timedelta(days=2)).date()
            for batch in cycle(simulate(SimulationConfig(_DISTINCT_EVENTS, start=start, days=1, outcomes=False))):
                for piece in pace.slices(batch):
                    if self._stop.is_set():
                        return
                    self._send_piece(piece)
        except Exception as error:  # noqa: BLE001 told by whoever checks
            self._failure = as_error(error) if isinstance(error, KafkaException) else error

    def _send_piece(self, piece: pa.RecordBatch) -> None:
        numbers = range(self.sent, self.sent + piece.num_rows)
        ids = [f"{self._run}-{number}" for number in numbers]
        keys = piece.column("customer_id").to_pylist()
        values = self._writer.write(_as_now(piece, ids, [number % RUBBISH_EVERY == 0 for number in numbers]))
        for number, told, key, value in zip(numbers, ids, keys, values, strict=True):
            if number % RUBBISH_EVERY == 0:
                self._produce(key, _spoilt(value, number // RUBBISH_EVERY), None)
            else:
                self._produce(key, value, told)
        self._producer.poll(0)

    def _produce(self, key: str, value: bytes, told: str | None) -> None:
        acknowledge = partial(self._delivered, told, value)
        deadline = Deadline.after(_PATIENCE_SECONDS)
        while True:
            try:
                self._producer.produce(self._topic, value, key, on_delivery=acknowledge)
            except BufferError:
                if deadline.passed:
                    raise KafkaUnavailable(f"the broker took nothing for {_PATIENCE_SECONDS:.0f} s") from None
                self._producer.poll(0.05)
            else:
                self.sent += 1
                return

    def _delivered(self, told: str | None, value: bytes, error: Any, message: Any) -> None:
        if error is None:
            self._ledger.acknowledge(message.partition(), message.offset(), told, value)
        else:
            self._failure = as_error(KafkaException(error))


def _as_now(piece: pa.RecordBatch, ids: list[str], rubbish: list[bool]) -> pa.RecordBatch:
    """The checkouts under these ids, as of this moment; the rubbish ones with an amount below zero."""
    amounts = np.where(rubbish, -1.0, piece.column("amount").to_numpy())
    times = pa.array(np.full(piece.num_rows, int(utc_now().timestamp() * 1000)))
    for name, column in (("transaction_id", pa.array(ids)), ("transaction_timestamp", times), ("amount", amounts)):
        at = piece.schema.get_field_index(name)
        piece = piece.set_column(at, piece.schema.field(at), pa.array(column).cast(piece.schema.field(at).type))
    return piece


def _spoilt(value: bytes, turn: int) -> bytes:
    """Rubbish of three kinds by turns: cut off, no event at all, and one that decodes and cannot be right."""
    return (value[:-3], b"not an event", value)[turn % 3]
