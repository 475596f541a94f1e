"""The engine as requests see it: a connection each, with the request's settings in force, and sessions."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import chdb
import psutil

from consumer.stack.clickhouse_server.errors import QueryError
from consumer.stack.clickhouse_server.sql import quote, quote_identifier

MAX_CONCURRENT = 32
QUEUE_SECONDS = 30.0
MAX_SESSION_SECONDS = 3600.0


@dataclass(frozen=True)
class Context:
    """What a request sets for its one statement."""

    settings: Mapping[str, str]
    database: str | None = None
    session: str | None = None
    session_seconds: float = 60.0
    session_must_exist: bool = False


@dataclass
class _Session:
    connection: Any
    expires: float
    busy: bool = True


class Engine:
    """One data path, owned by this process for as long as the engine is open.

    A chDB connection costs 0.2 ms and does one thing at a time, so every request gets a fresh one and throws
    it away: settings cannot leak. A session begins with the first statement that leaves
    something behind (SET, USE, CREATE TEMPORARY TABLE); until then its requests are as free as any.
    """

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._root = self._connect()
        self.version: str = self._root.query("SELECT version()", "TabSeparated").bytes().decode().strip()
        self._defaults = {
            "max_execution_time": "600",
            "max_memory_usage": str(psutil.virtual_memory().total // 2),
        }
        self._slots = threading.BoundedSemaphore(MAX_CONCURRENT)
        self._lock = threading.Lock()
        self._sessions: dict[str, _Session] = {}

    def close(self) -> None:
        """Close every connection; closing the last one releases the data path."""
        for session in self._sessions.values():
            session.connection.close()
        self._root.close()

    @contextmanager
    def connection(self, context: Context, *, leaves_state: bool) -> Iterator[Any]:
        """A chDB connection with the request's settings and database in force.

        `leaves_state` says that the statement is meant to outlive its request, in its session if it has one.
        Raises QueryError 202 when 32 statements run already and none ends within 30 s, 372 and 373 for a
        session that is missing or in use, and what the engine says about an unknown or malformed setting.
        """
        if not self._slots.acquire(timeout=QUEUE_SECONDS):
            raise QueryError(202, "TOO_MANY_SIMULTANEOUS_QUERIES", f"{MAX_CONCURRENT} queries are running already")
        try:
            session = self._take_session(context, create=leaves_state) if context.session else None
            with self._fresh(context) if session is None else self._resumed(session, context) as connection:
                yield connection
        finally:
            self._slots.release()

    @contextmanager
    def _fresh(self, context: Context) -> Iterator[Any]:
        connection = self._connect()
        try:
            set_all(connection, {**self._defaults, **context.settings})
            _use(connection, context.database)
            yield connection
        finally:
            connection.close()

    @contextmanager
    def _resumed(self, session: _Session, context: Context) -> Iterator[Any]:
        """The session's connection; what this request alone asked for is undone after it."""
        connection = session.connection
        try:
            before = _settings_now(connection, context.settings)
            database = _current_database(connection) if context.database else None
            try:
                set_all(connection, context.settings)
                _use(connection, context.database)
                yield connection
            finally:
                set_all(connection, before)
                _use(connection, database)
        finally:
            session.expires = time.monotonic() + min(context.session_seconds, MAX_SESSION_SECONDS)
            session.busy = False

    def _connect(self) -> Any:
        return chdb.connect(self._path)  # type: ignore[no-untyped-call]

    def _take_session(self, context: Context, *, create: bool) -> _Session | None:
        assert context.session is not None  # noqa: S101 - the caller looked
        with self._lock:
            self._drop_expired()
            session = self._sessions.get(context.session)
            if session is None and context.session_must_exist:
                raise QueryError(372, "SESSION_NOT_FOUND", "Session not found")
            if session is None and create:
                connection = self._connect()
                set_all(connection, self._defaults)
                session = self._sessions[context.session] = _Session(connection, expires=0.0)
            elif session is not None and session.busy:
                raise QueryError(373, "SESSION_IS_LOCKED", "Session is locked by a concurrent client")
            elif session is not None:
                session.busy = True
            return session

    def _drop_expired(self) -> None:
        now = time.monotonic()
        for name in [name for name, session in self._sessions.items() if not session.busy and session.expires < now]:
            self._sessions.pop(name).connection.close()


def set_all(connection: Any, settings: Mapping[str, str | None]) -> None:
    """SET all at once; None puts a setting back to its default."""
    if settings:
        values = (
            f"{quote_identifier(name)} = {'DEFAULT' if value is None else quote(value)}"
            for name, value in settings.items()
        )
        ask(connection, f"SET {', '.join(values)}")


def _use(connection: Any, database: str | None) -> None:
    if database:
        ask(connection, f"USE {quote_identifier(database)}")


def _settings_now(connection: Any, names: Mapping[str, str]) -> dict[str, str | None]:
    if not names:
        return {}
    listed = ", ".join(quote(name) for name in names)
    rows = ask(
        connection,
        f"SELECT name, value, changed FROM system.settings WHERE name IN ({listed}) FORMAT JSONEachRow",  # noqa: S608
    )
    return {row["name"]: row["value"] if row["changed"] else None for row in map(json.loads, rows.splitlines())}


def _current_database(connection: Any) -> str:
    return ask(connection, "SELECT currentDatabase() FORMAT TabSeparatedRaw").decode().rstrip("\n")


def ask(connection: Any, statement: str) -> bytes:
    """Run a statement of our own; raises QueryError."""
    try:
        answer: bytes = connection.query(statement, "TabSeparated").bytes()
    except RuntimeError as error:
        raise QueryError.of_engine(error) from None
    return answer
