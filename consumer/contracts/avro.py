"""Avro bodies to Arrow columns and back: `pyruhvro` (Rust) for speed, `fastavro` as the reference it is held to.

Both codecs accept the same bodies, give the same columns and refuse with the same reason. They work on the
*physical* schema: logical types dropped, `int` widened to `long` (the same bytes), so that neither library's own
conversions can differ; ranges are checked on the columns afterwards.
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


@dataclass(frozen=True)
class Decoded:
    """Columns of the good records, the position each row came from, and the records that were refused."""

    batch: pa.RecordBatch
    positions: Positions
    rejected: list[Rejected] = field(default_factory=list)


class BodyDecoder(Protocol):
    """Reads bodies written with one schema into that schema's columns."""

    def decode(self, bodies: Sequence[bytes]) -> Decoded: ...


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


def decoder(schema: Schema) -> BodyDecoder:
    """The fastest decoder that reads a writer schema rightly: Arrow's where every field is columnar."""
    if all(is_columnar(each["type"]) for each in schema["fields"]):
        return ArrowDecoder(schema)
    return ReferenceDecoder(schema)


class ReferenceDecoder:
    """fastavro, record by record: the reference, and the way for writer schemas that the fast path cannot read."""

    def __init__(self, schema: Schema) -> None:
        self._named: dict[str, Any] = {}
        self._strict = fastavro.parse_schema(schema, self._named)
        self._parsed = fastavro.parse_schema(physical(schema))
        self._arrow = arrow_schema(schema)

    def decode(self, bodies: Sequence[bytes]) -> Decoded:
        """Columns of the good bodies; see BodyDecoder."""
        rows, positions, rejected = [], [], []
        for position, body in enumerate(bodies):
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


class ArrowDecoder:
    """pyruhvro, a whole batch at once. A failing batch is halved until few enough are left for the reference."""

    def __init__(self, schema: Schema) -> None:
        self._reference = ReferenceDecoder(schema)
        self._fields = schema["fields"]
        self._ints = [each["name"] for each in schema["fields"] if (scalar(each["type"]) or "")[:1] == ("int",)]
        self._physical = json.dumps(physical(schema))
        self._arrow = arrow_schema(schema)

    def decode(self, bodies: Sequence[bytes]) -> Decoded:
        """Columns of the good bodies; see BodyDecoder."""
        good: list[tuple[Positions, pa.RecordBatch]] = []
        rejected: list[Rejected] = []
        self._split(bodies if isinstance(bodies, list) else list(bodies), 0, good, rejected)
        if len(good) == 1:
            positions, batch = good[0]
            return Decoded(batch, positions, rejected)
        return Decoded(
            pa.concat_batches([batch for _, batch in good]), np.concatenate([at for at, _ in good]), rejected
        )

    def _split(
        self, bodies: list[bytes], start: int, good: list[tuple[Positions, pa.RecordBatch]], rejected: list[Rejected]
    ) -> None:
        batch = self._read(bodies)
        if batch is not None:
            good.append((np.arange(start, start + len(bodies)), batch))
        elif len(bodies) <= _FEW:
            decided = self._reference.decode(bodies)
            good.append((decided.positions + start, decided.batch))
            rejected.extend(Rejected(start + bad.position, bad.reason) for bad in decided.rejected)
        else:
            half = len(bodies) // 2
            self._split(bodies[:half], start, good, rejected)
            self._split(bodies[half:], start + half, good, rejected)

    def _read(self, bodies: list[bytes]) -> pa.RecordBatch | None:
        """The bodies as columns, or None when at least one of them is bad."""
        try:
            batch = pyruhvro.deserialize_array(bodies, self._physical)
            if not all(map(_is_ascii, batch.columns)):
                batch.validate(full=True)  # pyruhvro does not check UTF-8, and Arrow believes what it is given
        except (ValueError, OverflowError):
            return None
        sizes = np.fromiter(map(len, bodies), np.int64, len(bodies))
        if not np.array_equal(_encoded_sizes(batch, self._fields), sizes) or not self._ints_fit(batch):
            return None
        return pa.RecordBatch.from_arrays(batch.columns, schema=self._arrow)

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


