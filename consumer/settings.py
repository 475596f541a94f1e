"""Every setting of every service, read from the environment (`BNPL_…`) in this one place.

Unset addresses mean the local stack: `kafka_bootstrap_servers` and `clickhouse_url` are then read from what
`bnpl-shadow up` wrote into `state_dir`. Nothing falls back in silence: services log which part runs where.
"""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from consumer.errors import ConfigurationError

PROJECT = Path(__file__).resolve().parent.parent

Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
Directory = Annotated[Path, AfterValidator(lambda path: path.expanduser().resolve())]


class Settings(BaseSettings):
    """Strict and frozen: an unknown `BNPL_…` name, a wrong type or an unsafe value refuses to start."""

    model_config = SettingsConfigDict(
        env_prefix="BNPL_", frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True
    )

    # where things are
    kafka_bootstrap_servers: str | None = None
    """Brokers, `host:port,…`. Unset: the local stack's."""
    kafka_config_file: Path | None = None
    """A `client.properties` file (librdkafka's names): SASL, TLS and tuning pass through; unsafe keys are refused."""
    clickhouse_url: SecretStr | None = None
    """`http(s)://user:password@host:port/database`. Unset: the local stack's."""
    schema_registry_url: SecretStr | None = None
    """When set, events are written in Confluent's wire format; unset, as Avro single objects. Both are always read."""
    state_dir: Directory = PROJECT / ".bnpl"
    """The local stack's one folder: data, logs, addresses."""
    artifacts_dir: Directory = PROJECT / "artifacts"
    """Where exported model sets are, a folder each."""
    artifact_version: str = "v1"
    """Which of them scores."""
    artifact_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """Pins the models: the SHA-256 of their manifest, as `bnpl-shadow artifacts verify` shows it."""
    rules_file: Directory = PROJECT / "artifacts" / "rules" / "rules_v1.json"
    """The rule set that decides."""
    horizons_file: Directory = PROJECT / "artifacts" / "policy" / "horizons_v1.json"
    """The label horizons of outcomes."""
    policy_file: Directory = PROJECT / "artifacts" / "policy" / "promotion_v1.json"
    """What a model must show before it may be promoted; see `bnpl-shadow policy`."""
    migrations_dir: Directory = PROJECT / "deploy" / "clickhouse"
    """The numbered DDL of ClickHouse's tables."""

    # topics and groups
    topic_transactions: str = "bnpl.transactions"
    """Checkouts, keyed by customer: what is scored."""
    topic_shadow_scores: str = "bnpl.shadow-scores"
    """One shadow event a transaction, keyed by transaction: what scoring publishes."""
    topic_dead_letters: str = "bnpl.transactions.dlq"
    """Records that cannot be used, with the reason in their headers."""
    topic_outcomes: str = "bnpl.outcomes"
    """What became of a transaction, keyed by it, weeks later."""
    topic_outcomes_dead_letters: str = "bnpl.outcomes.dlq"
    """Outcomes that cannot be used, with the reason in their headers."""
    topic_control: str = "bnpl.control"
    """Which model is champion and what it decides: written by `promote` and `kill`, followed by score."""
    topic_partitions: Positive = 4
    """Partitions of a new topic: the most score processes that can share the work."""
    transactions_retention_days: Positive = 90
    """How long a new bnpl.transactions keeps checkouts: an evaluation weeks later makes its reasons from them."""
    topic_replication_factor: Positive = 1
    """Replicas of a new topic; 3 on a real cluster."""
    score_group: str = "bnpl-score"
    """Consumer group of the score service."""
    sink_group: str = "bnpl-sink"
    """Consumer group of the sink service."""
    drift_group: str = "bnpl-drift"
    """Consumer group of the drift service; the digest of the export that it counts for is put behind it."""
    group_protocol: Literal["auto", "consumer", "classic"] = "auto"
    """`auto`: the KIP-848 protocol (`consumer`) where the broker has it, else the classic one."""
    instance: str = "0"
    """Stable name of this process among its replicas; part of the transactional id."""

    # batches and budgets
    batch_max_records: Positive = 10_000
    """Records of one batch, and of one Kafka transaction, at the most."""
    batch_max_bytes: Positive = 64 * 1024 * 1024
    """Bytes fetched ahead at the most; score also asks for fewer records at a time when they are large."""
    batch_max_wait_ms: Positive = 20
    """How long a quiet score service waits for a batch to fill: its latency when there is little to do."""
    sink_max_wait_ms: Positive = 1000
    """How long the sink waits for a batch to fill: ClickHouse wants few large inserts, about one a second."""
    sink_max_records: Positive = 50_000
    """Rows of one insert at the most. A larger one costs ClickHouse less a row, and the sink more memory."""
    model_budget_ms: Positive = 1000
    """How long a batch waits for one model that is not linear, or for what prepares its input; then it is off."""
    model_off_seconds: Positive = 30
    """How long a model that took longer is left out before a batch tries it again."""
    transaction_timeout_ms: Annotated[int, Field(ge=1000, le=20_000)] = 10_000
    """After this long the broker aborts a transaction that is not committed."""
    max_poll_interval_ms: Annotated[int, Field(ge=30_000)] = 60_000
    """After this long without reading, the group gives a service's partitions to another."""
    session_timeout_ms: Annotated[int, Field(ge=1000, le=45_000)] = 6000
    """How long a member that died keeps its partitions. `topics apply` sets it for groups of the KIP-848 protocol."""
    clickhouse_timeout_seconds: Annotated[int, Field(ge=1, le=20)] = 15
    """How long one request to ClickHouse may take. Bounded so that a stop during one ends within 25 s."""
    metrics_host: str = "127.0.0.1"
    """Where a service's /metrics, /livez and /readyz listen; 0.0.0.0 lets other machines in."""
    score_metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 9650
    """Their port in a score process; 0 takes any free one, which the log names."""
    sink_metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 9651
    """The same in a sink process."""
    reconcile_metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 9652
    """The same for `bnpl-shadow reconcile --every`."""
    drift_metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 9653
    """The same for `bnpl-shadow drift --every`."""
    evaluate_metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 9654
    """The same for `bnpl-shadow evaluate --every`."""
    dashboard_host: str = "127.0.0.1"
    """Where the dashboard listens. It asks for no password: 0.0.0.0 lets in whoever reaches this machine."""
    dashboard_port: Annotated[int, Field(ge=0, le=65_535)] = 9661
    """Its port; 0 takes any free one, which the log names."""
    stuck_after_seconds: Positive = 60
    """Without progress for so long, and with records to read, a service is not alive."""
    lag_interval_ms: Annotated[int, Field(ge=100, le=20_000)] = 5000
    """How often a service looks at its lag. Bounded so that the minute that a status is made of has three looks."""

    # the HTTP API
    api_host: str = "127.0.0.1"
    """Where `bnpl-shadow api` listens. Any other than a loopback address needs BNPL_API_TOKENS_FILE."""
    api_port: Annotated[int, Field(ge=0, le=65_535)] = 9660
    """Its port, for requests and for /metrics, /livez and /readyz; 0 takes any free one, which the log names."""
    api_tokens_file: Path | None = None
    """Who may use it: names, SHA-256 of tokens and scopes, as `bnpl-shadow api token` prints them. Unset: everybody on
    this machine."""
    api_rate_limit: Annotated[str, Field(pattern=r"^[1-9]\d{0,8}/(second|minute|hour)$")] = "100/second"
    """How often one token, or without tokens one address, may ask: a number a second, minute or hour."""
    api_max_body_bytes: Positive = 4 * 1024 * 1024
    """The largest request body; a thousand transactions with all their fields are half of it."""
    api_control_max_silence_seconds: Annotated[int, Field(ge=5)] = 60
    """After so long without Kafka's word that a promotion still rules, the API decides by the rules alone."""

    # what is let in
    event_max_future_seconds: Positive = 300
    """How far ahead of this machine's clock a transaction may claim to be."""
    event_max_age_days: Annotated[int, Field(gt=0, le=2800)] = 1825
    """How old a transaction may be. Bounded so that one insert never spans ClickHouse's limit of 100 months."""
    string_max_bytes: Positive = 256
    """The longest text field, in UTF-8 bytes."""
    dead_letter_max_ratio: Share = 0.05
    """A service stops when a larger share of a partition's recent records is bad."""
    dead_letter_ratio_min_records: Positive = 1000
    """How many records of a partition must have been seen before the share counts."""
    dead_letter_max_consecutive: Positive = 100
    """A service stops at this many bad records in a row in one partition."""
    dead_letter_max_attempts: Positive = 3
    """A record that was refused so often is parked: `bnpl-shadow dlq replay` leaves it alone unless told otherwise."""

    # what a decision is worth; `bnpl-shadow migrate` records it for the view shadow_predictions
    margin: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.04
    """What a financed transaction earns when it is repaid, as a share of its amount."""
    loss_given_default: Share = 0.6
    """What it loses when it defaults, as a share of its amount."""

    # privacy
    pseudonym_key: SecretStr | None = None
    """When set, shadow events carry HMAC-SHA256(customer_id) as the customer's reference; unset, they carry none."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe log line that is written."""

    # proving what holds when things die
    profile: Literal["production", "test"] = "production"
    """`test` lets a crash point be set."""
    crash_point: Annotated[str, Field(pattern=r"^(score:[1-8]|sink:[1-5])(@[1-9]\d{0,5})?$")] | None = None
    """Where a service dies: `score:6` after step 6 of its commit protocol, `sink:4@3` the third time after step 4."""
    crash_action: Literal["kill", "stop", "hang"] = "kill"
    """What happens there: SIGKILL, SIGSTOP until somebody sends SIGCONT, or the step never returns."""

    @model_validator(mode="after")
    def _refuse_crashes_in_production(self) -> Self:
        if self.crash_point and self.profile != "test":
            raise ValueError("BNPL_CRASH_POINT kills the service on purpose: unset it, or set BNPL_PROFILE=test")
        return self


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment, with `overrides` (from command-line options) before it.

    Raises ConfigurationError that lists every fault at once, by the name of its variable.
    """
    faults = _unknown_variables()
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        settings = Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        faults += [
            f"  {'BNPL_' + '_'.join(map(str, fault['loc'])).upper() + ': ' if fault['loc'] else ''}{fault['msg']}"
            for fault in error.errors()
        ]
    if faults:
        raise ConfigurationError("the settings cannot be used:\n" + "\n".join(faults))
    return settings


def _unknown_variables() -> list[str]:
    """Pydantic reads what it knows and overlooks the rest: a misspelt name would silently leave the default."""
    known = {f"BNPL_{name.upper()}" for name in Settings.model_fields}
    faults = []
    for name in sorted(os.environ):
        if name.upper().startswith("BNPL_") and name.upper() not in known:
            close = get_close_matches(name.upper(), known, 1)
            faults.append(f"  {name}: no such setting{f'; did you mean {close[0]}?' if close else ''}")
    return faults
