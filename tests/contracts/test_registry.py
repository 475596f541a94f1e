"""Events under a real schema registry: registered, written, read by id; and what happens when it is away."""

from __future__ import annotations

import copy
import json
import socket
import threading
import traceback
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
import requests
from apicurio_registry import ApicurioRegistry
from samples import transaction

from consumer.contracts.avro import Decoded
from consumer.contracts.events import EventReader, EventWriter
from consumer.contracts.registry import SchemaRegistry, schema_registry
from consumer.contracts.schemas import Schema, WriterSchemas, latest, versions, writer_header
from consumer.contracts.transaction import EVENT_SCHEMA, FIELDS, columns_from_dicts
from consumer.errors import ConfigurationError, SchemaError, SchemaRegistryUnavailable
from consumer.settings import Settings
from consumer.stack.part import free_port

SECRET = "hush-4711"


@pytest.fixture
def registry(apicurio: ApicurioRegistry) -> Iterator[SchemaRegistry]:
    with closing(SchemaRegistry(apicurio.address)) as registry:
        yield registry


@pytest.fixture
def topic() -> str:
    return f"transactions-{uuid.uuid4().hex[:8]}"


def set_compatibility(apicurio: ApicurioRegistry, topic: str, level: str) -> None:
    answer = requests.put(f"{apicurio.address}/config/{topic}-value", json={"compatibility": level}, timeout=5)
    answer.raise_for_status()


def reader(registry: SchemaRegistry, **options: float) -> EventReader:
    return EventReader(WriterSchemas("transaction", registry, **options), FIELDS)


def written(topic: str, registry: SchemaRegistry, *ids: str) -> list[bytes]:
    writer = EventWriter("transaction", writer_header("transaction", topic, registry))
    return writer.write(columns_from_dicts([transaction(transaction_id=each) for each in ids], EVENT_SCHEMA))


def named(decoded: Decoded) -> tuple[list[str], dict[int, str]]:
    return (
        decoded.batch.column("transaction_id").to_pylist(),
        {bad.position: bad.reason.error for bad in decoded.rejected},
    )


def changed_schema(**field: object) -> Schema:
    schema = copy.deepcopy(latest("transaction").schema)
    schema["fields"].append(field)
    return schema


def register(registry: SchemaRegistry, topic: str) -> None:
    for version in versions("transaction"):
        registry.register(f"{topic}-value", version.schema)


def test_events_are_written_with_the_registered_id_and_read_by_it(registry: SchemaRegistry, topic: str) -> None:
    register(registry, topic)
    values = written(topic, registry, "a", "b")
    schema_id = registry.id_of(f"{topic}-value", latest("transaction").schema)
    assert all(value[:5] == b"\x00" + schema_id.to_bytes(4, "big") for value in values)
    assert named(reader(registry).read(values)) == (["a", "b"], {})


def test_registering_again_gives_the_same_id(registry: SchemaRegistry, topic: str) -> None:
    schema = latest("transaction").schema
    assert registry.register(f"{topic}-value", schema) == registry.register(f"{topic}-value", schema)


def test_a_schema_that_only_the_registry_knows_is_read(registry: SchemaRegistry, topic: str) -> None:
    newer = changed_schema(name="basket", type={"type": "map", "values": "long"}, default={})
    schema_id = registry.register(f"{topic}-value", newer)
    body = written(topic, _registered(registry, topic), "a")[0][5:] + b"\x02\x02k\x08\x00"
    values = [b"\x00" + schema_id.to_bytes(4, "big") + body]
    assert named(reader(registry).read(values)) == (["a"], {})


def _registered(registry: SchemaRegistry, topic: str) -> SchemaRegistry:
    registry.register(f"{topic}-value", latest("transaction").schema)
    return registry


def test_both_framings_are_read_where_there_is_a_registry(registry: SchemaRegistry, topic: str) -> None:
    framed = written(topic, _registered(registry, topic), "a", "c")
    single = EventWriter("transaction", latest("transaction").header).write(
        columns_from_dicts([transaction(transaction_id="b")], EVENT_SCHEMA)
    )
    assert named(reader(registry).read([framed[0], *single, framed[1]])) == (["a", "b", "c"], {})


@pytest.mark.parametrize("schema_id", [0, 2**31 - 1, 2**31, 2**32 - 1])
def test_an_unknown_id_is_the_records_fault_and_its_neighbours_are_read(
    registry: SchemaRegistry, topic: str, schema_id: int
) -> None:
    good = written(topic, _registered(registry, topic), "a", "b")
    bad = b"\x00" + schema_id.to_bytes(4, "big") + good[0][5:]
    assert named(reader(registry).read([good[0], bad, good[1]])) == (["a", "b"], {1: "unknown_schema"})


def test_an_id_that_becomes_known_is_read_after_a_while(registry: SchemaRegistry, topic: str) -> None:
    tomorrow = changed_schema(name=f"added_{uuid.uuid4().hex[:8]}", type=["null", "string"], default=None)
    body = written(topic, _registered(registry, topic), "a")[0][5:] + b"\x00"
    next_id = registry.register(f"{topic}-probe-value", changed_schema(name=topic.replace("-", "_"), type="long")) + 1
    value = b"\x00" + next_id.to_bytes(4, "big") + body
    patient, hasty = reader(registry, unknown_seconds=3600), reader(registry, unknown_seconds=0)
    assert named(patient.read([value])) == named(hasty.read([value])) == ([], {0: "unknown_schema"})
    assert registry.register(f"{topic}-value", tomorrow) == next_id
    assert named(hasty.read([value])) == (["a"], {})
    assert named(patient.read([value])) == ([], {0: "unknown_schema"})


