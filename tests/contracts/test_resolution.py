"""What older and newer writers send arrives as the reader's fields, as Avro's specification says (oracle: fastavro)."""

from __future__ import annotations

import io
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pytest
from avro_strategies import encode, odd_types, record, rows, varint
from hypothesis import given
from hypothesis import strategies as st
from samples import examples

from consumer.contracts.avro import Decoded, Schema, decoder, physical
from consumer.contracts.resolution import Resolution
from consumer.errors import InvalidRecord

ITEM: Schema = {
    "type": "record",
    "name": "Item",
    "fields": [
        {"name": "label", "type": "string", "aliases": ["title"]},
        {"name": "score", "type": ["null", "double"]},
        {"name": "weight", "type": "double", "default": 2.5},
    ],
}
READER: Schema = {
    "type": "record",
    "name": "Reader",
    "fields": [
        {"name": "text", "type": "string", "aliases": ["old_text", "older_text"]},
        {"name": "number", "type": "double"},
        {"name": "whole", "type": "long"},
        {"name": "narrow", "type": "float"},
        {"name": "truth", "type": "boolean", "default": True},
        {"name": "maybe", "type": ["null", "string"], "default": None},
        {"name": "count", "type": ["null", "long"], "default": None},
        {"name": "currency", "type": "string", "default": "EUR"},
        {"name": "tags", "type": {"type": "array", "items": "string"}, "default": ["none"]},
        {"name": "items", "type": {"type": "array", "items": ITEM}, "default": []},
    ],
}
_WRITTEN_AS: dict[str, list[Any]] = {
    "string": ["string"],
    "boolean": ["boolean"],
    "long": ["int", "long"],
    "float": ["int", "long", "float"],
    "double": ["int", "long", "float", "double"],
}


@st.composite
def _written_type(draw: st.DrawFn, wanted: Any) -> Any:
    if isinstance(wanted, list):
        inner = draw(st.sampled_from(_WRITTEN_AS[wanted[1]]))
        return draw(st.sampled_from([inner, ["null", inner], [inner, "null"]]))
    if isinstance(wanted, str):
        inner = draw(st.sampled_from(_WRITTEN_AS[wanted]))
        return draw(st.sampled_from([inner, inner, ["null", inner]]))
    if wanted["items"] == "string":
        return wanted
    fields = [
        {"name": "title" if each["name"] == "label" and draw(st.booleans()) else each["name"], "type": each["type"]}
        for each in ITEM["fields"]
        if "default" not in each or draw(st.booleans())
    ]
    if draw(st.booleans()):
        fields.append({"name": "extra", "type": "boolean"})
    return {"type": "array", "items": {"type": "record", "name": "Item", "fields": draw(st.permutations(fields))}}


@st.composite
def writers(draw: st.DrawFn) -> Schema:
    """Schemas related to READER's: fields dropped, added, renamed, reordered, narrowed, made nullable."""
    fields = []
    for each in READER["fields"]:
        if "default" in each and draw(st.booleans()):
            continue
        name = draw(st.sampled_from([each["name"], *each.get("aliases", [])]))
        fields.append({"name": name, "type": draw(_written_type(each["type"]))})
    for at, added in enumerate(draw(st.lists(odd_types, max_size=2))):
        fields.append({"name": f"added_{at}", "type": added})
    return {"type": "record", "name": "Reader", "fields": draw(st.permutations(fields))}


def resolve(writer: Schema, bodies: list[bytes], reader: Schema = READER) -> Decoded:
    return Resolution(writer, reader["fields"]).resolve(decoder(writer).decode(bodies))


def by_fastavro(writer: Schema, body: bytes, columns: pa.Schema) -> list[Any] | None:
    """The row as fastavro resolves it, in the column types; None when it finds null where a value must be."""
    try:
        row: Any = fastavro.schemaless_reader(
            io.BytesIO(body), fastavro.parse_schema(physical(writer)), fastavro.parse_schema(READER)
        )
    except (fastavro.read.SchemaResolutionError, TypeError):
        return None
    return [pa.array([row[each.name]], each.type).to_pylist()[0] for each in columns]


