"""The real parts every test shares: one Kafka and one ClickHouse for the whole run, on free ports."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from harness import Commands, fresh_settings

from consumer.scoring.controller import ShadowModeController
from consumer.scoring.load import load_controller
from consumer.settings import Settings
from consumer.stack.local import LocalStack

# brokers of tests live for seconds or minutes: what the second compiler gains them is less than what it takes
os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")
# a thread of a matrix product that has no work otherwise keeps a core busy for a while, in case there is another
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--docker", action="store_true", help="run on servers in containers instead of the local stack")


_LONGEST_FIRST = ("system", "services", "watch", "stack", "champion", "docs")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take a minute first: one of them at the end would be waited for by workers with nothing left to do."""
    tests = Path(__file__).parent
    places = {name: at for at, name in enumerate(_LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path.relative_to(tests).parts[0], len(places)))


_STACK = pytest.StashKey[LocalStack]()


def stack_in(folder: Path) -> LocalStack:
    """One that nobody kills, and that a crowded machine may leave without a core for some seconds."""
    return LocalStack(folder, kafka_port=0, clickhouse_port=0, kafka_session_seconds=30)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Before xdist starts a worker: one stack for all of them, which belongs to this process and ends with it.

    A broker each would take a third of the whole run's computing time.
    """
    config: pytest.Config = node.config
    if config.getoption("--docker"):
        return
    if _STACK not in config.stash:
        folder = config._tmp_path_factory.mktemp("stack")  # type: ignore[attr-defined]
        config.stash[_STACK] = stack_in(folder)
        config.add_cleanup(config.stash[_STACK].stop)
        config.stash[_STACK].start(print)
    node.workerinput["stack"] = str(config.stash[_STACK].state_dir)


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """The run's local stack, which ends with it, however that ends; with --docker, servers in containers."""
    if request.config.getoption("--docker"):
        from docker_servers import docker_servers

        with docker_servers() as servers:
            yield servers
        return
    if worker := getattr(request.config, "workerinput", None):
        yield LocalStack(Path(worker["stack"]), owned=False)
        return
    with stack_in(tmp_path_factory.mktemp("stack")) as running:
        running.start(print)
        yield running


@pytest.fixture
def clickhouse_database(stack: LocalStack) -> Iterator[str]:
    """An empty database of the test's own, as a URL that `BNPL_CLICKHOUSE_URL` takes."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with clickhouse_connect.get_client(dsn=stack.clickhouse.address) as admin:
        admin.command(f"CREATE DATABASE {name}")
        yield f"{stack.clickhouse.address}/{name}"
        admin.command(f"DROP DATABASE {name}")


@pytest.fixture
def clickhouse(clickhouse_database: str) -> Iterator[Client]:
    """A client of the test's own empty database."""
    with clickhouse_connect.get_client(dsn=clickhouse_database) as client:
        yield client


@pytest.fixture
def settings(stack: LocalStack, tmp_path: Path) -> Iterator[Settings]:
    """Settings with topics, groups and tables of the test's own, ready to run services on."""
    with fresh_settings(stack, tmp_path / "state") as fresh:
        yield fresh


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[Commands]:
    """Starts `bnpl-shadow` commands as processes; what still runs at the test's end is killed."""
    started = Commands(tmp_path)
    yield started
    started.kill_all()


@pytest.fixture(scope="session")
def controller() -> ShadowModeController:
    """The shipped rules and models."""
    return load_controller(Settings())
