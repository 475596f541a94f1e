"""Shadow events as rows of ClickHouse's table: names, types and order of its columns are derived here, nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from consumer.contracts.avro import Decoded, arrow_schema, scalar
from consumer.contracts.schemas import latest

TABLE = "shadow_scores"
_MILLISECONDS = pa.timestamp("ms", "UTC")
_TIMES = ("event_time", "scored_at")
_PLACE = ("shadow_partition", "shadow_offset")
_DISTINCT = ("prediction_id", "transaction_id", "customer_ref")


@cache
def row_schema() -> pa.Schema:
    """What the sink inserts: an array of records becomes one array column a field."""
    avro = latest("shadow_event").schema
    fields = []
    for each, told in zip(arrow_schema(avro), avro["fields"], strict=True):
        if _is_records(each.type):
            inner = zip(each.type.value_type, told["type"]["items"]["fields"], strict=True)
            fields += [_array(f"{each.name}.{field.name}", field.type, item["type"]) for field, item in inner]
        elif pa.types.is_list(each.type):
            fields.append(_array(each.name, each.type.value_type, told["type"]["items"]))
        else:
            fields.append(each.with_type(_MILLISECONDS) if each.name in _TIMES else each)
    return pa.schema([*fields, *(pa.field(name, pa.int64(), nullable=False) for name in _PLACE)])


def _array(name: str, kind: pa.DataType, avro_type: Any) -> pa.Field:
    """The decoder calls every item of an array nullable; the Avro schema knows."""
    _, nullable = scalar(avro_type) or ("", True)
    return pa.field(name, pa.list_(pa.field("item", kind, nullable)), nullable=False)


def rows(decoded: Decoded, partitions: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64]) -> pa.Table:
    """A row a decoded event, columns named and valued as in `row_schema`.

    `partitions` and `offsets` are those of the records that were handed to the decoder.
    """
    place = (pa.array(column[decoded.positions]) for column in (partitions, offsets))
    columns = [*_flat(decoded.batch), *place]
    schema = row_schema()
    return pa.table(
        [_packed(each.name, column.cast(each.type)) for column, each in zip(columns, schema, strict=True)],
        names=schema.names,
    )


def by_partition(table: pa.Table) -> list[pa.Table]:
    """The rows of each month, the table's partition key: a block of several partitions takes ClickHouse five times as
    long as blocks of one each, for it takes every array apart.
    """
    months = table.column("event_time").combine_chunks().cast(pa.int64()).to_numpy().astype("datetime64[ms]")
    months = months.astype("datetime64[M]")
    distinct = np.unique(months)
    return [table] if len(distinct) == 1 else [table.filter(pa.array(months == month)) for month in distinct]


def _packed(name: str, column: pa.Array) -> pa.Array:
    """Text that repeats as a dictionary: ClickHouse would otherwise look up every value of every row by itself."""
    if pa.types.is_list(column.type):
        return pa.ListArray.from_arrays(column.offsets, _packed(name, column.values))
    repeats = pa.types.is_string(column.type) and name not in _DISTINCT
    return column.dictionary_encode() if repeats else column


def _flat(batch: pa.RecordBatch) -> Iterator[pa.Array]:
    for column in batch.columns:
        if _is_records(column.type):
            for index in range(column.type.value_type.num_fields):
                yield pa.ListArray.from_arrays(column.offsets, column.values.field(index))
        else:
            yield column


def _is_records(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) and pa.types.is_struct(kind.value_type))
