"""Avro bodies to Arrow columns and back: `pyruhvro` (Rust) for speed, `fastavro` as the reference it is held to.

Both codecs accept the same bodies, give the same columns and refuse with the same reason. They work on the
*physical* schema: logical types dropped, `int` widened to `long` (the same bytes), so that neither library's own
conversions can differ; ranges are checked on the columns afterwards.

A message's framing (`contracts.schemas`) is read and written as two more fields in front of the body, so that no
value is copied to take it off or put it on: a marker that is a `long` by its bytes, and the schema's name as the bits
of a `double` or `float`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import fastavro
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyruhvro

from consumer.contracts import wire
from consumer.errors import InvalidRecord

Schema = dict[str, Any]
Positions = npt.NDArray[np.int64]

_FEW = 16
"""About as many records as the reference reads in the time that pyruhvro and its checks take for any small batch."""

SCALARS = ("string", "boolean", "int", "long", "float", "double")


@dataclass(frozen=True)
class Rejected:
    """A record that cannot be used: its position in what was handed in, why, and which step says so."""

    position: int
    reason: InvalidRecord
    stage: str = "decode"

    def __post_init__(self) -> None:
        """A reason may be kept for long and be raised again: it must not hold the frames it came through, each of which
        holds a batch of records, nor gather more of them.
        """
        self.reason.__traceback__ = self.reason.__context__ = self.reason.__cause__ = None


@dataclass(frozen=True)
class Decoded:
    """Columns of the good records, the position each row came from, and the records that were refused."""

    batch: pa.RecordBatch
    positions: Positions
    rejected: list[Rejected] = field(default_factory=list)


class Decoder(Protocol):
    """Reads values with one header, and bodies written with one schema, into that schema's columns."""

    def decode(self, values: Sequence[bytes]) -> Decoded:
        """Columns of the good values, all of which have the header; the others with their reasons."""

    def decode_all(self, values: Sequence[bytes | None]) -> pa.RecordBatch | None:
        """One row a value; None when any of them is bad, has another header or is None."""


class _Frame:
    """A header as the two fields that stand before the body's."""

    def __init__(self, header: bytes) -> None:
        self.length = len(header)
        self.fields: list[Schema] = []
        if header:
            name_length, kind = {10: (8, "double"), 5: (4, "float")}[len(header)]
            self.fields = [{"name": "frame_marker", "type": "long"}, {"name": "frame_schema", "type": kind}]
            self._marker = -98 if name_length == 8 else 0  # C3 01, or 00, as Avro writes a long
            self._name = np.frombuffer(header[-name_length:], f"<i{name_length}")
            """As bits: the name may be one of the floats that do not equal themselves."""

    def matches(self, columns: list[pa.Array]) -> bool:
        """Whether all rows of the two columns, which `fields` made, are this header."""
        if not self.fields:
            return True
        marker, name = columns
        same_name: bool = (name.to_numpy().view(self._name.dtype) == self._name).all()
        return same_name and bool((marker.to_numpy() == self._marker).all())

    def columns(self, rows: int) -> list[pa.Array]:
        """The header for every row."""
        if not self.fields:
            return []
        name = np.repeat(self._name, rows).view(f"<f{self._name.itemsize}")
        return [pa.array(np.full(rows, self._marker, np.int64)), pa.array(name)]


def physical(schema: Any) -> Any:
    """A schema without logical types and docs, and with `int` read as `long`."""
    if isinstance(schema, list):
        return [physical(branch) for branch in schema]
    if isinstance(schema, str):
        return "long" if schema == "int" else schema
    if schema["type"] not in ("record", "enum", "fixed", "array", "map"):
        return physical(schema["type"])
    kept = {key: schema[key] for key in ("type", "name", "namespace", "symbols", "size") if key in schema}
    if "fields" in schema:
        kept["fields"] = [{"name": each["name"], "type": physical(each["type"])} for each in schema["fields"]]
    for inner in ("items", "values"):
        if inner in schema:
            kept[inner] = physical(schema[inner])
    return kept


