"""Avro's schema resolution on columns: what a writer wrote, as the reader's fields expect it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from consumer.contracts.avro import Decoded, Rejected, Schema, arrow_schema, is_columnar, scalar
from consumer.errors import InvalidRecord

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

    def __init__(self, writer: Schema, reader_fields: Sequence[dict[str, Any]]) -> None:
        written = {each["name"]: each for each in writer["fields"]}
        self._sources: list[str | None] = []
        self._defaults = [each.get("default") for each in reader_fields]
        for each in reader_fields:
            source = next((name for name in (each["name"], *each.get("aliases", ())) if name in written), None)
            if source is None and "default" not in each:
                raise InvalidRecord("missing_field", f"the writer's schema has no field {each['name']}")
            if source is not None and not _readable(written[source]["type"], each["type"]):
                raise InvalidRecord("wrong_type", f"the writer's field {source} cannot be read as the reader's")
            self._sources.append(source)
        self.schema = arrow_schema({"type": "record", "name": "Reader", "fields": list(reader_fields)})

    def resolve(self, decoded: Decoded) -> Decoded:
        """The reader's columns; a record with null where the reader needs a value is refused."""
        batch = decoded.batch
        columns = [
            pa.array([default], each.type).take(pa.array(np.zeros(batch.num_rows, np.int64)))
            if source is None
            else _conform(batch.column(source), each.type)
            for each, source, default in zip(self.schema, self._sources, self._defaults, strict=True)
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


def _readable(written: Any, wanted: Any) -> bool:
    """Whether one column type can be read as another; arrays are compared by their items, records when read."""
    have, want = scalar(written), scalar(wanted)
    if have is None or want is None:
        return have is want and is_columnar(written) and is_columnar(wanted)
    return want[0] in _PROMOTIONS.get(have[0], (have[0],))


def _conform(column: pa.Array, wanted: pa.DataType) -> pa.Array:
    """A column as another type: promoted, and in an array of records the wanted fields by name, null where absent."""
    if column.type == wanted:
        return column
    if pa.types.is_list(wanted):
        return pa.ListArray.from_arrays(column.offsets, _conform(column.values, wanted.value_type), type=wanted)
    if pa.types.is_struct(wanted):
        have = {column.type.field(index).name: column.field(index) for index in range(column.type.num_fields)}
        fields = list(wanted)
        children = [
            _conform(have[each.name], each.type) if each.name in have else pa.nulls(len(column), each.type)
            for each in fields
        ]
        return pa.StructArray.from_arrays(children, fields=fields)
    return column.cast(wanted, safe=False)
