"""`pytest --docker`: the same tests on Kafka and ClickHouse servers in containers, for machines that have Docker.

What only the local stack can do (kill, suspend, restart a part) is skipped by name there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import docker
import pytest
from docker.errors import DockerException
from testcontainers.community.clickhouse import ClickHouseContainer
from testcontainers.community.kafka import KafkaContainer

KAFKA_IMAGE = "confluentinc/cp-kafka:8.0.0"
CLICKHOUSE_IMAGE = "clickhouse/clickhouse-server:25.8"


class Server:
    """A server in a container: it has an address, and nothing else that a part of the local stack has."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address

    def __getattr__(self, wanted: str) -> NoReturn:
        pytest.skip(f"{self.name}.{wanted} is of the local stack, this run has containers")


class DockerServers:
    """Stands in for the local stack."""

    def __init__(self, kafka: str, clickhouse: str) -> None:
        self.kafka = Server("kafka", kafka)
        self.clickhouse = Server("clickhouse", clickhouse)


@contextmanager
def docker_servers() -> Iterator[Any]:
    """Both containers, started; stopped at the end. Ends the run where no Docker engine answers."""
    try:
        docker.from_env().close()
    except DockerException as error:
        pytest.exit(f"--docker: no Docker engine answers: {error}", returncode=4)
    with KafkaContainer(KAFKA_IMAGE).with_kraft() as kafka, ClickHouseContainer(CLICKHOUSE_IMAGE) as clickhouse:
        where = f"{clickhouse.get_container_host_ip()}:{clickhouse.get_exposed_port(8123)}"
        account = f"{clickhouse.username}:{clickhouse.password}"
        yield DockerServers(kafka.get_bootstrap_server(), f"http://{account}@{where}")