def scalar(field_type: Any) -> tuple[str, bool] | None:
    """(type name, nullable) of a scalar or nullable scalar, else None. Logical types are looked through."""
    if isinstance(field_type, dict):
        return scalar(field_type["type"])
    if isinstance(field_type, str):
        return (field_type, False) if field_type in SCALARS else None
    branches = [branch for branch in field_type if branch != "null"]
    inner = scalar(branches[0]) if len(branches) == 1 and len(field_type) == 2 else None
    return (inner[0], True) if inner else None


def is_columnar(field_type: Any, *, nested: bool = False) -> bool:
    """Whether a field can be a column here: a scalar, a nullable scalar, or an array of scalars or flat records."""
    kind = scalar(field_type)
    if kind is not None:
        return not (nested and kind[0] == "int")  # ranges are checked on top-level columns only
    if nested or not isinstance(field_type, dict) or field_type["type"] != "array":
        return False
    items = field_type["items"]
    if isinstance(items, dict) and items["type"] == "record":
        fields = items["fields"]  # pyruhvro counts records without fields for as long as a body tells it to
        return bool(fields) and all(is_columnar(each["type"], nested=True) for each in fields)
    return is_columnar(items, nested=True)


def arrow_schema(schema: Schema) -> pa.Schema:
    """The columns of a record, in its order; a field that cannot be a column is left out."""
    columnar = {**schema, "fields": [each for each in schema["fields"] if is_columnar(each["type"])]}
    return pyruhvro.avro_to_arrow_schema(json.dumps(physical(columnar)))


def framed(schema: Schema, frame: _Frame) -> str:
    """The physical schema of whole values, as JSON."""
    body = physical(schema)
    return json.dumps({**body, "fields": [*frame.fields, *body["fields"]]})


def decoder(schema: Schema, header: bytes = b"") -> Decoder:
    """The fastest decoder that reads a writer schema rightly: Arrow's where every field is columnar."""
    if all(is_columnar(each["type"]) for each in schema["fields"]):
        return ArrowDecoder(schema, header)
    return ReferenceDecoder(schema, header)


class ReferenceDecoder:
    """fastavro, record by record: the reference, and the way for writer schemas that the fast path cannot read."""

    def __init__(self, schema: Schema, header: bytes = b"") -> None:
        self._header = header
        self._named: dict[str, Any] = {}
        self._strict = fastavro.parse_schema(schema, self._named)
        self._parsed = fastavro.parse_schema(physical(schema))
        self._arrow = arrow_schema(schema)

    def decode(self, values: Sequence[bytes]) -> Decoded:
        """Columns of the good values; see Decoder."""
        rows, positions, rejected = [], [], []
        for position, value in enumerate(values):
            body = value[len(self._header) :]
            try:
                wire.check(body, self._strict, self._named)
            except InvalidRecord as reason:
                rejected.append(Rejected(position, reason))
                continue
            row: Any = fastavro.schemaless_reader(io.BytesIO(body), self._parsed, None)
            rows.append(row)
            positions.append(position)
        columns = [pa.array([row[each.name] for row in rows], each.type) for each in self._arrow]
        batch = pa.RecordBatch.from_arrays(columns, schema=self._arrow)
        return Decoded(batch, np.array(positions, np.int64), rejected)

    def decode_all(self, values: Sequence[bytes | None]) -> pa.RecordBatch | None:
        """One row a value, or None; see Decoder."""
        present = [value for value in values if value is not None and value.startswith(self._header)]
        decoded = self.decode(present) if len(present) == len(values) else None
        return None if decoded is None or decoded.rejected else decoded.batch


