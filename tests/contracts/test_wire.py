"""The strict walk says what is wrong with a body and where, and no body can make it run long or deep."""

from __future__ import annotations

import time
from typing import Any

import pytest
from avro_strategies import encode, record, varint

from consumer.contracts.avro import Schema, decoder

NOTHING: Schema = {"type": "record", "name": "Nothing", "fields": []}
LIST: Schema = {
    "type": "record",
    "name": "Node",
    "namespace": "a.b",
    "fields": [{"name": "value", "type": "string"}, {"name": "next", "type": ["null", "Node"]}],
}


def refusal(schema: Schema, body: bytes) -> tuple[str, str]:
    """Error name and message of the one body; fails when it is accepted."""
    (bad,) = decoder(schema).decode([body]).rejected
    return bad.reason.error, str(bad.reason)


@pytest.mark.parametrize(
    ("avro_type", "body", "error"),
    [
        ("string", b"", "truncated"),
        ("string", varint(3) + b"ab", "truncated"),
        ("string", varint(2**62), "truncated"),
        ("string", varint(-1), "invalid_length"),
        ("string", varint(2) + b"\xc3\x28", "invalid_utf8"),
        ("string", varint(3) + b"\xed\xa0\x80", "invalid_utf8"),
        ("boolean", b"\x02", "invalid_boolean"),
        ("long", b"\x80" * 11, "invalid_number"),
        ("long", b"\x80\x00", "invalid_number"),
        ("long", b"\xff" * 9 + b"\x02", "invalid_number"),
        ("int", varint(2**31), "out_of_range"),
        ("int", varint(-(2**31) - 1), "out_of_range"),
        ("double", b"1234567", "truncated"),
        (["null", "string"], varint(2), "invalid_index"),
        (["null", "string"], varint(-1), "invalid_index"),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, varint(1), "invalid_index"),
        ({"type": "fixed", "name": "F", "size": 4}, b"123", "truncated"),
        ({"type": "map", "values": "long"}, varint(1) + varint(1) + b"\xff", "invalid_utf8"),
        ({"type": "array", "items": "long"}, varint(1) + varint(5), "truncated"),
        ({"type": "array", "items": "long"}, varint(-1) + varint(9) + varint(5) + varint(0), "invalid_length"),
        ("string", varint(1) + b"a" + b"!", "trailing_bytes"),
    ],
    ids=str,
)
def test_each_fault_has_its_name(avro_type: Any, body: bytes, error: str) -> None:
    assert refusal(record([avro_type]), body)[0] == error


def test_the_message_names_the_field_and_holds_no_value() -> None:
    _, message = refusal(record(["string", "string"]), varint(6) + b"secret" + varint(2) + b"\xc3\x28")
    assert "f1" in message
    assert "secret" not in message


@pytest.mark.parametrize("count", [2**60, -(2**60), -(2**63), 2**31])
@pytest.mark.parametrize(
    "items",
    ["null", "string", "boolean", "double", NOTHING, {"type": "fixed", "name": "F", "size": 0}, ["null", "long"]],
    ids=str,
)
def test_an_absurd_count_is_refused_at_once(items: Any, count: int) -> None:
    body = varint(1) + b"a" + varint(count) + (varint(0) if count < 0 else b"") + varint(0)
    started = time.monotonic()
    error, message = refusal(record(["string", {"type": "array", "items": items}]), body)
    assert time.monotonic() - started < 2
    assert error in ("too_many_items", "truncated", "invalid_length", "invalid_number")
    assert "f1" in message


def test_items_of_no_bytes_are_read_as_many_as_anybody_sends() -> None:
    schema = record(["string", {"type": "array", "items": "null"}])
    rows = [{"f0": "a", "f1": [None] * 100}]
    assert decoder(schema).decode(encode(schema, rows)).batch.to_pylist() == [{"f0": "a"}]


def test_a_recursive_record_is_read_to_a_bounded_depth() -> None:
    link = varint(1) + b"v" + varint(1)
    end = varint(1) + b"v" + varint(0)
    assert decoder(LIST).decode([link * 20 + end]).batch.to_pylist() == [{"value": "v"}]
    assert refusal(LIST, link * 100_000 + end)[0] == "too_deep"


def test_a_type_defined_in_a_branch_that_was_not_taken_is_known_by_each_of_its_names() -> None:
    inner = {"type": "record", "name": "Inner", "fields": [{"name": "text", "type": "string"}]}
    schema = {
        "type": "record",
        "name": "Outer",
        "namespace": "a.b",
        "fields": [
            {"name": "first", "type": ["null", inner]},
            {"name": "second", "type": "Inner"},
            {"name": "third", "type": "a.b.Inner"},
            {"name": "name", "type": "string"},
        ],
    }
    body = varint(0) + (varint(1) + b"x") * 3
    assert decoder(schema).decode([body]).batch.to_pylist() == [{"name": "x"}]
    assert refusal(schema, body[:-1])[1] == "the record ends inside field name"
