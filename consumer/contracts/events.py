"""Events as messages carry them: framing, writer schema, resolution and codec behind one reader and one writer."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa

from consumer.contracts.avro import ArrowEncoder, Decoded, Decoder, Rejected, Schema, decoder
from consumer.contracts.resolution import Resolution
from consumer.contracts.schemas import WriterSchemas, header_of, latest
from consumer.errors import InvalidRecord

LABEL_FIELDS = ("will_default", "days_to_first_missed_payment")
"""What only the future knows. A writer may send it; it is never read, only counted."""


class EventReader:
    """Turns message values into columns of the reader's fields, whatever known schema each was written with."""

    def __init__(self, writers: WriterSchemas, fields: Sequence[dict[str, Any]]) -> None:
        self._writers = writers
        self._fields = fields
        self._parsers: dict[bytes, _Parser] = {}
        self._refused: dict[bytes, InvalidRecord] = {}
        self._last_header = b"\xff"
        self.labels_stripped: Counter[str] = Counter()
        """Records read so far whose writer sent a label field, by field."""

    def read(self, values: Sequence[bytes | None]) -> Decoded:
        """Columns of the good values; positions index `values`, and rows keep its order.

        Raises SchemaRegistryUnavailable when a schema must be looked up and the registry is away.
        """
        parser = self._parsers.get(self._last_header)
        whole = parser.parse_all(values) if parser and values else None
        return whole or self._read_mixed(values)

    def _read_mixed(self, values: Sequence[bytes | None]) -> Decoded:
        rejected: list[Rejected] = []
        groups: dict[bytes, list[int]] = defaultdict(list)
        for position, value in enumerate(values):
            try:
                groups[self._known_header(value)].append(position)
            except InvalidRecord as reason:
                rejected.append(Rejected(position, reason))
        batches, positions = [], []
        for header, members in groups.items():
            decoded = self._parsers[header].parse([values[at] for at in members])  # type: ignore[misc]
            batches.append(decoded.batch)
            positions.append(np.array(members)[decoded.positions])
            rejected.extend(Rejected(members[bad.position], bad.reason) for bad in decoded.rejected)
            self._last_header = header
        if not batches:
            return Decoded(self._empty(), np.empty(0, np.int64), rejected)
        order = np.argsort(np.concatenate(positions), kind="stable")
        together = pa.Table.from_batches(batches).take(pa.array(order)).combine_chunks()
        batch = together.to_batches()[0] if together.num_rows else self._empty()
        return Decoded(batch, np.concatenate(positions)[order], rejected)

    def _known_header(self, value: bytes | None) -> bytes:
        if value is None:
            raise InvalidRecord("tombstone", "the record has no value")
        if not value:
            raise InvalidRecord("empty", "the record's value is empty")
        header = header_of(value)
        if header in self._refused:
            raise self._refused[header]
        if header not in self._parsers:
            try:
                schema = self._writers.find(header)
                self._parsers[header] = _Parser(schema, header, self._fields, self.labels_stripped)
            except InvalidRecord as reason:
                if reason.error != "unknown_schema":  # that one may be registered yet
                    self._refused[header] = reason
                raise
        return header

    def _empty(self) -> pa.RecordBatch:
        reader: Schema = {"fields": self._fields}
        return pa.RecordBatch.from_pylist([], Resolution(reader, self._fields).schema)


class _Parser:
    """Decoder and resolution of one writer schema, whose values start with `header`."""

    def __init__(self, writer: Schema, header: bytes, fields: Sequence[dict[str, Any]], labels: Counter[str]) -> None:
        self._resolution = Resolution(writer, fields)
        try:
            self._decoder: Decoder = decoder(writer, header)
        except (ValueError, fastavro.schema.SchemaParseException):
            raise InvalidRecord(
                "unusable_schema", "the writer's schema has names or types that Avro does not allow"
            ) from None
        self._labels = labels
        self._label_fields = [each["name"] for each in writer["fields"] if each["name"] in LABEL_FIELDS]

    def parse_all(self, values: Sequence[bytes | None]) -> Decoded | None:
        """All values at once, as live traffic nearly always can be; None when one needs a closer look."""
        batch = self._decoder.decode_all(values)
        return None if batch is None else self._resolved(Decoded(batch, np.arange(len(values))))

    def parse(self, values: list[bytes]) -> Decoded:
        """Values that all start with the header."""
        return self._resolved(self._decoder.decode(values))

    def _resolved(self, decoded: Decoded) -> Decoded:
        for name in self._label_fields:
            self._labels[name] += decoded.batch.num_rows
        return self._resolution.resolve(decoded)


class EventWriter:
    """Turns columns into message values of the newest version of a schema."""

    def __init__(self, name: str, header: bytes) -> None:
        """`header` comes from `schemas.writer_header`."""
        self._encoder = ArrowEncoder(latest(name).schema, header)

    @property
    def arrow_schema(self) -> pa.Schema:
        """The columns that `write` expects."""
        return self._encoder.arrow_schema

    def write(self, batch: pa.RecordBatch) -> list[bytes]:
        """One message value a row."""
        return self._encoder.encode(batch)