def test_a_schema_of_another_kind_is_the_records_fault(
    apicurio: ApicurioRegistry, registry: SchemaRegistry, topic: str
) -> None:
    bare = _post(apicurio, topic, {"schema": '"string"'})
    json_schema = _post(
        apicurio,
        f"{topic}-json",
        {"schema": '{"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}', "schemaType": "JSON"},
    )
    foreign = registry.register(f"{topic}-shadow-value", latest("shadow_event").schema)
    values = [b"\x00" + schema_id.to_bytes(4, "big") + b"\x02a" for schema_id in (bare, json_schema, foreign)]
    decoded = reader(registry).read(values)
    assert named(decoded) == ([], {0: "unknown_schema", 1: "unknown_schema", 2: "missing_field"})


def test_a_schema_that_refers_to_another_subject_is_the_records_fault(
    apicurio: ApicurioRegistry, registry: SchemaRegistry, topic: str
) -> None:
    name = f"{topic.replace('-', '_')}.Part"
    registry.register(f"{topic}-part", {"type": "record", "name": name, "fields": [{"name": "a", "type": "string"}]})
    body: dict[str, Any] = {
        "schema": json.dumps(changed_schema(name="part", type=name)),
        "references": [{"name": name, "subject": f"{topic}-part", "version": 1}],
    }
    schema_id = _post(apicurio, topic, body)
    decoded = reader(registry).read([b"\x00" + schema_id.to_bytes(4, "big") + b"body"])
    assert named(decoded) == ([], {0: "unusable_schema"})


def _post(apicurio: ApicurioRegistry, subject: str, body: dict[str, Any]) -> int:
    answer = requests.post(f"{apicurio.address}/subjects/{subject}-value/versions", json=body, timeout=5)
    answer.raise_for_status()
    schema_id: int = answer.json()["id"]
    return schema_id


def test_the_registry_refuses_an_incompatible_change(
    apicurio: ApicurioRegistry, registry: SchemaRegistry, topic: str
) -> None:
    register(registry, topic)
    set_compatibility(apicurio, topic, "BACKWARD")
    with pytest.raises(SchemaError, match="refused the schema"):
        registry.register(f"{topic}-value", changed_schema(name="must", type="string"))
    registry.register(f"{topic}-value", changed_schema(name="may", type=["null", "string"], default=None))


def test_a_writer_whose_schema_is_not_registered_is_told_the_command(registry: SchemaRegistry, topic: str) -> None:
    with pytest.raises(SchemaError, match="bnpl-shadow schemas register"):
        writer_header("transaction", topic, registry)


def test_an_id_is_asked_for_once_so_that_reading_goes_on_while_the_registry_hangs(
    apicurio: ApicurioRegistry, registry: SchemaRegistry, topic: str
) -> None:
    values = written(topic, _registered(registry, topic), "a", "b")
    warm = reader(registry)
    assert named(warm.read(values)) == (["a", "b"], {})
    apicurio.suspend()
    try:
        assert named(warm.read([*values[::-1], None])) == (["b", "a"], {2: "tombstone"})
    finally:
        apicurio.resume()


def test_a_registry_that_is_away_is_never_the_records_fault() -> None:
    with closing(SchemaRegistry(f"http://127.0.0.1:{free_port()}/apis/ccompat/v7")) as registry:
        away = reader(registry)
        for _ in range(2):  # nor is it remembered as an unknown id
            with pytest.raises(SchemaRegistryUnavailable):
                away.read([b"\x00\x00\x00\x00\x01body"])


@pytest.mark.parametrize("status", [401, 500, 503])
def test_an_answer_that_is_none_is_not_the_records_fault_either(status: int) -> None:
    with answering(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n") as url:
        with (
            closing(SchemaRegistry(url)) as registry,
            pytest.raises(SchemaRegistryUnavailable, match=str(status)) as failed,
        ):
            reader(registry).read([b"\x00\x00\x00\x00\x01body"])
        assert SECRET not in "".join(traceback.format_exception(failed.value))


@contextmanager
def answering(reply: str) -> Iterator[str]:
    """A server that says one thing to everybody; its URL carries a password."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    client.recv(65536)
                    client.sendall(reply.encode())

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://user:{SECRET}@127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)


@pytest.mark.parametrize(
    "url",
    ["user:{}@host", "ftp://user:{}@host/x", "http://user:{}@[host", "http://user:{}@127.0.0.1:1/?token={}"],
)
def test_no_error_quotes_what_is_secret_in_the_url(url: str) -> None:
    with (
        pytest.raises((ConfigurationError, SchemaRegistryUnavailable)) as failed,
        closing(SchemaRegistry(url.format(SECRET, SECRET))) as registry,
    ):
        registry.schema(1)
    assert SECRET not in "".join(traceback.format_exception(failed.value))


def test_without_a_registry_an_id_is_refused_and_the_setting_named() -> None:
    assert schema_registry(Settings()) is None
    decoded = EventReader(WriterSchemas("transaction"), FIELDS).read([b"\x00\x00\x00\x00\x01body"])
    (bad,) = decoded.rejected
    assert bad.reason.error == "unknown_schema"
    assert "BNPL_SCHEMA_REGISTRY_URL" in str(bad.reason)