class ArrowDecoder:
    """pyruhvro, a whole batch at once. A failing batch is halved until few enough are left for the reference."""

    def __init__(self, schema: Schema, header: bytes = b"") -> None:
        self._reference = ReferenceDecoder(schema, header)
        self._frame = _Frame(header)
        self._fields = schema["fields"]
        self._ints = [each["name"] for each in schema["fields"] if (scalar(each["type"]) or "")[:1] == ("int",)]
        self._physical = framed(schema, self._frame)
        self._arrow = arrow_schema(schema)

    def decode(self, values: Sequence[bytes]) -> Decoded:
        """Columns of the good values; see Decoder."""
        good: list[tuple[Positions, pa.RecordBatch]] = []
        rejected: list[Rejected] = []
        self._split(values if isinstance(values, list) else list(values), 0, good, rejected)
        if len(good) == 1:
            positions, batch = good[0]
            return Decoded(batch, positions, rejected)
        return Decoded(
            pa.concat_batches([batch for _, batch in good]), np.concatenate([at for at, _ in good]), rejected
        )

    def _split(
        self, values: list[bytes], start: int, good: list[tuple[Positions, pa.RecordBatch]], rejected: list[Rejected]
    ) -> None:
        batch = self.decode_all(values)
        if batch is not None:
            good.append((np.arange(start, start + len(values)), batch))
        elif len(values) <= _FEW:
            decided = self._reference.decode(values)
            good.append((decided.positions + start, decided.batch))
            rejected.extend(Rejected(start + bad.position, bad.reason) for bad in decided.rejected)
        else:
            half = len(values) // 2
            self._split(values[:half], start, good, rejected)
            self._split(values[half:], start + half, good, rejected)

    def decode_all(self, values: Sequence[bytes | None]) -> pa.RecordBatch | None:
        """One row a value, or None; see Decoder."""
        try:
            batch = pyruhvro.deserialize_array(values, self._physical)
            if not all(map(_is_ascii, batch.columns)):
                batch.validate(full=True)  # pyruhvro does not check UTF-8, and Arrow believes what it is given
        except (ValueError, OverflowError, TypeError):  # a TypeError is a value that is None
            return None
        columns = batch.columns
        if not self._frame.matches(columns[: len(self._frame.fields)]):
            return None
        batch = pa.RecordBatch.from_arrays(columns[len(self._frame.fields) :], schema=self._arrow)
        bodies = sum(map(len, values)) - self._frame.length * len(values)  # type: ignore[arg-type]
        if _encoded_bytes(batch, self._fields) != bodies or not self._ints_fit(batch):
            return None
        return batch

    def _ints_fit(self, batch: pa.RecordBatch) -> bool:
        for name in self._ints:
            limits = pc.min_max(batch.column(name))
            if limits["min"].is_valid and (limits["min"].as_py() < -(2**31) or limits["max"].as_py() >= 2**31):
                return False
        return True


def _is_ascii(column: pa.Array) -> bool:
    """Whether all text of a column is ASCII, and so UTF-8: ten times cheaper to tell than valid UTF-8."""
    kind = column.type
    if pa.types.is_list(kind):
        return _is_ascii(column.values)
    if pa.types.is_struct(kind):
        return all(_is_ascii(column.field(index)) for index in range(kind.num_fields))
    text = column.buffers()[2] if pa.types.is_string(kind) else None
    return text is None or int(np.frombuffer(text, np.uint8).max(initial=0)) < 0x80


def _encoded_bytes(batch: pa.RecordBatch, fields: list[dict[str, Any]]) -> int:
    """Bytes of all rows in their shortest Avro encoding: no row can have fewer, so if all have more, one had something
    left over. What pyruhvro may have read otherwise than the reference is counted short, so that the reference decides.
    """
    return sum(_column_bytes(column, each["type"]) for column, each in zip(batch.columns, fields, strict=True))


