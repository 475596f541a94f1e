"""The reader takes whatever arrives on a topic: every record ends as a row in its place, or refused with its reason."""

from __future__ import annotations

import copy
import gc
import random
import weakref
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import fastavro
import pyarrow as pa
import pytest
from avro_strategies import encode, record
from hypothesis import given
from hypothesis import strategies as st
from samples import Transaction, examples, transaction

from consumer.contracts.avro import Decoded, Schema
from consumer.contracts.events import EventReader, EventWriter
from consumer.contracts.schemas import NamedSchema, WriterSchemas, latest, versions, writer_header
from consumer.contracts.transaction import EVENT_SCHEMA, FIELDS, SCHEMA, columns_from_dicts

HEADER = writer_header("transaction", "any", None)


class KnownSchemas(WriterSchemas):
    """The shipped schemas and some more by id, as a registry would give them."""

    def __init__(self, by_id: dict[int, Schema]) -> None:
        super().__init__("transaction")
        self._known |= {confluent(schema_id): schema for schema_id, schema in by_id.items()}


def confluent(schema_id: int) -> bytes:
    return b"\x00" + schema_id.to_bytes(4, "big")


def reader(**by_id: Schema) -> EventReader:
    return EventReader(KnownSchemas({int(name[1:]): schema for name, schema in by_id.items()}), FIELDS)


def written(events: Sequence[Transaction]) -> list[bytes]:
    return EventWriter("transaction", HEADER).write(columns_from_dicts(events, EVENT_SCHEMA))


def framed(header: bytes, schema: Schema, events: Sequence[Transaction]) -> list[bytes]:
    rows = [{each["name"]: event.get(each["name"]) for each in schema["fields"]} for event in events]
    return [header + body for body in encode(schema, rows)]


def ids(decoded: Decoded) -> list[str]:
    found: list[str] = decoded.batch.column("transaction_id").to_pylist()
    return found


def reasons(decoded: Decoded) -> dict[int, str]:
    assert len({bad.position for bad in decoded.rejected}) == len(decoded.rejected)
    return {bad.position: bad.reason.error for bad in decoded.rejected}


def changed(change: str, **field: Any) -> Schema:
    """The newest transaction schema with a field added, dropped or given another type."""
    schema = copy.deepcopy(latest("transaction").schema)
    match change:
        case "add":
            schema["fields"].append(field)
        case "drop":
            schema["fields"] = [each for each in schema["fields"] if each["name"] != field["name"]]
        case "retype":
            next(each for each in schema["fields"] if each["name"] == field["name"])["type"] = field["type"]
    return schema


def test_what_the_writer_wrote_is_read_back() -> None:
    events = [transaction(transaction_id=f"t{at}", business_decision="approve") for at in range(5)]
    decoded = reader().read(written(events))
    assert decoded.rejected == []
    assert decoded.batch.schema == SCHEMA
    assert decoded.batch.to_pylist() == [{**event, "approval_propensity": None} for event in events]


def test_bytes_of_the_writer_are_what_avro_says() -> None:
    event = transaction(currency="EUR")
    (value,) = written([event])
    assert value[:10] == latest("transaction").header
    (expected,) = framed(HEADER, latest("transaction").schema, [event])
    assert value == expected


@pytest.mark.parametrize("named", versions("transaction"), ids=lambda named: f"v{named.version}")
def test_every_version_of_the_schema_is_read(named: NamedSchema) -> None:
    decoded = reader().read(framed(named.header, named.schema, [transaction()]))
    assert ids(decoded) == ["t-1"]


