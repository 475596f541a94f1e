"""Events as rows of ClickHouse's tables: names, types and order of their columns are derived here, nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from consumer.contracts.avro import Decoded, Schema, arrow_schema, scalar
from consumer.contracts.schemas import latest

_MILLISECONDS = pa.timestamp("ms", "UTC")


@dataclass(frozen=True)
class Table:
    """A table of the sink: the events of one kind of `schemas/`, a row each, and where in the topic each was read."""

    name: str
    kind: str
    time: str
    """The column whose month is the table's partition key."""
    place: tuple[str, str]
    """Columns of the topic's partition and offset; of rows with the same key the last offset stays."""
    key: tuple[str, ...]
    """What the table is ordered by."""
    distinct: frozenset[str]
    """Texts that hardly repeat."""
    left_out: frozenset[str] = frozenset()
    """Fields of the event that are not stored."""

    @cached_property
    def schema(self) -> pa.Schema:
        """What the sink inserts: an array of records becomes one array column a field."""
        avro = self._stored_fields
        fields = []
        for each, told in zip(arrow_schema(avro), avro["fields"], strict=True):
            if _is_records(each.type):
                inner = zip(each.type.value_type, told["type"]["items"]["fields"], strict=True)
                fields += [_array(f"{each.name}.{field.name}", field.type, item["type"]) for field, item in inner]
            elif pa.types.is_list(each.type):
                fields.append(_array(each.name, each.type.value_type, told["type"]["items"]))
            else:
                fields.append(each.with_type(_MILLISECONDS) if "timestamp-millis" in str(told["type"]) else each)
        return pa.schema([*fields, *(pa.field(name, pa.int64(), nullable=False) for name in self.place)])

    @property
    def _stored_fields(self) -> Schema:
        avro = latest(self.kind).schema
        return {**avro, "fields": [each for each in avro["fields"] if each["name"] not in self.left_out]}

    def rows(self, decoded: Decoded, partitions: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64]) -> pa.Table:
        """A row a decoded event, columns named and valued as in `schema`.

        `partitions` and `offsets` are those of the records that were handed to the decoder.
        """
        place = (pa.array(column[decoded.positions]) for column in (partitions, offsets))
        batch = decoded.batch.drop_columns([name for name in decoded.batch.schema.names if name in self.left_out])
        columns = [*_flat(batch), *place]
        return pa.table(
            [
                self._packed(each.name, column.cast(each.type))
                for column, each in zip(columns, self.schema, strict=True)
            ],
            names=self.schema.names,
        )

    def blocks(self, table: pa.Table) -> list[pa.Table]:
        """The rows of each month, the table's partition key: a block of several partitions takes ClickHouse five times
        as long as blocks of one each, for it takes every array apart.
        """
        months = table.column(self.time).combine_chunks().cast(pa.int64()).to_numpy().astype("datetime64[ms]")
        months = months.astype("datetime64[M]")
        distinct = np.unique(months)
        return [table] if len(distinct) == 1 else [table.filter(pa.array(months == month)) for month in distinct]

    def _packed(self, name: str, column: pa.Array) -> pa.Array:
        """Text that repeats as a dictionary: ClickHouse would otherwise look up every value of every row by itself."""
        if pa.types.is_list(column.type):
            return pa.ListArray.from_arrays(column.offsets, self._packed(name, column.values))
        repeats = pa.types.is_string(column.type) and name not in self.distinct
        return column.dictionary_encode() if repeats else column


SCORES = Table(
    name="shadow_scores",
    kind="shadow_event",
    time="event_time",
    place=("shadow_partition", "shadow_offset"),
    key=("transaction_id", "prediction_id"),
    distinct=frozenset(("prediction_id", "transaction_id", "customer_ref")),
)
OUTCOMES = Table(
    name="outcomes",
    kind="outcome",
    time="observed_at",
    place=("outcome_partition", "outcome_offset"),
    key=("transaction_id", "label", "version", "observed_at"),
    distinct=frozenset(("transaction_id",)),
    left_out=frozenset(("transaction_timestamp",)),
)


def _array(name: str, kind: pa.DataType, avro_type: Any) -> pa.Field:
    """The decoder calls every item of an array nullable; the Avro schema knows."""
    _, nullable = scalar(avro_type) or ("", True)
    return pa.field(name, pa.list_(pa.field("item", kind, nullable)), nullable=False)


def _flat(batch: pa.RecordBatch) -> Iterator[pa.Array]:
    for column in batch.columns:
        if _is_records(column.type):
            for index in range(column.type.value_type.num_fields):
                yield pa.ListArray.from_arrays(column.offsets, column.values.field(index))
        else:
            yield column


def _is_records(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) and pa.types.is_struct(kind.value_type))