def _column_bytes(column: pa.Array, avro_type: Any) -> int:
    """Encoded bytes of a column's values. A union adds a byte for its branch, and null is nothing else."""
    unions = len(column) if isinstance(avro_type, list) else 0
    if unions and column.null_count == len(column):
        return unions
    kind, own = column.type, 0
    if pa.types.is_string(kind):
        lengths = np.diff(_offsets(column))
        own = int(lengths.sum()) + _varint_bytes(lengths << 1) - column.null_count  # a null is a string of length 0
    elif pa.types.is_int64(kind):
        numbers = column.drop_null().to_numpy()
        own = _varint_bytes((numbers << 1) ^ (numbers >> 63))
    elif pa.types.is_list(kind):
        own = _list_bytes(column, avro_type["items"])
    else:
        own = (1 if pa.types.is_boolean(kind) else kind.bit_width // 8) * (len(column) - column.null_count)
    if pa.types.is_float32(kind):
        own -= _signalling(column)
    return own + unions


def _signalling(column: pa.Array) -> int:
    """How many floats are signalling NaNs: Python's float, and so the reference, has only quiet ones."""
    magnitude = column.drop_null().view(pa.uint32()).to_numpy() & 0x7FFFFFFF
    return int(np.count_nonzero((magnitude > 0x7F800000) & (magnitude < 0x7FC00000)))


def _list_bytes(column: pa.Array, items: Any) -> int:
    """One block each: the count, the items, and a closing 0; an empty array is the 0 alone."""
    counts = np.diff(_offsets(column))
    values = column.flatten()
    fields = items["fields"] if pa.types.is_struct(values.type) else [{"type": items}]
    children = values.flatten() if pa.types.is_struct(values.type) else [values]
    inner = sum(_column_bytes(child, each["type"]) for child, each in zip(children, fields, strict=True))
    return inner + _varint_bytes(counts[counts > 0] << 1) + len(column)


def _offsets(column: pa.Array) -> Positions:
    offsets = np.frombuffer(column.buffers()[1], np.int32, len(column) + 1, column.offset * 4)
    return offsets.astype(np.int64)


def _varint_bytes(zigzagged: Positions) -> int:
    raw = zigzagged.view(np.uint64)
    total, bound, top = len(raw), 1 << 7, int(raw.max(initial=0))
    while bound <= top and bound < 1 << 63:  # a tenth byte is counted short: pyruhvro ignores seven of its bits
        total += int(np.count_nonzero(raw >= np.uint64(bound)))
        bound <<= 7
    return total


class ArrowEncoder:
    """Columns to values, a whole batch at once. Column types are those of `arrow_schema`, nested ones included."""

    def __init__(self, schema: Schema, header: bytes = b"") -> None:
        self._frame = _Frame(header)
        self._framed = framed(schema, self._frame)
        self.arrow_schema: pa.Schema = pyruhvro.avro_to_arrow_schema(json.dumps(physical(schema)))
        self._framed_arrow: pa.Schema = pyruhvro.avro_to_arrow_schema(self._framed)

    def encode(self, batch: pa.RecordBatch) -> list[bytes]:
        """One value a row: the header, then the body."""
        columns = [*self._frame.columns(batch.num_rows), *batch.columns]
        whole = pa.RecordBatch.from_arrays(columns, schema=self._framed_arrow)
        (values,) = pyruhvro.serialize_record_batch(whole, self._framed, 1)
        result: list[bytes] = values.to_pylist()
        return result


class ReferenceEncoder:
    """fastavro, row by row: what ArrowEncoder is held to."""

    def __init__(self, schema: Schema) -> None:
        self._parsed = fastavro.parse_schema(physical(schema))

    def encode(self, batch: pa.RecordBatch) -> list[bytes]:
        """One body a row, without a header."""
        bodies = []
        for row in batch.to_pylist():
            body = io.BytesIO()
            fastavro.schemaless_writer(body, self._parsed, row)
            bodies.append(body.getvalue())
        return bodies
