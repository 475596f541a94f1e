"""ClickHouse as the services use it: one client a thread, every call bounded, errors split into passing and lasting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError, OperationalError

from consumer.errors import ClickHouseUnavailable, ConfigurationError, Fatal
from consumer.settings import Settings
from consumer.stack.local import read_addresses

_CONNECT_SECONDS = 5
PATIENT_SECONDS = 120
"""For one question that goes through all rows, where nothing waits to be stopped."""
PASSING_CODES = {
    3: "UNEXPECTED_END_OF_FILE",
    159: "TIMEOUT_EXCEEDED",
    202: "TOO_MANY_SIMULTANEOUS_QUERIES",
    203: "NO_FREE_CONNECTION",
    209: "SOCKET_TIMEOUT",
    210: "NETWORK_ERROR",
    236: "ABORTED",
    241: "MEMORY_LIMIT_EXCEEDED",
    242: "TABLE_IS_READ_ONLY",
    225: "NO_ZOOKEEPER",
    243: "NOT_ENOUGH_SPACE",
    252: "TOO_MANY_PARTS",
    279: "ALL_CONNECTION_TRIES_FAILED",
    285: "TOO_FEW_LIVE_REPLICAS",
    319: "UNKNOWN_STATUS_OF_INSERT",
    394: "QUERY_WAS_CANCELLED",
    499: "S3_ERROR",
    745: "SERVER_OVERLOADED",
    999: "KEEPER_EXCEPTION",
}
"""ClickHouse's error codes that say "not now" rather than "never"."""


def connect(settings: Settings, seconds: int | None = None) -> Client:
    """A client of the configured ClickHouse, else of the local stack's. Not to be shared between threads. A request of
    it may take `seconds`, or those of the settings.

    Raises ClickHouseUnavailable when it does not answer, StackError when there is neither.
    """
    address = address_of(settings)
    with errors_named():
        return clickhouse_connect.get_client(
            dsn=address,
            autogenerate_session_id=False,
            connect_timeout=_CONNECT_SECONDS,
            send_receive_timeout=seconds or settings.clickhouse_timeout_seconds,
            query_retries=0,
            client_name="bnpl-shadow",
        )


def address_of(settings: Settings) -> str:
    """The URL of ClickHouse, which may hold a password. Raises ConfigurationError when it is none, without quoting it,
    StackError when none is set and no local stack runs.
    """
    if settings.clickhouse_url is None:
        return read_addresses(settings.state_dir).clickhouse
    address = settings.clickhouse_url.get_secret_value()
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number; the message quotes it
        usable = False
    if not usable:
        raise ConfigurationError("BNPL_CLICKHOUSE_URL is not an http(s)://user:password@host:port/database address")
    return address


@contextmanager
def errors_named() -> Iterator[None]:
    """Turn the client's errors into ClickHouseUnavailable (may pass) or Fatal (will not).

    The server's text can quote values of a row, so only its code and name are repeated.
    """
    try:
        yield
    except OperationalError as error:
        raise ClickHouseUnavailable("ClickHouse does not answer") from error
    except DatabaseError as error:
        code: Any = error.code
        what = f"ClickHouse answers code {code} ({error.name or PASSING_CODES.get(code, 'no name')})"
        if code is None or code in PASSING_CODES:
            raise ClickHouseUnavailable(what) from error
        raise Fatal(f"{what}; if tables are missing or older than this code, run `bnpl-shadow migrate`") from error
    except ClickHouseError as error:
        raise Fatal(f"ClickHouse: {type(error).__name__}") from error
