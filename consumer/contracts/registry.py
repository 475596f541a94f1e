"""A schema registry with Confluent's API, as the few questions that reading and writing events ask of it.

Its client is imported late: that takes 0.3 s, which a service without a registry need not spend when it comes back.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from consumer.errors import ConfigurationError, SchemaError, SchemaRegistryUnavailable
from consumer.settings import Settings

TIMEOUT_SECONDS = 5


class SchemaRegistry:
    """Every call answers, or raises SchemaRegistryUnavailable within a few timeouts."""

    def __init__(self, url: str) -> None:
        """`url` may carry user and password; it is never logged or quoted in an error.

        Raises ConfigurationError when it is no URL.
        """
        from confluent_kafka.schema_registry import SchemaRegistryClient

        try:
            self._client = SchemaRegistryClient({"url": url, "timeout": TIMEOUT_SECONDS, "max.retries": 1})
        except ValueError:  # its message quotes the URL
            raise ConfigurationError("BNPL_SCHEMA_REGISTRY_URL is not an http:// or https:// address") from None

    def schema(self, schema_id: int) -> dict[str, Any] | None:
        """The Avro record schema under an id, or None when the id is unknown or is no such schema."""
        found = self._ask(lambda: self._client.get_schema(schema_id))
        if found is None or found.schema_type != "AVRO":
            return None
        try:
            schema = json.loads(found.schema_str)
        except (ValueError, RecursionError):
            return None
        return schema if isinstance(schema, dict) and schema.get("type") == "record" else None

    def find(self, subject: str, schema: dict[str, Any]) -> int | None:
        """The id of a schema registered under a subject, or None when it is not."""
        found = self._ask(lambda: self._client.lookup_schema(subject, _avro(schema)))
        return None if found is None else int(found.schema_id)

    def id_of(self, subject: str, schema: dict[str, Any]) -> int:
        """As `find`, but raises SchemaError when it is not registered."""
        schema_id = self.find(subject, schema)
        if schema_id is None:
            raise SchemaError(
                f"schema {schema['name']} is not registered under {subject}: run `bnpl-shadow schemas register`"
            )
        return schema_id

    def is_compatible(self, subject: str, schema: dict[str, Any]) -> bool:
        """Whether a schema keeps the subject's compatibility with its newest version; also when it has none."""
        return bool(self._ask(lambda: self._client.test_compatibility(subject, _avro(schema))) in (True, None))

    def register(self, subject: str, schema: dict[str, Any]) -> int:
        """Register a schema; the registry itself refuses one that breaks the subject's compatibility."""
        registered = self._ask(lambda: self._client.register_schema(subject, _avro(schema)))
        if registered is None:
            raise SchemaError(f"the registry does not know subject {subject} and did not create it")
        return int(registered)

    def close(self) -> None:
        """Let go of the connections; nothing can be asked afterwards."""
        self._client.close()

    @staticmethod
    def _ask(question: Callable[[], Any]) -> Any:
        from confluent_kafka.schema_registry.error import SchemaRegistryError

        try:
            return question()
        except SchemaRegistryError as error:
            if error.http_status_code == 404:
                return None
            if error.http_status_code in (409, 422):
                raise SchemaError(f"the registry refused the schema: {error.error_message}") from error
            raise SchemaRegistryUnavailable(f"the schema registry answered {error.http_status_code}") from error
        except Exception as error:
            raise SchemaRegistryUnavailable(f"the schema registry did not answer ({type(error).__name__})") from error


def _avro(schema: dict[str, Any]) -> Any:
    from confluent_kafka.schema_registry import Schema

    return Schema(json.dumps(schema), "AVRO")


def schema_registry(settings: Settings) -> SchemaRegistry | None:
    """The configured registry, or None when schemas come from `schemas/` alone."""
    url = settings.schema_registry_url
    return SchemaRegistry(url.get_secret_value()) if url else None
