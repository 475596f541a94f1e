"""Avro's binary encoding walked byte by byte: says what is wrong with a body, and in which field.

Slow and strict, for records that the fast path refused. A body is accepted only when it is *the* encoding of what
it says: nothing missing, nothing left over, numbers in their shortest form, booleans 0 or 1. (The decoding libraries
each let some of these pass, and not the same ones.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from consumer.errors import InvalidRecord

_FIXED_WIDTH = {"float": 4, "double": 8, "null": 0}
_LONGEST_VARINT = 10
_DEEPEST = 150
"""Values within values, as records, arrays, maps and unions hold them: at most four Python frames each."""
_MOST_EMPTY = 10_000
"""Items and fields of no bytes (nulls, empty records) that one body may claim: its length bounds all others, but not
these. A schema may multiply them too: ten empty records in a record, ten of those in the next, …
"""


def check(body: bytes, schema: Any, named: Mapping[str, Any]) -> None:
    """Walk a record's body by its writer schema. Raises InvalidRecord that names the fault and the field.

    `schema` and `named` (full name → definition) are what `fastavro.parse_schema` makes of a schema.
    """
    walk = _Walk(body, named)
    walk.value(schema)
    if walk.at != len(body):
        raise InvalidRecord("trailing_bytes", f"{len(body) - walk.at} bytes are left over after the last field")


class _Walk:
    def __init__(self, body: bytes, named: Mapping[str, Any]) -> None:
        self.body = body
        self.named = named
        self.at = 0
        self.depth = 0
        self.empty = 0
        self.field = "the record"

    def value(self, schema: Any) -> None:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise InvalidRecord("too_deep", f"{self.field} nests values more than {_DEEPEST} deep")
        if isinstance(schema, list):
            self.value(schema[self.index(len(schema))])
        else:
            self.typed(schema)
        self.depth -= 1

    def typed(self, schema: Any) -> None:
        if isinstance(schema, str):
            schema = self.named.get(schema, {"type": schema})
        kind = schema["type"]
        match kind:
            case "record":
                self.record(schema["fields"])
            case "array":
                self.blocks(schema["items"], keyed=False)
            case "map":
                self.blocks(schema["values"], keyed=True)
            case "string":
                self.text()
            case "bytes":
                self.take(self.length())
            case "fixed":
                self.take(schema["size"])
            case "enum":
                self.index(len(schema["symbols"]))
            case "boolean":
                if self.take(1)[0] > 1:
                    raise InvalidRecord("invalid_boolean", f"the boolean of {self.field} is neither 0 nor 1")
            case "int":
                if not -(2**31) <= self.number() < 2**31:
                    raise InvalidRecord("out_of_range", f"the number of {self.field} does not fit an int")
            case "long":
                self.number()
            case "float" | "double" | "null":
                self.take(_FIXED_WIDTH[kind])
            case _:
                self.value(kind)

    def take(self, size: int) -> bytes:
        taken = self.body[self.at : self.at + size]
        if len(taken) < size:
            raise InvalidRecord("truncated", f"the record ends inside {self.field}")
        self.at += size
        return taken

    def number(self) -> int:
        raw = shift = 0
        while True:
            byte = self.take(1)[0]
            raw |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift == 7 * _LONGEST_VARINT:
                raise InvalidRecord("invalid_number", f"the number of {self.field} has no end")
        if raw >= 2**64 or (byte == 0 and shift > 7):
            raise InvalidRecord("invalid_number", f"the number of {self.field} is not in its shortest form")
        return (raw >> 1) ^ -(raw & 1)

    def length(self) -> int:
        size = self.number()
        if size < 0:
            raise InvalidRecord("invalid_length", f"the length of {self.field} is negative")
        return size

    def index(self, choices: int) -> int:
        chosen = self.number()
        if not 0 <= chosen < choices:
            raise InvalidRecord("invalid_index", f"{self.field} chooses a branch or symbol that does not exist")
        return chosen

    def record(self, fields: list[dict[str, Any]]) -> None:
        for field in fields:
            self.field = f"field {field['name']}"
            start = self.at
            self.value(field["type"])
            self.bound_empty(start)

    def text(self) -> None:
        try:
            self.take(self.length()).decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidRecord("invalid_utf8", f"{self.field} is not UTF-8") from None

    def blocks(self, items: Any, *, keyed: bool) -> None:
        while count := self.number():
            end = None
            if count < 0:
                count = -count
                size = self.length()
                end = self.at + size
            for _ in range(count):
                self.item(items, keyed=keyed)
            if end not in (None, self.at):
                raise InvalidRecord("invalid_length", f"a block of {self.field} is not as long as it says")

    def item(self, schema: Any, *, keyed: bool) -> None:
        start = self.at
        if keyed:
            self.text()
        self.value(schema)
        self.bound_empty(start)

    def bound_empty(self, start: int) -> None:
        """Count the value that began at `start` if it had no bytes."""
        if self.at == start:
            self.empty += 1
            if self.empty > _MOST_EMPTY:
                raise InvalidRecord("too_many_items", f"{self.field} has over {_MOST_EMPTY} values of no bytes")
