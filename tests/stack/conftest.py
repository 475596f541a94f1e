"""Servers of a test's own, for what would disturb the tests beside it on the shared ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client

from consumer.stack.clickhouse import ClickHouse


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ClickHouse]:
    """A ClickHouse of the test's own, to be killed."""
    server = ClickHouse(tmp_path, 0, owned=True)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def clickhouse_alone(request: pytest.FixtureRequest) -> Iterator[Client]:
    """A client of a server into which nobody else inserts: the local one answers an insert that runs while another
    fails with "insert again" (see clickhouse_server/inserts.py), and tests elsewhere insert only once.
    """
    if request.config.getoption("--docker"):
        yield request.getfixturevalue("clickhouse")
        return
    server: ClickHouse = request.getfixturevalue("own_server")
    with clickhouse_connect.get_client(dsn=server.address) as client:
        yield client