@given(data=st.data())
@examples(120)
def test_related_writers_resolve_as_fastavro_resolves_them(data: st.DataObject) -> None:
    writer = data.draw(writers())
    bodies = encode(writer, data.draw(st.lists(rows(writer), min_size=1, max_size=3)))
    resolved = resolve(writer, bodies)
    expected = [by_fastavro(writer, body, resolved.batch.schema) for body in bodies]
    assert repr([list(row.values()) for row in resolved.batch.to_pylist()]) == repr(
        [e for e in expected if e is not None]
    )
    assert resolved.positions.tolist() == [at for at, row in enumerate(expected) if row is not None]
    assert sorted((bad.position, bad.reason.error) for bad in resolved.rejected) == [
        (at, "missing_value") for at, row in enumerate(expected) if row is None
    ]


def test_a_null_where_the_reader_needs_a_value_is_refused_by_its_field_and_neighbours_stay() -> None:
    writer = record([["null", "string"], "long"])
    reader = record(["string", "double"])
    bodies = encode(writer, [{"f0": "a", "f1": 1}, {"f0": None, "f1": 2}, {"f0": "c", "f1": 3}])
    resolved = resolve(writer, bodies, reader)
    assert resolved.batch.to_pylist() == [{"f0": "a", "f1": 1.0}, {"f0": "c", "f1": 3.0}]
    assert resolved.positions.tolist() == [0, 2]
    assert [str(bad.reason) for bad in resolved.rejected] == ["field f0 is null"]


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("string", "long"),
        ("double", "long"),
        ("long", "boolean"),
        ("double", "float"),
        ({"type": "array", "items": "string"}, {"type": "array", "items": "double"}),
        ({"type": "array", "items": "string"}, {"type": "array", "items": ITEM}),
        ({"type": "array", "items": ITEM}, {"type": "array", "items": "string"}),
        ({"type": "array", "items": ["null", "string"]}, {"type": "array", "items": "string"}),
        ({"type": "array", "items": "string"}, "string"),
        ("string", {"type": "array", "items": "string"}),
        # the specification lets these pass; here a category is a string, and text is UTF-8
        ("bytes", "string"),
        ({"type": "enum", "name": "E", "symbols": ["a"]}, "string"),
        (["null", "string", "long"], "string"),
    ],
    ids=str,
)
def test_a_field_of_another_type_refuses_the_whole_writer_by_name(written: Any, wanted: Any) -> None:
    with pytest.raises(InvalidRecord, match="the writer's field f0") as refused:
        Resolution(record([written]), record([wanted])["fields"])
    assert refused.value.error == "wrong_type"


def test_a_writer_without_a_required_field_is_refused_by_its_name() -> None:
    with pytest.raises(InvalidRecord, match="no field f1") as refused:
        Resolution(record(["string"]), record(["string", "string"])["fields"])
    assert refused.value.error == "missing_field"


def test_a_required_field_missing_inside_an_array_refuses_the_writer() -> None:
    writer = record([{"type": "array", "items": {"type": "record", "name": "Item", "fields": [ITEM["fields"][1]]}}])
    with pytest.raises(InvalidRecord) as refused:
        Resolution(writer, record([{"type": "array", "items": ITEM}])["fields"])
    assert refused.value.error == "wrong_type"


def test_an_array_in_several_blocks_with_and_without_sizes_is_read_whole() -> None:
    schema = record([{"type": "array", "items": "long"}])
    sized = varint(-2) + varint(2) + varint(1) + varint(2)
    decoded = decoder(schema).decode([varint(1) + varint(7) + sized + varint(0)])
    assert decoded.batch.to_pylist() == [{"f0": [7, 1, 2]}]
    assert np.array_equal(decoded.positions, [0])
