"""The Avro schemas of `schemas/`, and how the first bytes of a message name the schema it was written with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import fastavro

from consumer.clock import Deadline
from consumer.errors import InvalidRecord, SchemaError
from consumer.settings import PROJECT

if TYPE_CHECKING:  # rules import this module, and checkout that calls them needs no Kafka client
    from consumer.contracts.registry import SchemaRegistry

SCHEMAS = PROJECT / "schemas"

Schema = dict[str, Any]

PRIMITIVES = frozenset(("null", "boolean", "int", "long", "float", "double", "bytes", "string"))

SINGLE_OBJECT_MARKER = b"\xc3\x01"
"""Avro single-object encoding: this, then the schema's CRC-64-AVRO fingerprint, 8 bytes little-endian."""
SINGLE_OBJECT_HEADER_BYTES = 10
CONFLUENT_MARKER = b"\x00"
"""Confluent's wire format: this, then the schema's id in the registry, 4 bytes big-endian."""
CONFLUENT_HEADER_BYTES = 5

_UNKNOWN_IDS_REMEMBERED = 1000
_HIGHEST_ID = 2**31 - 1


@dataclass(frozen=True)
class NamedSchema:
    """One file of `schemas/`: `name` is its record's kind (`transaction`, …), `version` its number."""

    name: str
    version: int
    schema: Schema

    @cached_property
    def header(self) -> bytes:
        """What a message written with this schema begins with under single-object encoding."""
        canonical = fastavro.schema.to_parsing_canonical_form(self.schema)
        return SINGLE_OBJECT_MARKER + bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))


@cache
def versions(name: str) -> tuple[NamedSchema, ...]:
    """All versions of a schema, oldest first. Raises SchemaError when there is none or a file cannot be read."""
    found = []
    for path in SCHEMAS.glob(f"{name}.v*.avsc"):
        try:
            schema = json.loads(path.read_text())
            fastavro.parse_schema(schema)
            found.append(NamedSchema(name, int(path.suffixes[0][2:]), schema))
        except (ValueError, fastavro.schema.SchemaParseException) as error:
            raise SchemaError(f"{path.name} is not an Avro schema: {error}") from error
    if not found:
        raise SchemaError(f"no {name}.v*.avsc in {SCHEMAS}")
    return tuple(sorted(found, key=lambda named: named.version))


def latest(name: str) -> NamedSchema:
    """The newest version of a schema: what readers resolve to and writers write."""
    return versions(name)[-1]


def header_of(value: bytes) -> bytes:
    """The part of a message that names its writer schema; InvalidRecord when there is none."""
    if value.startswith(SINGLE_OBJECT_MARKER) and len(value) >= SINGLE_OBJECT_HEADER_BYTES:
        return value[:SINGLE_OBJECT_HEADER_BYTES]
    if value.startswith(CONFLUENT_MARKER) and len(value) >= CONFLUENT_HEADER_BYTES:
        return value[:CONFLUENT_HEADER_BYTES]
    raise InvalidRecord("unknown_framing", "begins neither with C3 01 (Avro single object) nor with 00 (registry id)")


def writer_header(name: str, topic: str, registry: SchemaRegistry | None) -> bytes:
    """What to put before each event: Confluent's header where there is a registry, else the single-object one.

    Raises SchemaError when the registry does not know the schema under the subject `<topic>-value`.
    """
    named = latest(name)
    if registry is None:
        return named.header
    return CONFLUENT_MARKER + registry.id_of(f"{topic}-value", named.schema).to_bytes(4, "big")


class WriterSchemas:
    """From a message's header to the schema it was written with: `schemas/` by fingerprint, a registry by id.

    Schemas are kept for the life of the process, so a warm reader never waits for the registry. That an id is
    unknown is believed for `unknown_seconds` only: it may be registered later.
    """

    def __init__(self, name: str, registry: SchemaRegistry | None = None, *, unknown_seconds: float = 60.0) -> None:
        self._known = {named.header: named.schema for named in versions(name)}
        self._registry = registry
        self._unknown_seconds = unknown_seconds
        self._unknown: dict[bytes, Deadline] = {}

    def find(self, header: bytes) -> Schema:
        """The schema that a header names.

        Raises InvalidRecord when nobody knows it, SchemaRegistryUnavailable when the registry does not answer.
        """
        if header not in self._known:
            self._known[header] = self._ask_registry(header)
        return self._known[header]

    def _ask_registry(self, header: bytes) -> Schema:
        if header.startswith(SINGLE_OBJECT_MARKER):
            raise InvalidRecord("unknown_schema", f"no schema in schemas/ has the fingerprint {header[2:].hex()}")
        schema_id = int.from_bytes(header[1:], "big")
        if self._registry is None:
            raise InvalidRecord(
                "unknown_schema",
                f"schema id {schema_id} needs a registry, and BNPL_SCHEMA_REGISTRY_URL is not set",
            )
        unknown = self._unknown.get(header)
        believed = schema_id > _HIGHEST_ID or (unknown is not None and not unknown.passed)
        schema = None if believed else self._registry.schema(schema_id)
        if schema is None:
            if not believed:
                self._remember_unknown(header)
            raise InvalidRecord("unknown_schema", f"the registry has no Avro record schema with id {schema_id}")
        return _usable(schema, schema_id)

    def _remember_unknown(self, header: bytes) -> None:
        if len(self._unknown) >= _UNKNOWN_IDS_REMEMBERED:
            self._unknown.clear()
        self._unknown[header] = Deadline.after(self._unknown_seconds)


def _usable(schema: Schema, schema_id: int) -> Schema:
    try:
        fastavro.parse_schema(schema)
        sound = _is_sound(schema)
    except Exception:  # noqa: BLE001 fastavro meets a malformed schema with whatever its own code then raises
        sound = False
    if not sound:
        raise InvalidRecord(
            "unusable_schema", f"schema id {schema_id} is malformed or refers to types that it does not define"
        )
    return schema


def _is_sound(schema: Any) -> bool:
    """What fastavro takes on trust, and stumbles over in a body."""
    if isinstance(schema, dict) and str(schema.get("name")).rpartition(".")[2] in PRIMITIVES:
        return False  # Avro forbids it: who reads `long` would not know which one is meant
    match schema:
        case list():
            return all(map(_is_sound, schema))
        case {"type": "record"}:
            fields = schema.get("fields")
            return isinstance(fields, list) and all(
                isinstance(each["name"], str) and _is_sound(each["type"]) for each in fields
            )
        case {"type": "fixed"}:
            return type(schema["size"]) is int and schema["size"] >= 0
        case {"type": "enum"}:
            symbols = schema["symbols"]
            return isinstance(symbols, list) and all(isinstance(symbol, str) for symbol in symbols)
        case {"type": "array", "items": inner} | {"type": "map", "values": inner} | {"type": inner}:
            return _is_sound(inner)
        case _:
            return isinstance(schema, str)
