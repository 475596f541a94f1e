"""The fast codec accepts, reads and refuses as the reference does, whatever the schema and however damaged the body."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from avro_strategies import columnar_types, damaged, encode, odd_types, record, rows
from hypothesis import given
from hypothesis import strategies as st
from samples import examples

from consumer.contracts.avro import (
    ArrowDecoder,
    ArrowEncoder,
    Decoded,
    ReferenceDecoder,
    ReferenceEncoder,
    Schema,
    decoder,
)
from consumer.contracts.schemas import SCHEMAS

SHIPPED = {path.name: json.loads(path.read_text()) for path in sorted(SCHEMAS.glob("*.avsc"))}

columnar_schemas = st.lists(columnar_types, min_size=1, max_size=4).map(record)
odd_schemas = st.lists(st.one_of(odd_types, columnar_types), max_size=4).map(lambda types: record(["string", *types]))
shipped_schemas = st.sampled_from(list(SHIPPED.values()))
either = pytest.mark.parametrize(
    "schemas", [columnar_schemas, shipped_schemas], ids=["generated schemas", "shipped schemas"]
)


def told(decoded: Decoded) -> tuple[Any, ...]:
    """All that a decoder says, comparable: NaN equals NaN, −0.0 differs from 0.0."""
    return (
        decoded.batch.schema,
        repr(decoded.batch.to_pylist()),
        decoded.positions.tolist(),
        [(bad.position, bad.reason.error, str(bad.reason), bad.stage) for bad in decoded.rejected],
    )


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_schema_is_read_by_the_fast_path(name: str) -> None:
    assert isinstance(decoder(SHIPPED[name]), ArrowDecoder)


@either
@given(data=st.data())
@examples(60)
def test_valid_bodies_give_the_rows_that_were_written_on_both_paths(
    schemas: st.SearchStrategy[Schema], data: st.DataObject
) -> None:
    schema = data.draw(schemas)
    written = data.draw(st.lists(rows(schema), max_size=3))
    bodies = encode(schema, written)
    fast, reference = ArrowDecoder(schema).decode(bodies), ReferenceDecoder(schema).decode(bodies)
    assert told(fast) == told(reference)
    assert fast.rejected == []
    assert repr(fast.batch.to_pylist()) == repr(written)


@either
@given(data=st.data())
@examples(60)
def test_both_encoders_write_the_same_bytes_and_decoding_gives_the_columns_back(
    schemas: st.SearchStrategy[Schema], data: st.DataObject
) -> None:
    schema = data.draw(schemas)
    batch = (
        ReferenceDecoder(schema).decode(encode(schema, data.draw(st.lists(rows(schema), min_size=1, max_size=3)))).batch
    )
    bodies = ArrowEncoder(schema).encode(batch)
    assert bodies == ReferenceEncoder(schema).encode(batch)
    assert repr(ArrowDecoder(schema).decode(bodies).batch.to_pylist()) == repr(batch.to_pylist())


@either
@given(data=st.data())
@examples(150)
def test_damaged_bodies_are_refused_alike_and_their_neighbours_kept(
    schemas: st.SearchStrategy[Schema], data: st.DataObject
) -> None:
    schema = data.draw(schemas)
    bodies = data.draw(damaged(encode(schema, data.draw(st.lists(rows(schema), min_size=1, max_size=4)))))
    assert told(ArrowDecoder(schema).decode(bodies)) == told(ReferenceDecoder(schema).decode(bodies))


@given(data=st.data())
@examples(80)
def test_schemas_beyond_the_fast_path_are_read_by_the_reference(data: st.DataObject) -> None:
    schema = data.draw(odd_schemas)
    written = data.draw(st.lists(rows(schema), min_size=1, max_size=4))
    decoded = decoder(schema).decode(encode(schema, written))
    assert decoded.rejected == []
    names = decoded.batch.schema.names
    assert repr(decoded.batch.to_pylist()) == repr([{name: row[name] for name in names} for row in written])


@given(data=st.data())
@examples(150)
def test_no_body_makes_a_decoder_raise(data: st.DataObject) -> None:
    schema = data.draw(st.one_of(odd_schemas, columnar_schemas))
    bodies = data.draw(damaged(encode(schema, data.draw(st.lists(rows(schema), min_size=1, max_size=4)))))
    decoded = decoder(schema).decode(bodies)
    assert sorted([*decoded.positions, *(bad.position for bad in decoded.rejected)]) == list(range(len(bodies)))
    assert decoded.batch.num_rows == len(decoded.positions)


def test_no_bodies_give_an_empty_batch_of_the_same_columns() -> None:
    for schema in SHIPPED.values():
        assert told(ArrowDecoder(schema).decode([])) == told(ReferenceDecoder(schema).decode([]))


def test_many_bad_bodies_leave_the_order_and_positions_of_the_good_ones() -> None:
    schema = record(["string", "long"])
    good = encode(schema, [{"f0": str(at), "f1": at} for at in range(1000)])
    bodies = [body if at % 3 else body[:-1] for at, body in enumerate(good)]
    decoded = ArrowDecoder(schema).decode(bodies)
    kept = [at for at in range(1000) if at % 3]
    assert decoded.positions.tolist() == kept
    assert decoded.batch.column("f1").to_pylist() == kept
    assert [bad.position for bad in decoded.rejected] == [at for at in range(1000) if at % 3 == 0]
    assert {bad.reason.error for bad in decoded.rejected} == {"truncated"}


def test_a_float_keeps_its_bits_through_both_paths() -> None:
    schema: Schema = record(["float", "double"])
    row = {"f0": float(np.float32(0.1)), "f1": -0.0}
    for each in (ArrowDecoder(schema), ReferenceDecoder(schema)):
        assert repr(each.decode(encode(schema, [row])).batch.to_pylist()) == repr([row])