def _encoded_sizes(batch: pa.RecordBatch, fields: list[dict[str, Any]]) -> Positions:
    """How many bytes each row takes in its shortest Avro encoding; if a body has more, something was left over."""
    sizes = np.zeros(batch.num_rows, np.int64)
    for column, each in zip(batch.columns, fields, strict=True):
        sizes += _column_sizes(column, each["type"])
    return sizes


def _column_sizes(column: pa.Array, avro_type: Any) -> Positions | int:
    """Encoded bytes of each value; one number where all take the same. A union adds a byte for its branch."""
    union = int(isinstance(avro_type, list))
    kind = column.type
    if union and column.null_count == len(column):
        return union
    own: Positions | int
    if pa.types.is_string(kind):
        lengths = np.diff(_offsets(column))
        own = lengths + _varint_sizes(lengths << 1)
    elif pa.types.is_int64(kind):
        numbers = column.fill_null(0).to_numpy()
        own = _varint_sizes((numbers << 1) ^ (numbers >> 63))
    elif pa.types.is_list(kind):
        own = _list_sizes(column, avro_type["items"])
    else:
        own = 1 if pa.types.is_boolean(kind) else kind.bit_width // 8
    if column.null_count:
        own = own * column.is_valid().to_numpy(zero_copy_only=False)
    return own + union


def _list_sizes(column: pa.Array, items: Any) -> Positions:
    """One block: the count, the items, and a closing 0; an empty array is the 0 alone."""
    offsets = _offsets(column)
    counts = np.diff(offsets)
    values = column.values
    sizes = np.zeros(len(values), np.int64)
    if pa.types.is_struct(values.type):
        for index, each in enumerate(items["fields"]):
            sizes += _column_sizes(values.field(index), each["type"])
    else:
        sizes += _column_sizes(values, items)
    ends = np.concatenate(([0], np.cumsum(sizes)))
    return ends[offsets[1:]] - ends[offsets[:-1]] + (counts > 0) * _varint_sizes(counts << 1) + 1


def _offsets(column: pa.Array) -> Positions:
    offsets = np.frombuffer(column.buffers()[1], np.int32, len(column) + 1, column.offset * 4)
    return offsets.astype(np.int64)


def _varint_sizes(zigzagged: Positions) -> Positions:
    raw = zigzagged.view(np.uint64)
    sizes = np.ones(len(raw), np.int64)
    bound, top = 1 << 7, int(raw.max(initial=0))
    while bound <= top:
        sizes += raw >= np.uint64(bound)
        bound <<= 7
    return sizes


class ArrowEncoder:
    """Columns to bodies, a whole batch at once. Column types are those of `arrow_schema`, nested ones included."""

    def __init__(self, schema: Schema) -> None:
        self._physical = json.dumps(physical(schema))
        self.arrow_schema: pa.Schema = pyruhvro.avro_to_arrow_schema(self._physical)

    def encode(self, batch: pa.RecordBatch) -> list[bytes]:
        """One body a row."""
        (bodies,) = pyruhvro.serialize_record_batch(batch, self._physical, 1)
        result: list[bytes] = bodies.to_pylist()
        return result


class ReferenceEncoder:
    """fastavro, row by row: what ArrowEncoder is held to."""

    def __init__(self, schema: Schema) -> None:
        self._parsed = fastavro.parse_schema(physical(schema))

    def encode(self, batch: pa.RecordBatch) -> list[bytes]:
        """One body a row."""
        bodies = []
        for row in batch.to_pylist():
            body = io.BytesIO()
            fastavro.schemaless_writer(body, self._parsed, row)
            bodies.append(body.getvalue())
        return bodies
