"""A producer's side of a topic: batches of columns onto it, and lines that cannot be sent to its dead letters."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from confluent_kafka import KafkaError, KafkaException, Producer

from consumer.clock import Deadline, utc_now
from consumer.contracts.avro import Rejected
from consumer.contracts.dead_letter import Coordinates, headers
from consumer.contracts.events import EventWriter
from consumer.contracts.registry import schema_registry
from consumer.contracts.schemas import writer_header
from consumer.errors import KafkaUnavailable
from consumer.services.kafka import as_error, made, producer_config, require_topics
from consumer.services.lines import BadLine
from consumer.settings import Settings

_FLUSH_SECONDS = 30.0
_NOT_IN_A_TOPIC = -1


class Sender:
    """Sends events of one kind to a topic. `flush` before trusting `sent`."""

    def __init__(
        self, settings: Settings, kind: str, topic: str, dead_letters: str, key: str, patience: float | None = None
    ) -> None:
        """`kind` is that of `schemas/`; `key` the column that becomes the records' key; `patience`: seconds that the
        broker has to acknowledge what was sent, else those of client.properties, 30 at the most.
        """
        require_topics(settings, topic, dead_letters)
        self._topic, self._letters, self._key = topic, dead_letters, key
        self._writer = EventWriter(kind, writer_header(kind, topic, schema_registry(settings)))
        self._producer = made(
            Producer,
            producer_config(settings)
            | {"linger.ms": 20, "on_delivery": self._delivered, "delivery.report.only.error": True}
            | ({} if patience is None else {"delivery.timeout.ms": int(patience * 1000)}),
        )
        self._patience = patience or _FLUSH_SECONDS
        self._failed = 0
        self.sent = 0
        self.dead_letters = 0

    def _delivered(self, error: object, _: object) -> None:
        self._failed += error is not None

    def send(self, batch: pa.RecordBatch) -> None:
        """Queue a batch with every column of the kind. Raises KafkaUnavailable when the queue stays full."""
        keys = batch.column(self._key).to_pylist()
        values = self._writer.write(batch)
        messages: list[dict[str, Any]] = [{"key": key, "value": value} for key, value in zip(keys, values, strict=True)]
        self.send_values(messages)

    def send_values(self, messages: list[dict[str, Any]]) -> None:
        """Queue ready messages (dicts of key and value), waiting for room where there is none."""
        deadline = Deadline.after(_FLUSH_SECONDS)
        while messages:
            self.sent += self._producer.produce_batch(self._topic, messages)
            messages = [message for message in messages if "_error" in message]
            refused = [message.pop("_error") for message in messages]
            for error in refused:
                if error.code() != KafkaError._QUEUE_FULL or deadline.passed:
                    raise as_error(KafkaException(error))
            self._producer.poll(0.05 if messages else 0)

    def refuse(self, line: BadLine) -> None:
        """Dead-letter a line that cannot be sent: it never was in the topic, so its partition is −1."""
        source = Coordinates(self._topic, _NOT_IN_A_TOPIC, line.number)
        told: Any = headers((), source, Rejected(0, line.reason, "produce"), utc_now())
        deadline = Deadline.after(_FLUSH_SECONDS)
        while True:
            try:
                self._producer.produce(self._letters, line.content, headers=told)
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
        waiting = self._producer.flush(self._patience)
        if waiting or self._failed:
            raise KafkaUnavailable(
                f"{waiting + self._failed} of {self.sent + self.dead_letters} records were not acknowledged"
            )
