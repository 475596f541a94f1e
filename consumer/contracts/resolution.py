"""Avro's schema resolution on columns: what a writer wrote, as the reader's fields expect it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from consumer.contracts.avro import ARROW_TYPES, Decoded, Rejected, Schema, simple_type
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
        columns: list[pa.Field] = []
        self._sources: list[str | None] = []
        self._defaults: list[Any] = []
        for each in reader_fields:
            wanted = simple_type(each["type"])
            if wanted is None:
                raise TypeError(f"reader field {each['name']} is not a scalar")
            source = next((name for name in (each["name"], *each.get("aliases", ())) if name in written), None)
            if source is None and "default" not in each:
                raise InvalidRecord("missing_field", f"the writer's schema has no field {each['name']}")
            if source is not None:
                found = simple_type(written[source]["type"])
                if found is None or wanted[0] not in _PROMOTIONS.get(found[0], (found[0],)):
                    raise InvalidRecord("wrong_type", f"the writer's field {source} cannot be read as {wanted[0]}")
            columns.append(pa.field(each["name"], ARROW_TYPES[wanted[0]], nullable=wanted[1]))
            self._sources.append(source)
            self._defaults.append(each.get("default"))
        self.schema = pa.schema(columns)

    def resolve(self, decoded: Decoded) -> Decoded:
        """The reader's columns; a record with null where the reader needs a value is refused."""
        batch = decoded.batch
        columns = [
            pa.array([default], each.type).take(pa.array(np.zeros(batch.num_rows, np.int64)))
            if source is None
            else batch.column(source).cast(each.type, safe=False)
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
