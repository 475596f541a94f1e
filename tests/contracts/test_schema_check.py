"""What `check` says of schemas where a registry runs."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import requests
from apicurio_registry import ApicurioRegistry
from pydantic import SecretStr

from consumer.contracts.registry import SchemaRegistry
from consumer.contracts.schemas import latest
from consumer.settings import Settings
from consumer.watch.check.schemas import check_schemas

KINDS = {"transaction": "topic_transactions", "shadow_event": "topic_shadow_scores", "outcome": "topic_outcomes"}


@pytest.fixture
def registry(apicurio: ApicurioRegistry) -> Iterator[SchemaRegistry]:
    with closing(SchemaRegistry(apicurio.address)) as registry:
        yield registry


@pytest.fixture
def settings(apicurio: ApicurioRegistry) -> Settings:
    name = uuid.uuid4().hex[:8]
    topics: dict[str, Any] = {setting: f"{name}.{kind}" for kind, setting in KINDS.items()}
    return Settings(schema_registry_url=SecretStr(apicurio.address), **topics)


def told(settings: Settings) -> list[tuple[str, str]]:
    return [(each.level, each.what) for each in check_schemas(settings)]


def set_compatibility(apicurio: ApicurioRegistry, subject: str, level: str) -> None:
    answer = requests.put(f"{apicurio.address}/config/{subject}", json={"compatibility": level}, timeout=5)
    answer.raise_for_status()


def test_schemas_are_registered_missing_or_at_odds_with_what_came_after_them(
    apicurio: ApicurioRegistry, registry: SchemaRegistry, settings: Settings
) -> None:
    subjects = {kind: f"{getattr(settings, setting)}-value" for kind, setting in KINDS.items()}
    first, *others = told(settings)
    newest = "transaction.v2, shadow_event.v2, outcome.v1, dead_letter_headers.v1, replay_marker_headers.v1, control.v1"
    assert first == ("ok", f"newest in schemas/: {newest}")
    assert others == [
        ("fault", f"the registry does not know {kind}.v{latest(kind).version} under {subject}")
        for kind, subject in subjects.items()
    ]
    ids = {kind: registry.register(subject, latest(kind).schema) for kind, subject in subjects.items()}
    assert told(settings)[1:] == [
        ("ok", f"{kind}.v{latest(kind).version} under {subject} is registered, id {ids[kind]}")
        for kind, subject in subjects.items()
    ]
    subject = subjects["shadow_event"]
    set_compatibility(apicurio, subject, "NONE")
    registry.register(subject, {"type": "record", "name": "ShadowEvent", "namespace": "bnpl", "fields": [
        {"name": "prediction_id", "type": "long"}
    ]})  # fmt: skip
    set_compatibility(apicurio, subject, "FULL")
    assert [level for level, _ in told(settings)] == ["ok", "ok", "fault", "ok"]
    assert "not compatible with the subject's newest version" in told(settings)[2][1]
