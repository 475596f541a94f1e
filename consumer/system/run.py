"""The whole system on one machine: stack, topics, tables and services, started in order and stopped in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic import SecretStr

from consumer.errors import StackError
from consumer.services import clickhouse, economics, migrate, sessions, topics
from consumer.settings import Settings
from consumer.stack.local import LocalStack
from consumer.stack.part import last_lines
from consumer.system.supervisor import ServiceProcess, Supervisor, environment

Say = Callable[[str], None]
Arguments = Sequence[str]

SERVICES: tuple[Arguments, ...] = (["score"], ["sink"])


@dataclass(frozen=True)
class System:
    """A running system, and settings that lead to it."""

    settings: Settings
    stack: LocalStack
    supervisor: Supervisor

    def check(self) -> None:
        """Start killed services again. Raises StackError or Fatal when a part or a service ended by itself."""
        for part in (self.stack.kafka, self.stack.clickhouse):
            if part.process is None:
                told = "\n".join(f"    {line}" for line in last_lines(part.log, 5))
                raise StackError(
                    f"{part.name} has ended; its last lines:\n{told}\nmore in {part.log} and {part.output}"
                )
        self.supervisor.check()


@contextmanager
def running_system(
    settings: Settings, stack: LocalStack, say: Say, services: Sequence[Arguments] = SERVICES
) -> Iterator[System]:
    """Start everything, and stop it at the end however that comes. `say` gets a line a step, `services` are the
    commands to run, each in a process of its own and with these settings.

    Raises StackError or Fatal when a part cannot be started; what was started is stopped again.
    """
    with stack:
        addresses = stack.start(say)
        settings = settings.model_copy(
            update={
                "state_dir": stack.state_dir,
                "kafka_bootstrap_servers": addresses.kafka,
                "clickhouse_url": SecretStr(addresses.clickhouse),
            }
        )
        say("making topics and tables")
        prepare(settings)
        say(f"starting {', '.join(each[0] for each in services)}")
        logs = settings.state_dir / "logs"
        processes = [ServiceProcess(each, logs / f"{each[0]}.log", environment(settings)) for each in services]
        with Supervisor(processes) as supervisor:
            yield System(settings, stack, supervisor)
            say("stopping")


def prepare(settings: Settings) -> None:
    """Topics, groups and tables as this version needs them."""
    topics.apply(settings)
    sessions.apply(settings)
    with clickhouse.connect(settings) as client:
        migrate.migrate(client, settings.migrations_dir)
        economics.record(client, settings)
