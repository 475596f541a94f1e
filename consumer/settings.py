"""Every setting of every service, read from the environment (`BNPL_…`) in this one place.

Unset addresses mean the local stack: `kafka_bootstrap_servers` and `clickhouse_url` are then read from what
`bnpl-shadow up` wrote into `state_dir`. Nothing falls back in silence: services log which part runs where.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from consumer.errors import ConfigurationError

PROJECT = Path(__file__).resolve().parent.parent

Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
Directory = Annotated[Path, AfterValidator(lambda path: path.expanduser().resolve())]


class Settings(BaseSettings):
    """Strict and frozen: an unknown `BNPL_…` name, a wrong type or an unsafe value refuses to start."""

    model_config = SettingsConfigDict(env_prefix="BNPL_", frozen=True, extra="forbid", hide_input_in_errors=True)

    # where things are
    kafka_bootstrap_servers: str | None = None
    kafka_config_file: Path | None = None
    """A `client.properties` file (librdkafka's names): SASL, TLS and tuning pass through; unsafe keys are refused."""
    clickhouse_url: SecretStr | None = None
    """`http(s)://user:password@host:port/database`"""
    schema_registry_url: SecretStr | None = None
    """When set, events are written in Confluent's wire format; unset, as Avro single objects. Both are always read."""
    state_dir: Directory = PROJECT / ".bnpl"
    """The local stack's one folder: data, logs, addresses."""
    artifacts_dir: Directory = PROJECT / "artifacts"
    artifact_version: str = "v1"
    artifact_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """Pins the models: the SHA-256 of their manifest, as `bnpl-shadow artifacts ls` shows it."""
    rules_file: Directory = PROJECT / "artifacts" / "rules" / "rules_v1.json"
    migrations_dir: Directory = PROJECT / "deploy" / "clickhouse"

    # topics and groups
    topic_transactions: str = "bnpl.transactions"
    topic_shadow_scores: str = "bnpl.shadow-scores"
    topic_dead_letters: str = "bnpl.transactions.dlq"
    topic_outcomes: str = "bnpl.outcomes"
    topic_outcomes_dead_letters: str = "bnpl.outcomes.dlq"
    topic_control: str = "bnpl.control"
    topic_partitions: Positive = 4
    topic_replication_factor: Positive = 1
    score_group: str = "bnpl-score"
    sink_group: str = "bnpl-sink"
    group_protocol: Literal["auto", "consumer", "classic"] = "auto"
    """`auto`: the KIP-848 protocol where the broker has it, else the classic one."""
    instance: str = "0"
    """Stable name of this process among its replicas; part of the transactional id."""

    # batches and budgets
    batch_max_records: Positive = 10_000
    batch_max_bytes: Positive = 64 * 1024 * 1024
    batch_max_wait_ms: Positive = 20
    """How long a quiet service waits for a batch to fill: its latency when there is little to do."""
    transaction_timeout_ms: Positive = 10_000
    max_poll_interval_ms: Positive = 60_000
    shutdown_seconds: Annotated[float, Field(gt=0, le=25)] = 20.0
    clickhouse_timeout_seconds: Positive = 30
    """Below `max_poll_interval_ms`, so that a hanging insert is given up before the group gives up on the sink."""

    # what is let in
    event_max_future_seconds: Positive = 300
    event_max_age_days: Annotated[int, Field(gt=0, le=2800)] = 1825
    """Bounded so that one insert block never spans more than ClickHouse's 100 monthly partitions."""
    string_max_bytes: Positive = 256
    dead_letter_max_ratio: Share = 0.05
    dead_letter_ratio_min_records: Positive = 1000
    dead_letter_max_consecutive: Positive = 100

    # privacy
    pseudonym_key: SecretStr | None = None
    """When set, shadow events carry HMAC-SHA256(customer_id) as the customer's reference; unset, they carry none."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _timeouts_fit_together(self) -> Settings:
        longest = self.max_poll_interval_ms / 1000
        for name, seconds in (
            ("BNPL_CLICKHOUSE_TIMEOUT_SECONDS", self.clickhouse_timeout_seconds),
            ("BNPL_TRANSACTION_TIMEOUT_MS", self.transaction_timeout_ms / 1000),
        ):
            if seconds >= longest:
                raise ValueError(f"{name} ({seconds:g} s) must be below BNPL_MAX_POLL_INTERVAL_MS ({longest:g} s)")
        return self


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment, with `overrides` (from command-line options) before it.

    Raises ConfigurationError that lists every fault at once, by the name of its variable.
    """
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        faults = [
            f"  {'BNPL_' + '_'.join(map(str, fault['loc'])).upper() + ': ' if fault['loc'] else ''}{fault['msg']}"
            for fault in error.errors()
        ]
        raise ConfigurationError("the settings cannot be used:\n" + "\n".join(faults)) from None
