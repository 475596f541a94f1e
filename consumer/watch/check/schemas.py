"""Schemas: can they be read, and does the registry, where there is one, know them?"""

from __future__ import annotations

from collections.abc import Sequence

from consumer.contracts.registry import SchemaRegistry, schema_registry
from consumer.contracts.schemas import latest, versions
from consumer.services.topics import topics_of_kinds
from consumer.settings import Settings
from consumer.watch.check.finding import Findings, fault, ok, stopping

KINDS = ("transaction", "shadow_event", "outcome", "dead_letter_headers", "replay_marker_headers", "control")
_REGISTER = "run `bnpl-shadow schemas register`"


def check_schemas(settings: Settings, written: Sequence[str] = ("transaction", "shadow_event", "outcome")) -> Findings:
    """The files of schemas/, then whether a registry knows the kinds that are `written` here."""
    with stopping("schemas"):
        found = [f"{kind}.v{versions(kind)[-1].version}" for kind in KINDS]
    yield ok("schemas", f"newest in schemas/: {', '.join(found)}")
    if settings.schema_registry_url:
        with stopping("schemas", "mend BNPL_SCHEMA_REGISTRY_URL"):
            registry = schema_registry(settings)
        if registry is not None:
            try:
                yield from _registered(registry, settings, written)
            finally:
                registry.close()


def _registered(registry: SchemaRegistry, settings: Settings, written: Sequence[str]) -> Findings:
    topics = topics_of_kinds(settings)
    for kind in written:
        named, subject = latest(kind), f"{topics[kind]}-value"
        what = f"{kind}.v{named.version} under {subject}"
        with stopping("schemas", "see whether BNPL_SCHEMA_REGISTRY_URL leads to a registry that runs"):
            schema_id = registry.find(subject, named.schema)
            fits = registry.is_compatible(subject, named.schema)
        if schema_id is None:
            yield fault("schemas", f"the registry does not know {what}", _REGISTER)
        elif not fits:
            remedy = "see who registered the newest version there, and take it back or bring this one up to it"
            yield fault(
                "schemas", f"{what} is registered, but not compatible with the subject's newest version", remedy
            )
        else:
            yield ok("schemas", f"{what} is registered, id {schema_id}")