def test_both_framings_and_several_writers_in_one_batch_keep_their_order() -> None:
    newer = changed("add", name="added", type={"type": "map", "values": "bytes"})
    writers = [
        (HEADER, latest("transaction").schema),
        (versions("transaction")[0].header, versions("transaction")[0].schema),
        (confluent(7), newer),
    ]
    values = []
    for at in range(30):
        header, schema = writers[at % 3]
        values += framed(header, schema, [transaction(transaction_id=f"t{at}", added={"k": b"v"})])
    decoded = reader(_7=newer).read(values)
    assert decoded.rejected == []
    assert ids(decoded) == [f"t{at}" for at in range(30)]
    assert decoded.positions.tolist() == list(range(30))


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (None, "tombstone"),
        (b"", "empty"),
        (b'{"transaction_id": "json"}', "unknown_framing"),
        (b"\xff\xff\xff", "unknown_framing"),
        (b"\xc3\x01short", "unknown_framing"),
        (b"\x00\x00", "unknown_framing"),
        (b"\xc3\x01" + bytes(8) + b"body", "unknown_schema"),
        (b"\x00\x00\x00\x00\x63body", "unknown_schema"),
        (HEADER, "truncated"),
        (confluent(7), "truncated"),
        (HEADER + b"\xff" * 40, "invalid_number"),
    ],
    ids=repr,
)
def test_a_bad_value_is_refused_by_name_alone_first_and_among_good_ones(value: bytes | None, error: str) -> None:
    assert reasons(reader(_7=latest("transaction").schema).read([value])) == {0: error}
    good = written([transaction(transaction_id="a"), transaction(transaction_id="b")])
    decoded = reader(_7=latest("transaction").schema).read([good[0], value, good[1]])
    assert reasons(decoded) == {1: error}
    assert ids(decoded) == ["a", "b"]
    assert decoded.positions.tolist() == [0, 2]


def test_a_writer_that_lacks_a_required_field_or_gives_it_another_type_is_refused_every_time() -> None:
    lacking, wrong = changed("drop", name="amount"), changed("retype", name="amount", type="string")
    nullable = changed("retype", name="amount", type=["null", "double"])
    values = [
        *framed(confluent(1), lacking, [transaction()]),
        *framed(confluent(2), wrong, [transaction(amount="12")]),
        *framed(confluent(3), nullable, [transaction(amount=None), transaction(transaction_id="ok")]),
    ]
    with_them = reader(_1=lacking, _2=wrong, _3=nullable)
    for _ in range(2):
        decoded = with_them.read(values)
        assert reasons(decoded) == {0: "missing_field", 1: "wrong_type", 2: "missing_value"}
        assert ids(decoded) == ["ok"]


def test_a_reason_holds_none_of_the_frames_it_came_through_however_often_it_is_told() -> None:
    lacking = changed("drop", name="amount")
    with_it = reader(_1=lacking)
    values = [*framed(confluent(1), lacking, [transaction()]) * 3, HEADER + b"\xff" * 40, HEADER + b"\x02\xff", None]
    for _ in range(2):
        rejected = with_it.read(values).rejected
        assert len(rejected) == len(values)
        assert [bad.reason for bad in rejected if bad.reason.__traceback__ or bad.reason.__context__] == []


@pytest.mark.parametrize(
    "field",
    [
        {"name": "a-b", "type": "string"},
        {"name": "", "type": "string"},
        {"name": "é", "type": "string"},
        {"name": "amount", "type": "double"},
        {"name": "added", "type": {"type": "error", "name": "E", "fields": []}},
        {"name": "added", "type": {"type": "array", "items": record(["long"], "I-1")}},
        {
            "name": "added",
            "type": {"type": "array", "items": {**record(["long"]), "fields": record(["long"])["fields"] * 2}},
        },
    ],
    ids=str,
)
def test_a_schema_that_avro_does_not_allow_is_the_records_fault(field: Any) -> None:
    odd = changed("add", **field)
    with_it = reader(_1=odd)
    for _ in range(2):
        decoded = with_it.read([confluent(1) + b"body", *written([transaction()])])
        assert reasons(decoded) == {0: "unusable_schema"}
        assert ids(decoded) == ["t-1"]


def test_a_writer_without_an_optional_field_is_read_with_its_default() -> None:
    without = changed("drop", name="business_decision")
    decoded = reader(_1=without).read(framed(confluent(1), without, [transaction()]))
    assert decoded.batch.column("business_decision").to_pylist() == [None]


