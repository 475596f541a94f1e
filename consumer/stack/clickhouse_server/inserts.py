"""Whether rows that the engine took were stored: chDB 4.4 acknowledges a streamed insert also when its end failed.

A full disk, a constraint, too many parts: what goes wrong after a row was parsed is lost between the engine and
`finish`, which returns as if all were well. The engine counts it, though, and keeps its newest errors.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from consumer.stack.clickhouse_server.engine import ask
from consumer.stack.clickhouse_server.errors import QueryError
from consumer.stack.clickhouse_server.sql import quote

_STATE = """
SELECT (SELECT sum(value) FROM system.events WHERE event = 'FailedInsertQuery') AS failed,
    groupArray((name, value)) AS errors
FROM system.errors FORMAT JSONEachRow
"""
_ERROR = "SELECT code, last_error_message AS message FROM system.errors WHERE name = {} LIMIT 1 FORMAT JSONEachRow"


class Inserts:
    """The streamed inserts of this process, of which each is asked about before it is acknowledged."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = self._begun = 0

    @contextmanager
    def proved(self, connection: Any) -> Iterator[None]:
        """Around a whole insert. Raises the QueryError that it failed with; code 319, which clients take for "insert
        again", when another insert ran meanwhile and the engine does not say which of them failed.
        """
        with self._lock:
            alone = not self._running
            self._running += 1
            self._begun += 1
            mine = self._begun
        try:
            before = _State.now(connection)
            yield
            after = _State.now(connection)
            if after.failed > before.failed:
                raise _error(connection, before, after) if alone and self._begun == mine else _unknown()
        finally:
            with self._lock:
                self._running -= 1


@dataclass(frozen=True)
class _State:
    failed: int
    """Inserts that failed since the engine started."""
    errors: dict[str, int]
    """How often each error came."""

    @classmethod
    def now(cls, connection: Any) -> _State:
        found = json.loads(ask(connection, _STATE))
        return cls(int(found["failed"]), {name: int(count) for name, count in found["errors"]})


def _error(connection: Any, before: _State, after: _State) -> QueryError:
    """The error that came in between."""
    for name, count in after.errors.items():
        if count > before.errors.get(name, 0):
            told = json.loads(ask(connection, _ERROR.format(quote(name))))
            return QueryError(int(told["code"]), name, told["message"])
    return _unknown()


def _unknown() -> QueryError:
    return QueryError(319, "UNKNOWN_STATUS_OF_INSERT", "an insert failed while this one ran, maybe this one")
