"""The producer's side: transactions from JSON lines or columns onto the topic, as its teams would send them."""

from __future__ import annotations

import gzip
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, BinaryIO, cast

import orjson
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import KafkaError, KafkaException, Producer

from consumer.clock import Deadline, utc_now
from consumer.contracts.avro import Rejected
from consumer.contracts.dead_letter import Coordinates, headers
from consumer.contracts.events import LABEL_FIELDS, EventWriter
from consumer.contracts.registry import schema_registry
from consumer.contracts.schemas import writer_header
from consumer.contracts.transaction import EVENT_SCHEMA, columns_from_dicts
from consumer.errors import InvalidRecord, KafkaUnavailable
from consumer.services.kafka import as_error, made, producer_config, require_topics
from consumer.settings import Settings

CHUNK_LINES = 2_000
_FLUSH_SECONDS = 30.0
_NOT_IN_A_TOPIC = -1


@dataclass(frozen=True)
class BadLine:
    """A line that is no transaction: its number from 1, its bytes, and why."""

    number: int
    content: bytes
    reason: InvalidRecord


@dataclass
class Lines:
    """One chunk of a file: the good lines as columns of EVENT_SCHEMA, and the others."""

    batch: pa.RecordBatch
    bad: list[BadLine] = field(default_factory=list)
    labels_stripped: Counter[str] = field(default_factory=Counter)


def read_lines(stream: BinaryIO) -> Iterator[Lines]:
    """Transactions of a JSON-lines stream, a chunk at a time; labels are dropped and counted here."""
    number = 0
    while chunk := list(islice(stream, CHUNK_LINES)):
        yield _parse(chunk, number)
        number += len(chunk)


def unpacked(raw: BinaryIO, name: str) -> BinaryIO:
    """The stream itself, or what is packed in it when the name ends in .gz."""
    return cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if name.endswith(".gz") else raw


def _parse(chunk: list[bytes], before: int) -> Lines:
    events: list[tuple[int, bytes, dict[str, Any]]] = []
    lines = Lines(pa.RecordBatch.from_pylist([], EVENT_SCHEMA))
    for number, content in enumerate(chunk, before + 1):
        if not content.strip():
            continue
        try:
            event = _loads(content)
        except (ValueError, RecursionError):
            lines.bad.append(BadLine(number, content, InvalidRecord("not_json", "the line is not a JSON object")))
            continue
        for label in LABEL_FIELDS:
            lines.labels_stripped[label] += label in event
        events.append((number, content, event))
    batches: list[pa.RecordBatch] = []
    _to_columns(events, batches, lines.bad)
    if batches:
        lines.batch = pa.Table.from_batches(batches).combine_chunks().to_batches()[0]
    return lines


def _loads(content: bytes) -> dict[str, Any]:
    """A JSON object; NaN and Infinity pass, as Python's own writer puts them: score says what is wrong with them."""
    try:
        event = orjson.loads(content)
    except orjson.JSONDecodeError:
        event = json.loads(content)
    if not isinstance(event, dict):
        raise ValueError("not an object")
    return event


def _to_columns(
    events: list[tuple[int, bytes, dict[str, Any]]], batches: list[pa.RecordBatch], bad: list[BadLine]
) -> None:
    """Columns of the events that can be sent, in order; a failing batch is halved until the bad lines stand alone."""
    if not events:
        return
    try:
        batches.append(columns_from_dicts([event for *_, event in events], EVENT_SCHEMA))
    except InvalidRecord as reason:
        if len(events) == 1:
            bad.append(BadLine(events[0][0], events[0][1], reason))
            return
        half = len(events) // 2
        _to_columns(events[:half], batches, bad)
        _to_columns(events[half:], batches, bad)


class TransactionSender:
    """Sends transactions to the topic, keyed by customer. `flush` before trusting `sent`."""

    def __init__(self, settings: Settings) -> None:
        topic = settings.topic_transactions
        require_topics(settings, topic, settings.topic_dead_letters)
        self._settings = settings
        self._writer = EventWriter("transaction", writer_header("transaction", topic, schema_registry(settings)))
        self._producer = made(
            Producer,
            producer_config(settings)
            | {"linger.ms": 20, "on_delivery": self._delivered, "delivery.report.only.error": True},
        )
        self._failed = 0
        self.sent = 0
        self.dead_letters = 0

    def _delivered(self, error: object, _: object) -> None:
        self._failed += error is not None

    def send(self, batch: pa.RecordBatch) -> None:
        """Queue a batch with the columns of EVENT_SCHEMA. Raises KafkaUnavailable when the queue stays full."""
        keys = batch.column("customer_id").to_pylist()
        values = self._writer.write(batch)
        messages: list[dict[str, Any]] = [{"key": key, "value": value} for key, value in zip(keys, values, strict=True)]
        self.send_values(messages)

    def send_values(self, messages: list[dict[str, Any]]) -> None:
        """Queue ready messages (dicts of key and value), waiting for room where there is none."""
        deadline = Deadline.after(_FLUSH_SECONDS)
        while messages:
            self.sent += self._producer.produce_batch(self._settings.topic_transactions, messages)
            messages = [message for message in messages if "_error" in message]
            refused = [message.pop("_error") for message in messages]
            for error in refused:
                if error.code() != KafkaError._QUEUE_FULL or deadline.passed:
                    raise as_error(KafkaException(error))
            self._producer.poll(0.05 if messages else 0)

    def refuse(self, line: BadLine) -> None:
        """Dead-letter a line that cannot be sent: it never was in the topic, so its partition is −1."""
        source = Coordinates(self._settings.topic_transactions, _NOT_IN_A_TOPIC, line.number)
        told: Any = headers((), source, Rejected(0, line.reason, "produce"), utc_now())
        deadline = Deadline.after(_FLUSH_SECONDS)
        while True:
            try:
                self._producer.produce(self._settings.topic_dead_letters, line.content, headers=told)
                break
            except BufferError:
                if deadline.passed:
                    raise KafkaUnavailable(f"the broker took nothing for {_FLUSH_SECONDS:.0f} s") from None
                self._producer.poll(0.05)
            except KafkaException as error:
                raise as_error(error) from error
        self.dead_letters += 1

    def flush(self) -> None:
        """Wait until the broker acknowledged everything. Raises KafkaUnavailable when it did not."""
        waiting = self._producer.flush(_FLUSH_SECONDS)
        if waiting or self._failed:
            raise KafkaUnavailable(
                f"{waiting + self._failed} of {self.sent + self.dead_letters} records were not acknowledged"
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
