"""Hypothesis strategies for Avro: record schemas, rows that fit them, bodies, and bodies that were damaged."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import fastavro
from hypothesis import strategies as st

from consumer.contracts.avro import Schema, physical

Row = dict[str, Any]

SCALAR_TYPES = ("string", "boolean", "long", "float", "double")
_ids: Iterator[int] = count()

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
longs = st.one_of(st.integers(-3, 300), st.integers(-(2**63), 2**63 - 1))
ints = st.one_of(st.integers(-3, 300), st.integers(-(2**31), 2**31 - 1))

_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "string": texts,
    "boolean": st.booleans(),
    "int": ints,
    "long": longs,
    "float": st.floats(width=32),
    "double": st.floats(),
    "bytes": st.binary(max_size=9),
    "null": st.none(),
}


def values(avro_type: Any) -> st.SearchStrategy[Any]:
    """Values of a type, as fastavro takes them under the *physical* schema."""
    if isinstance(avro_type, list):
        return st.one_of([values(branch) for branch in avro_type])
    if isinstance(avro_type, str):
        return _VALUES[avro_type]
    match avro_type["type"]:
        case "record":
            return rows(avro_type)
        case "array":
            return st.lists(values(avro_type["items"]), max_size=4)
        case "map":
            return st.dictionaries(texts, values(avro_type["values"]), max_size=3)
        case "enum":
            return st.sampled_from(avro_type["symbols"])
        case "fixed":
            return st.binary(min_size=avro_type["size"], max_size=avro_type["size"])
        case inner:
            return values(inner)


def rows(schema: Schema) -> st.SearchStrategy[Row]:
    names = [each["name"] for each in schema["fields"]]
    return st.tuples(*(values(each["type"]) for each in schema["fields"])).map(
        lambda drawn: dict(zip(names, drawn, strict=True))
    )


def _name(kind: str) -> str:
    return f"{kind}{next(_ids)}"


_nullable = st.sampled_from(SCALAR_TYPES).flatmap(lambda inner: st.sampled_from([["null", inner], [inner, "null"]]))
_flat_records = st.lists(st.one_of(st.sampled_from(SCALAR_TYPES), _nullable), min_size=1, max_size=3).map(
    lambda types: record(types, _name("Item"))
)
_arrays = st.one_of(st.sampled_from(SCALAR_TYPES), _nullable, _flat_records).map(
    lambda items: {"type": "array", "items": items}
)

columnar_types: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from([*SCALAR_TYPES, "int", ["null", "int"], {"type": "long", "logicalType": "timestamp-millis"}]),
    _nullable,
    _arrays,
)
"""What the fast path reads."""

_simple_odd: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(["bytes", "null", ["string"], ["null", "string", "long"], ["null", "bytes"]]),
    st.just({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}),
    st.integers(0, 5).map(lambda size: {"type": "fixed", "name": _name("Fixed"), "size": size}),
    st.builds(lambda: {"type": "enum", "name": _name("Enum"), "symbols": ["A", "B", "C"]}),
    st.builds(lambda: {"type": "record", "name": _name("Empty"), "fields": []}),
)
odd_types: st.SearchStrategy[Any] = st.recursive(
    _simple_odd,
    lambda inner: st.one_of(
        st.one_of(inner, columnar_types).map(lambda items: {"type": "array", "items": items}),
        st.one_of(inner, columnar_types).map(lambda items: {"type": "map", "values": items}),
        st.lists(st.one_of(inner, columnar_types), min_size=1, max_size=3).map(
            lambda types: record(types, _name("Nested"))
        ),
    ),
    max_leaves=4,
)
"""What it does not: these go to the reference."""


def record(types: Sequence[Any], name: str = "Generated") -> Schema:
    fields = [{"name": f"f{at}", "type": each} for at, each in enumerate(types)]
    return {"type": "record", "name": name, "fields": fields}


def encode(schema: Schema, rows_of_it: Sequence[Row]) -> list[bytes]:
    """Bodies by fastavro."""
    parsed = fastavro.parse_schema(physical(schema))
    bodies = []
    for row in rows_of_it:
        body = io.BytesIO()
        fastavro.schemaless_writer(body, parsed, row)
        bodies.append(body.getvalue())
    return bodies


@st.composite
def damaged(draw: st.DrawFn, bodies: list[bytes]) -> list[bytes]:
    """The bodies, one or more of them flipped, cut, grown or spliced with another."""
    bodies = list(bodies)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(bodies) - 1))
        body = bytearray(bodies[at])
        where = draw(st.integers(0, len(body)))
        match draw(st.sampled_from(["flip", "insert", "delete", "truncate", "append", "splice", "random"])):
            case "flip" if where < len(body):
                body[where] ^= 1 << draw(st.integers(0, 7))
            case "insert":
                body[where:where] = draw(st.binary(min_size=1, max_size=12))
            case "delete":
                del body[where : where + draw(st.integers(1, 4))]
            case "truncate":
                del body[where:]
            case "append":
                body += draw(st.binary(min_size=1, max_size=4))
            case "splice":
                body[where:] = draw(st.sampled_from(bodies))[where:]
            case "random":
                body[:] = draw(st.binary(max_size=60))
        bodies[at] = bytes(body)
    return bodies


def varint(number: int) -> bytes:
    """Avro's encoding of a long."""
    raw = ((number << 1) ^ (number >> 63)) & (2**64 - 1)
    encoded = bytearray()
    while raw > 0x7F:
        encoded.append(raw & 0x7F | 0x80)
        raw >>= 7
    return bytes([*encoded, raw])