def test_labels_are_counted_and_never_among_the_columns() -> None:
    labelled = changed("add", name="will_default", type="boolean")
    labelled["fields"].append({"name": "days_to_first_missed_payment", "type": ["null", "int"]})
    with_labels = reader(_1=labelled)
    events = [transaction(will_default=True, days_to_first_missed_payment=14), transaction(will_default=False)]
    decoded = with_labels.read([*framed(confluent(1), labelled, events), *written([transaction()])])
    assert decoded.batch.num_rows == 3
    assert decoded.batch.schema == SCHEMA
    assert with_labels.labels_stripped == {"will_default": 2, "days_to_first_missed_payment": 2}


def test_a_batch_of_nothing_and_one_of_nothing_good_have_the_readers_columns() -> None:
    assert reader().read([]).batch.schema == SCHEMA
    all_bad = reader().read([None, b"", b"\xff", HEADER + b"\xff" * 30] * 50)
    assert all_bad.batch.schema == SCHEMA
    assert all_bad.batch.num_rows == len(all_bad.positions) == 0
    assert len(reasons(all_bad)) == 200


def test_order_and_positions_hold_among_many_bad_ones() -> None:
    events = [transaction(transaction_id=f"t{at}") for at in range(2000)]
    values: list[bytes | None] = list(written(events))
    shuffle = random.Random(5)
    bad = sorted(shuffle.sample(range(2000), 700))
    for at in bad:
        good = values[at]
        assert good is not None
        values[at] = shuffle.choice([None, b"", b"\x00junk", good[:-1], good + b"\x00", good[:100]])
    decoded = reader().read(values)
    kept = [at for at in range(2000) if at not in set(bad)]
    assert decoded.positions.tolist() == kept
    assert ids(decoded) == [f"t{at}" for at in kept]
    assert sorted(reasons(decoded)) == bad


@given(st.lists(st.one_of(st.none(), st.binary(max_size=40), st.binary(max_size=40).map(lambda body: HEADER + body))))
@examples(150)
def test_nothing_on_a_topic_makes_the_reader_raise(values: list[bytes | None]) -> None:
    decoded = reader().read(values)
    assert sorted([*decoded.positions, *reasons(decoded)]) == list(range(len(values)))


def test_shadow_events_written_as_columns_are_read_by_fastavro() -> None:
    schema = latest("shadow_event")
    writer = EventWriter("shadow_event", schema.header)
    score = {"name": "ridge", "version": "v1", "role": "champion", "score": 0.25, "score_kind": "probability"}
    models = [{**score, "flag": False, "error": None}, {**score, "score": None, "flag": None, "error": "ValueError"}]
    row = {
        each.name: {pa.string(): "x", pa.int64(): 7, pa.float64(): 0.5, pa.bool_(): True}.get(each.type)
        for each in writer.arrow_schema
    } | {"models": models, "reason_codes": ["A", "B"]}
    (value,) = writer.write(pa.RecordBatch.from_pylist([row], writer.arrow_schema))
    assert value.startswith(schema.header)
    read: Any = fastavro.schemaless_reader(BytesIO(value[10:]), fastavro.parse_schema(schema.schema), None)
    assert read["models"] == models
    assert read["reason_codes"] == ["A", "B"]
    assert read["transaction_id"] == "x"


class Values(list[bytes | None]):
    """A batch that can be watched."""


def test_a_refused_record_does_not_keep_its_batch_alive() -> None:
    """Services call the garbage collector rarely; what only it can free grows by a batch at a time."""
    good = written([transaction(), transaction()])
    read = reader()
    values = Values([*good, b"rubbish", None, good[0][:-3]])
    watched = weakref.ref(values)
    gc.disable()
    try:
        decoded = read.read(values)
        del values
        assert watched() is None
    finally:
        gc.enable()
    assert set(reasons(decoded).values()) == {"unknown_framing", "tombstone", "truncated"}
