"""A schema in `schemas/` never breaks those who read or write it, is documented, and has the fingerprint Avro says."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import avro.schema
import pytest
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType

from consumer.contracts.dead_letter import header_names
from consumer.contracts.schemas import SCHEMAS, NamedSchema, Schema, latest, versions

FILES = sorted(SCHEMAS.glob("*.avsc"))
NAMES = sorted({path.name.split(".")[0] for path in FILES})


def reads(reader: Schema, writer: Schema) -> bool:
    """Whether data of one schema can be read by another, by the checker of Avro's own Python package."""
    result = ReaderWriterCompatibilityChecker().get_compatibility(
        avro.schema.parse(json.dumps(reader)), avro.schema.parse(json.dumps(writer))
    )
    return bool(result.compatibility is SchemaCompatibilityType.compatible)


def backward(older: Schema, newer: Schema) -> bool:
    """A newer reader takes what is already written."""
    return reads(newer, older)


def full(older: Schema, newer: Schema) -> bool:
    """Besides, readers that were not updated take what is written from now on."""
    return reads(newer, older) and reads(older, newer)


REQUIRED = {
    "transaction": backward,
    "shadow_event": full,
    "outcome": backward,
    "control": full,
    "dead_letter_headers": full,
    "replay_marker_headers": full,
}


def pairs(name: str) -> list[tuple[NamedSchema, NamedSchema]]:
    known = versions(name)
    return [(older, newer) for older in known for newer in known if newer.version >= older.version]


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        pytest.param(*pair, id=f"{name} {pair[0].version} to {pair[1].version}")
        for name in NAMES
        for pair in pairs(name)
    ],
)
def test_every_version_is_compatible_with_all_before_it(older: NamedSchema, newer: NamedSchema) -> None:
    assert REQUIRED[older.name](older.schema, newer.schema)


def _drop(name: str) -> Callable[[Schema], None]:
    return lambda schema: schema["fields"].remove(_field(schema, name))


def _retype(name: str, avro_type: Any) -> Callable[[Schema], None]:
    return lambda schema: _field(schema, name).update(type=avro_type)


def _rename(name: str) -> Callable[[Schema], None]:
    return lambda schema: _field(schema, name).update(name=f"{name}_new")


def _add_required(schema: Schema) -> None:
    schema["fields"].append({"name": "added", "type": "string"})


def _add_required_to_models(schema: Schema) -> None:
    _field(schema, "models")["type"]["items"]["fields"].append({"name": "added", "type": "string"})


def _field(schema: Schema, name: str) -> Any:
    return next(each for each in schema["fields"] if each["name"] == name)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("transaction", _add_required),
        ("transaction", _rename("amount")),
        ("transaction", _retype("amount", "string")),
        ("transaction", _retype("amount", "int")),
        ("transaction", _retype("currency", "string")),
        ("transaction", _retype("risk_level", {"type": "enum", "name": "Level", "symbols": ["low"]})),
        ("outcome", _add_required),
        ("outcome", _rename("label")),
        ("outcome", _retype("version", "int")),
        ("outcome", _retype("days_to_resolution", "int")),
        ("shadow_event", _add_required),
        ("shadow_event", _add_required_to_models),
        ("shadow_event", _drop("consensus")),
        ("shadow_event", _rename("amount")),
        ("shadow_event", _retype("installment_count", "long")),
        ("shadow_event", _retype("consensus", "double")),
    ],
    ids=lambda each: each if isinstance(each, str) else each.__qualname__.split(".")[0],
)
def test_a_breaking_change_is_caught_by_the_same_check(name: str, change: Callable[[Schema], None]) -> None:
    newest = latest(name).schema
    changed = copy.deepcopy(newest)
    change(changed)
    assert not REQUIRED[name](newest, changed)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_record_and_field_is_documented(path: Any) -> None:
    def undocumented(schema: Any, at: str) -> list[str]:
        if isinstance(schema, list):
            return [fault for branch in schema for fault in undocumented(branch, at)]
        if not isinstance(schema, dict):
            return []
        own = [at] if schema["type"] == "record" and not schema.get("doc") else []
        inner = [
            fault
            for each in schema.get("fields", [])
            for fault in (
                *([f"{at}.{each['name']}"] if not each.get("doc") else []),
                *undocumented(each["type"], f"{at}.{each['name']}"),
            )
        ]
        return own + inner + undocumented(schema.get("items"), at)

    assert undocumented(json.loads(path.read_text()), path.name) == []


def _without_logical_types(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_logical_types(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "logicalType" in schema:
        return schema["type"]
    return {key: _without_logical_types(value) for key, value in schema.items()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_header_is_the_single_object_marker_and_the_fingerprint_of_avros_own_package(path: Any) -> None:
    name, version = path.name.split(".")[:2]
    named = next(each for each in versions(name) if f"v{each.version}" == version)
    # the canonical form writes {"type": "long", "logicalType": …} as "long"; the oracle forgets that step
    plain = json.dumps(_without_logical_types(named.schema))
    fingerprint = avro.schema.parse(plain).fingerprint("CRC-64-AVRO")
    assert named.header == b"\xc3\x01" + fingerprint


def test_categories_are_strings_so_that_an_unseen_value_reaches_the_reader() -> None:
    for named in versions("transaction"):
        assert '"enum"' not in json.dumps(named.schema)


def test_no_transaction_schema_has_a_label_field() -> None:
    for named in versions("transaction"):
        names = {each["name"] for each in named.schema["fields"]}
        assert names.isdisjoint({"will_default", "days_to_first_missed_payment"})


def test_dead_letter_headers_bear_kafka_connects_names_and_our_own() -> None:
    connect = ["topic", "partition", "offset", "stage", "exception.class.name", "exception.message"]
    own = ["attempt", "first_failed_at", "app_version"]
    assert list(header_names().values()) == [
        *(f"__connect.errors.{name}" for name in connect),
        *(f"bnpl.dlq.{name}" for name in own),
    ]
