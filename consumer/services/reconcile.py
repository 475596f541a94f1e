"""Proof by identity: every transaction in the topic has exactly one shadow event or dead letter, and every
prediction in the topic has its row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from clickhouse_connect.driver.client import Client
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from consumer.clock import Deadline
from consumer.contracts.dead_letter import header_names
from consumer.contracts.events import EventReader
from consumer.contracts.registry import schema_registry
from consumer.contracts.schemas import WriterSchemas, latest
from consumer.errors import KafkaUnavailable
from consumer.services.clickhouse import errors_named
from consumer.services.kafka import as_error, consumer_config, made
from consumer.services.loop import Batch
from consumer.settings import Settings

Keys = npt.NDArray[np.int64]

_SILENCE_SECONDS = 30.0
_READ_AT_ONCE = 10_000
_OFFSET_BITS = 44


@dataclass(frozen=True)
class Reconciliation:
    """Counts, and what does not add up: all of the last five are 0 when nothing was lost and nothing done twice."""

    produced: int
    scored: int
    dead_lettered: int
    stored: int
    predictions: int
    """Distinct prediction ids in the topic: a transaction sent twice is scored twice and stored once."""
    lost: int
    """Transactions with neither shadow event nor dead letter."""
    twice: int
    """Transactions with more than one of them."""
    unknown: int
    """Shadow events and dead letters of transactions that are not in the topic."""
    not_stored: int
    """Predictions without a row."""
    rows_too_many: int
    """Rows beyond one a prediction."""

    @property
    def holds(self) -> bool:
        return not (self.lost or self.twice or self.unknown or self.not_stored or self.rows_too_many)


def reconcile(settings: Settings, client: Client) -> Reconciliation:
    """Read the three topics from beginning to end, and the table, and compare them by identity.

    Takes memory for two numbers a transaction and its prediction id. Raises KafkaUnavailable or
    ClickHouseUnavailable when they do not answer.
    """
    produced = _concat(
        _keys(batch.partitions, batch.offsets) for batch in _records(settings, settings.topic_transactions)
    )
    scored, ids = _scored(settings)
    dead = _dead_lettered(settings)
    accounted, counts = np.unique(np.concatenate([scored, dead]), return_counts=True)
    predictions = pc.unique(ids)
    with errors_named():
        stored = client.query_arrow(
            "SELECT prediction_id FROM shadow_scores FINAL",
            settings={"output_format_arrow_string_as_string": 1},
        ).column(0)
    not_stored = (
        len(predictions) - pc.sum(pc.is_in(predictions, value_set=stored.combine_chunks())).as_py()
        if len(predictions)
        else 0
    )
    return Reconciliation(
        produced=len(produced),
        scored=len(scored),
        dead_lettered=len(dead),
        stored=len(stored),
        predictions=len(predictions),
        lost=int(np.isin(produced, accounted, invert=True, assume_unique=True).sum()),
        twice=int((counts > 1).sum()),
        unknown=int(np.isin(accounted, produced, invert=True, assume_unique=True).sum()),
        not_stored=int(not_stored),
        rows_too_many=max(0, len(stored) - (len(predictions) - int(not_stored))),
    )


def _scored(settings: Settings) -> tuple[Keys, pa.Array]:
    wanted = ("prediction_id", "source_partition", "source_offset")
    fields = [each for each in latest("shadow_event").schema["fields"] if each["name"] in wanted]
    reader = EventReader(WriterSchemas("shadow_event", schema_registry(settings)), fields)
    keys, ids = [], []
    for batch in _records(settings, settings.topic_shadow_scores):
        read = reader.read(batch.values).batch
        keys.append(_keys(read.column("source_partition").to_numpy(), read.column("source_offset").to_numpy()))
        ids.append(read.column("prediction_id"))
    return _concat(iter(keys)), pa.concat_arrays(ids) if ids else pa.array([], pa.string())


def _dead_lettered(settings: Settings) -> Keys:
    names = header_names()

    def source(message: Message) -> tuple[int, int] | None:
        told: dict[str, Any] = dict(message.headers() or ())
        topic, partition, offset = (told.get(names[name], b"").decode() for name in ("topic", "partition", "offset"))
        if topic != settings.topic_transactions or partition.startswith("-"):
            return None  # of another topic, or a line that never was in one
        return int(partition), int(offset)

    found = [
        at for batch in _records(settings, settings.topic_dead_letters) for at in map(source, batch.messages) if at
    ]
    partitions, offsets = (
        (np.array(column, np.int64) for column in zip(*found, strict=True)) if found else (np.empty(0, np.int64),) * 2
    )
    return _keys(partitions, offsets)


def _records(settings: Settings, topic: str) -> Iterator[Batch]:
    """All committed records that the topic holds now, whoever else reads it; commits nothing."""
    consumer = made(Consumer, consumer_config(settings, "bnpl-reconcile", "classic"))
    try:
        partitions = consumer.list_topics(topic, _SILENCE_SECONDS).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
        unfinished, deadline = set(partitions), Deadline.after(_SILENCE_SECONDS)
        while unfinished:
            messages = consumer.consume(_READ_AT_ONCE, 0.2)
            records = [message for message in messages if message.error() is None]
            for message in messages:
                error = message.error()
                if error is not None and error.code() == KafkaError._PARTITION_EOF:
                    unfinished.discard(message.partition())
            if records:
                yield Batch.of(records)
            if messages:
                deadline = Deadline.after(_SILENCE_SECONDS)
            elif deadline.passed:
                raise KafkaUnavailable(f"topic {topic} gave nothing for {_SILENCE_SECONDS:.0f} s")
    except KafkaException as error:
        raise as_error(error) from error
    finally:
        consumer.close()


def _keys(partitions: Keys, offsets: Keys) -> Keys:
    """One number for a record's place."""
    return (partitions << _OFFSET_BITS) | offsets


def _concat(parts: Iterator[Keys]) -> Keys:
    found = list(parts)
    return np.concatenate(found) if found else np.empty(0, np.int64)
