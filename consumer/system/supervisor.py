"""Services as child processes: logs in files, watched, brought back when killed, stopped in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import SecretStr

from consumer.clock import Deadline
from consumer.errors import TRY_AGAIN, Fatal
from consumer.logs import get_logger
from consumer.settings import Settings
from consumer.stack.part import dying_with_us, last_lines

log = get_logger(__name__)

STOP_SECONDS = 25.0
_RESTART_SECONDS = 1.0


class ServiceProcess:
    """One `bnpl-shadow` service in a process of its own; on Linux it cannot outlive this one."""

    def __init__(self, arguments: Sequence[str], log_file: Path, environment: dict[str, str]) -> None:
        self.name = arguments[0]
        self.log_file = log_file
        self._arguments = list(arguments)
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The running process; None when there is none."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative when a signal ended it."""
        return self._process.poll() if self._process else None

    def start(self) -> None:
        """Start it; its log is continued."""
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        command = dying_with_us([sys.executable, "-m", "consumer", *self._arguments])
        with self.log_file.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._environment},
                start_new_session=True,  # Ctrl-C is for the parent, which stops its services in order
            )

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(number)

    def send_stop(self) -> None:
        """Ask it to end."""
        self.signal(signal.SIGTERM)

    def wait_stopped(self, deadline: Deadline) -> None:
        """Wait until it ended, and kill it when the deadline passes."""
        if self._process is None:
            return
        try:
            self._process.wait(deadline.remaining)
        except subprocess.TimeoutExpired:
            log.warning("killed a service that did not stop in time", name=self.name)
            self._process.kill()
            self._process.wait()


def environment(settings: Settings) -> dict[str, str]:
    """The settings that were given, as the variables a service reads them from."""
    return variables(settings, settings.model_fields_set)


def variables(settings: Settings, names: Iterable[str]) -> dict[str, str]:
    """The settings of these names that are set, as variables."""
    given = {name: getattr(settings, name) for name in names}
    return {
        f"BNPL_{name.upper()}": value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in given.items()
        if value is not None
    }


class Supervisor:
    """Keeps services running. As a context manager it stops them at the end, the first one first."""

    def __init__(self, services: Sequence[ServiceProcess]) -> None:
        self._services = services
        self._died_at: dict[str, float] = {}

    def __enter__(self) -> Self:
        for service in self._services:
            service.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        deadline = Deadline.after(STOP_SECONDS)
        for service in self._services:
            service.send_stop()
        for service in self._services:
            service.wait_stopped(deadline)

    def check(self) -> None:
        """Start again what was killed, or ended because an outside part was away. Raises Fatal for any other end."""
        for service in self._services:
            code = service.exit_code
            if code is None:
                continue
            if code >= 0 and code != TRY_AGAIN:
                told = "\n".join(f"    {line}" for line in last_lines(service.log_file, 5))
                raise Fatal(
                    f"{service.name} ended with code {code}; its last lines:\n{told}\nmore in {service.log_file}"
                )
            died = self._died_at.setdefault(service.name, time.monotonic())
            if time.monotonic() - died >= _RESTART_SECONDS:
                log.warning("starting a service again", name=service.name, code=code)
                del self._died_at[service.name]
                service.start()
