"""ClickHouse tables by numbered files: `deploy/clickhouse/NNNN_name.sql`, one statement each, applied once in order."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from clickhouse_connect.driver.client import Client

from consumer.errors import ConfigurationError
from consumer.services.clickhouse import errors_named

_NAME = re.compile(r"(\d{4})_\w+\.sql")
_LEDGER = """
CREATE TABLE IF NOT EXISTS schema_migrations
(number UInt32, name String, sha256 String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3))
ENGINE = ReplacingMergeTree ORDER BY number
"""
_RECORD = """
INSERT INTO schema_migrations (number, name, sha256)
SELECT {number:UInt32}, {name:String}, {sha256:String}
"""


@dataclass(frozen=True)
class Migration:
    """One file."""

    number: int
    name: str
    statement: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.statement.encode()).hexdigest()


def read(directory: Path) -> list[Migration]:
    """All migrations in order. Raises ConfigurationError for none, a stray name or a number used twice."""
    found = []
    for path in sorted(directory.glob("*.sql")):
        match = _NAME.fullmatch(path.name)
        if not match:
            raise ConfigurationError(f"{path}: a migration is named NNNN_name.sql")
        found.append(Migration(int(match[1]), path.stem, path.read_text()))
    if not found:
        raise ConfigurationError(f"no migrations in {directory}: set BNPL_MIGRATIONS_DIR to deploy/clickhouse")
    numbers = [migration.number for migration in found]
    if len(set(numbers)) != len(numbers):
        raise ConfigurationError(f"two migrations in {directory} have the same number")
    return found


@dataclass(frozen=True)
class Ledger:
    """The files of a folder against what a database says was applied to it."""

    applied: list[Migration]
    """As they are here, those that changed since among them."""
    changed: list[Migration]
    pending: list[Migration]
    unknown: list[int]
    """Numbers that were applied and are not here."""


def ledger(client: Client, directory: Path) -> Ledger:
    """Compare; changes nothing. Raises ConfigurationError for a folder that cannot be used."""
    migrations = read(directory)
    with errors_named():
        recorded: dict[int, str] = {}
        if client.command("EXISTS TABLE schema_migrations"):
            recorded = dict(client.query("SELECT number, sha256 FROM schema_migrations FINAL").result_rows)  # type: ignore[arg-type]
    applied = [migration for migration in migrations if migration.number in recorded]
    return Ledger(
        applied=applied,
        changed=[migration for migration in applied if recorded[migration.number] != migration.sha256],
        pending=[migration for migration in migrations if migration.number not in recorded],
        unknown=sorted(recorded.keys() - {migration.number for migration in migrations}),
    )


def migrate(client: Client, directory: Path) -> tuple[list[Migration], list[Migration]]:
    """Apply what is not applied yet; gives (applied now, applied before). Statements are safe to repeat, so a run
    that died between a statement and its record is simply run again.

    Raises ConfigurationError when an applied file was changed since: a change is a new file.
    """
    found = ledger(client, directory)
    if found.changed:
        raise ConfigurationError(
            f"migration {found.changed[0].name} was changed after it was applied; put the change into a new file"
        )
    with errors_named():
        client.command(_LEDGER)
        for migration in found.pending:
            client.command(migration.statement)
            client.command(
                _RECORD,
                parameters={"number": migration.number, "name": migration.name, "sha256": migration.sha256},
            )
    return found.pending, found.applied
