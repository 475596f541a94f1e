"""Avro's binary encoding walked byte by byte: says what is wrong with a body, and in which field.

Slow and strict, for records that the fast path refused. A body is accepted only when it is *the* encoding of what
it says: nothing missing, nothing left over, numbers in their shortest form, booleans 0 or 1. (The decoding libraries
each let some of these pass, and not the same ones.)
"""

from __future__ import annotations

from typing import Any

from consumer.errors import InvalidRecord

_FIXED_WIDTH = {"float": 4, "double": 8, "null": 0}
_LONGEST_VARINT = 10


def check(body: bytes, schema: dict[str, Any]) -> None:
    """Walk a record's body by its writer schema. Raises InvalidRecord that names the fault and the field."""
    walk = _Walk(body)
    walk.value(schema)
    if walk.at != len(body):
        raise InvalidRecord("trailing_bytes", f"{len(body) - walk.at} bytes are left over after the last field")


class _Walk:
    def __init__(self, body: bytes) -> None:
        self.body = body
        self.at = 0
        self.field = "the record"
        self.named: dict[str, dict[str, Any]] = {}

    def value(self, schema: Any) -> None:
        if isinstance(schema, list):
            self.union(schema)
            return
        if isinstance(schema, str):
            schema = self.named.get(schema, {"type": schema})
        kind = schema["type"]
        if "name" in schema and "type" in schema and kind in ("record", "enum", "fixed"):
            self.named[schema["name"]] = schema
            if "namespace" in schema:
                self.named[f"{schema['namespace']}.{schema['name']}"] = schema
        match kind:
            case "record":
                for field in schema["fields"]:
                    self.field = f"field {field['name']}"
                    self.value(field["type"])
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

    def union(self, branches: list[Any]) -> None:
        self.value(branches[self.index(len(branches))])

    def text(self) -> None:
        try:
            self.take(self.length()).decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidRecord("invalid_utf8", f"{self.field} is not UTF-8") from None

    def blocks(self, items: Any, *, keyed: bool) -> None:
        while count := self.number():
            if count < 0:
                count = -count
                self.length()
            for _ in range(count):
                if keyed:
                    self.text()
                self.value(items)
