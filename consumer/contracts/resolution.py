"""Avro's schema resolution on columns: what a writer wrote, as the reader's fields expect it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from consumer.contracts.avro import Decoded, Rejected, Schema, arrow_schema, is_columnar, scalar
from consumer.errors import InvalidRecord

Field = dict[str, Any]

_PROMOTIONS = {
    "int": ("int", "long", "float", "double"),
    "long": ("long", "float", "double"),
    "float": ("float", "double"),
}
"""Which reader types a writer type may be read as, itself first (Avro specification, "Schema Resolution")."""


class Resolution:
    """Reads a writer's columns as a reader's fields: by name or alias, promoted, or filled with the default.

    Raises InvalidRecord when the two schemas can never agree: then no record of that writer can be used.
    """

    def __init__(self, writer: Schema, reader_fields: Sequence[Field]) -> None:
        written = {each["name"]: each["type"] for each in writer["fields"]}
        self._fields = tuple(reader_fields)
        self._sources = [_source(each, written) for each in self._fields]
        for each, source in zip(self._fields, self._sources, strict=True):
            if source is None and "default" not in each:
                raise InvalidRecord("missing_field", f"the writer's schema has no field {each['name']}")
            if source is not None and not _readable(written[source], each["type"]):
                raise InvalidRecord("wrong_type", f"the writer's field {source} cannot be read as the reader's")
        self.schema = arrow_schema({"type": "record", "name": "Reader", "fields": list(reader_fields)})

    def resolve(self, decoded: Decoded) -> Decoded:
        """The reader's columns; a record with null where the reader needs a value is refused."""
        batch = decoded.batch
        columns = [
            _filled(field["default"], each.type, batch.num_rows)
            if source is None
            else _conform(batch.column(source), each.type, field["type"])
            for each, source, field in zip(self.schema, self._sources, self._fields, strict=True)
        ]
        keep = np.ones(batch.num_rows, bool)
        rejected = list(decoded.rejected)
        for each, column in zip(self.schema, columns, strict=True):
            if column.null_count and not each.nullable:
                missing = keep & column.is_null().to_numpy(zero_copy_only=False)
                reason = InvalidRecord("missing_value", f"field {each.name} is null")
                rejected.extend(Rejected(int(position), reason) for position in decoded.positions[missing])
                keep &= ~missing
        if keep.all():
            return Decoded(pa.RecordBatch.from_arrays(columns, schema=self.schema), decoded.positions, rejected)
        kept = pa.array(np.flatnonzero(keep))
        columns = [column.take(kept) for column in columns]
        return Decoded(pa.RecordBatch.from_arrays(columns, schema=self.schema), decoded.positions[keep], rejected)


def _source(wanted: Field, written: Iterable[str]) -> str | None:
    """The written name under which a reader's field is found: its own, else an alias."""
    return next((name for name in (wanted["name"], *wanted.get("aliases", ())) if name in written), None)


def _readable(written: Any, wanted: Any) -> bool:
    """Whether one column type can be read as another.

    Nulls are refused record by record in top-level columns only, so within an array a null cannot stand for a value.
    """
    have, want = scalar(written), scalar(wanted)
    if have is not None and want is not None:
        return want[0] in _PROMOTIONS.get(have[0], (have[0],))
    if have is not None or want is not None or not (is_columnar(written) and is_columnar(wanted)):
        return False
    return _items_readable(written["items"], wanted["items"])


def _items_readable(written: Any, wanted: Any) -> bool:
    have, want = scalar(written), scalar(wanted)
    if have is not None and want is not None:
        return _readable(written, wanted) and have[1] <= want[1]
    if have is not None or want is not None:
        return False
    inner = {each["name"]: each["type"] for each in written["fields"]}
    return all(
        "default" in each if (source := _source(each, inner)) is None else _items_readable(inner[source], each["type"])
        for each in wanted["fields"]
    )


def _filled(default: Any, kind: pa.DataType, length: int) -> pa.Array:
    return pa.array([default], kind).take(pa.array(np.zeros(length, np.int64)))


def _conform(column: pa.Array, wanted: pa.DataType, avro_type: Any) -> pa.Array:
    """A column as another type: promoted, and in an array of records the wanted fields by name or with defaults."""
    if column.type == wanted:
        return column
    if pa.types.is_list(wanted):
        items = _conform(column.values, wanted.value_type, avro_type["items"])
        return pa.ListArray.from_arrays(column.offsets, items, type=wanted)
    if pa.types.is_struct(wanted):
        have = {column.type.field(index).name: column.field(index) for index in range(column.type.num_fields)}
        children = [
            _filled(field["default"], each.type, len(column))
            if (source := _source(field, have)) is None
            else _conform(have[source], each.type, field["type"])
            for each, field in zip(wanted, avro_type["fields"], strict=True)
        ]
        return pa.StructArray.from_arrays(children, fields=list(wanted))
    return column.cast(wanted, safe=False)
