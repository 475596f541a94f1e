"""JSON-like dicts as columns, strictly: Arrow alone would take 1 for "1" or True for 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from consumer.contracts.avro import Schema, scalar
from consumer.errors import InvalidRecord

_PYTHON_TYPES: dict[pa.DataType, set[type]] = {
    pa.string(): {str},
    pa.bool_(): {bool},
    pa.int64(): {int},
    pa.float64(): {int, float},
}
_GOOD_TYPES_KEPT = 1000


class Dicts:
    """Turns dicts into columns of one schema; fields that it does not name are ignored.

    A time may be ISO 8601 text (UTC when it names no zone), a datetime or milliseconds since 1970.
    """

    def __init__(self, schema: pa.Schema, avro: Schema) -> None:
        """`avro`: the record whose fields, or some of them, are the columns of `schema`."""
        types = {each["name"]: each["type"] for each in avro["fields"]}
        self.names = schema.names
        self._schema = schema
        self._row = pa.struct(list(schema))
        self._ints = [at for at, name in enumerate(schema.names) if (scalar(types[name]) or "")[:1] == ("int",)]
        self._times = [name for name in schema.names if "timestamp-millis" in str(types[name])]
        self._types = [_PYTHON_TYPES[each.type] | ({type(None)} if each.nullable else set()) for each in schema]
        self.good: set[tuple[type, ...]] = set()
        """Types of whole rows that were found right: most rows are like others, and need one look."""

    def columns(self, records: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
        """Raises InvalidRecord for the first value that is missing, of the wrong type or too large."""
        for name in self._times:
            records = [{**each, name: milliseconds(name, each.get(name))} for each in records]
        rows = [tuple([record.get(name) for name in self.names]) for record in records]
        for row in rows:
            types = tuple(map(type, row))
            if types not in self.good:
                self._check(types)
            for at in self._ints:
                number = row[at]
                if number is not None and not -(2**31) <= number < 2**31:
                    raise InvalidRecord("out_of_range", f"field {self.names[at]} does not fit an int", self.names[at])
        try:
            return pa.RecordBatch.from_struct_array(pa.array(rows, self._row))
        except (pa.ArrowException, ValueError, OverflowError):
            raise InvalidRecord("out_of_range", self._what_does_not_fit(rows)) from None

    def _check(self, types: tuple[type, ...]) -> None:
        for field, found, allowed in zip(self._schema, types, self._types, strict=True):
            if found not in allowed and found is type(None):
                raise InvalidRecord("missing_field", f"field {field.name} is missing", field.name)
            if found not in allowed:
                raise InvalidRecord("wrong_type", f"field {field.name} is not a {field.type}", field.name)
        if len(self.good) < _GOOD_TYPES_KEPT:
            self.good.add(types)

    def _what_does_not_fit(self, rows: list[tuple[Any, ...]]) -> str:
        for at, each in enumerate(self._schema):
            try:
                pa.array([row[at] for row in rows], each.type)
            except (pa.ArrowException, ValueError, OverflowError):
                return f"field {each.name} does not fit a {each.type}"
        return "a field does not fit its type"


def milliseconds(name: str, value: Any) -> Any:
    """The time of field `name` as milliseconds since 1970; what is neither text nor datetime as it is."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise InvalidRecord("wrong_type", f"field {name} is not an ISO 8601 time", name) from None
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        try:
            return round(aware.timestamp() * 1000)
        except ValueError:  # pandas' NaT is a datetime
            raise InvalidRecord("wrong_type", f"field {name} is not a time", name) from None
    return value
