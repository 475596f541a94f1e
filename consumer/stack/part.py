"""One part of the local stack as an operating-system process: started, found again, watched, stopped."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from consumer.clock import Deadline
from consumer.errors import StackError
from consumer.stack import die_with_parent

READY_SECONDS = 60.0
STOP_SECONDS = 15.0
POLL_SECONDS = 0.05
_PORTS_FROM, _PORTS_TO = 10_000, 32_768

_forker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="stack-fork")
"""Forks every owned part: its one thread ends with the process, and so do they (see die_with_parent.py)."""


class Part(ABC):
    """A server on a loopback port, its pid file, its log and its data, all under one state folder.

    `owned` parts die with this process, even by SIGKILL (on Linux; elsewhere only when it exits in order).
    Others outlive it and are found again by their pid file. A pid that the system gave to another program
    since is never taken for ours: the process must have been started on this part's data folder (its creation
    time would not do, it moves whenever the host's clock is set). A part that runs already keeps its port.
    """

    name: str
    port_option: str

    def __init__(self, state_dir: Path, port: int, *, owned: bool) -> None:
        self.owned = owned
        self.data = state_dir / self.name
        self.log = state_dir / "logs" / f"{self.name}.log"
        self.output = state_dir / "logs" / f"{self.name}.out"
        """What the process wrote to stdout and stderr."""
        self._pid_file = state_dir / "run" / f"{self.name}.pid"
        self._child: subprocess.Popen[bytes] | None = None
        running = self._find()
        self.port = running[1] if running else port

    @property
    def is_child(self) -> bool:
        """Whether the running process is one that this object started."""
        return self._child is not None

    @property
    def pid(self) -> int | None:
        """The running process's id; None when there is none."""
        process = self.process
        return process.pid if process else None

    @property
    def process(self) -> psutil.Process | None:
        """The running process, whoever started it; None when there is none."""
        found = self._find()
        return found[0] if found else None

    def _find(self) -> tuple[psutil.Process, int] | None:
        """The running process and its port."""
        if self._child is not None:
            self._child.poll()  # a child that ended stays a zombie until it is asked
        try:
            pid, port = self._pid_file.read_text().split()
            process = psutil.Process(int(pid))
            command = process.cmdline()  # empty for a zombie
        except (OSError, ValueError, psutil.Error):
            return None
        is_child = self._child is not None and self._child.pid == process.pid and self._child.returncode is None
        ours = any(word == str(self.data) or f"{self.data}/" in word for word in command)
        # between fork and exec a child has no command line, but nobody else has its pid before it is waited for
        return (process, int(port)) if is_child or ours else None

    @property
    @abstractmethod
    def address(self) -> str:
        """Where clients find it, in the form they take."""

    @abstractmethod
    def prepare(self) -> list[str]:
        """Make what the server needs before its first start; gives the command that starts it."""

    @abstractmethod
    def answers(self, timeout_seconds: float) -> bool:
        """Whether the server does its work: a request is answered, not merely a port open."""

    def start(self) -> None:
        """Launch and wait until it answers. Raises StackError, and leaves nothing running then."""
        self.launch()
        try:
            self.wait_ready()
        except BaseException:
            self.kill()
            raise

    def launch(self) -> None:
        """Start the process without waiting for it. Raises StackError when it runs or its port is taken."""
        if self.process is not None:
            raise StackError(f"{self.name} is running already, pid {self.pid}")
        if self.port == 0:
            self.port = free_port()
        refuse_taken_port(self.port, self.name, self.port_option)
        for folder in (self.data, self.log.parent, self._pid_file.parent):
            folder.mkdir(parents=True, exist_ok=True)
        command = self.prepare()
        if self.owned:
            command = dying_with_us(command)
        self._child = _forker.submit(self._fork, command).result()
        self._pid_file.write_text(f"{self._child.pid} {self.port}\n")

    def _fork(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self.output.open("wb") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the parent, which then stops its parts in order
            )

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Raises StackError with the last lines of the log when the process ends or is not ready in time."""
        deadline = Deadline.after(seconds)
        while not self.answers(timeout_seconds=1.0):
            if self.process is None:
                raise StackError(self._explain(f"{self.name} ended while it was starting{self._exit_status()}"))
            if deadline.passed:
                raise StackError(self._explain(f"{self.name} did not answer within {seconds:.0f} s"))
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Ask it to end, and kill it when it does not within 15 s. Does nothing when it does not run."""
        process = self.process
        if process is not None:
            self.request_stop()
            try:
                process.wait(STOP_SECONDS)
            except psutil.TimeoutExpired:
                self.kill()
        self._forget()

    def request_stop(self) -> None:
        """Send SIGTERM and return at once."""
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)  # a suspended process cannot act on the first

    def kill(self) -> None:
        """SIGKILL: what a power cut does. The data stays, the next start recovers it."""
        process = self.process
        if process is not None:
            self._signal(signal.SIGKILL)
            process.wait(STOP_SECONDS)
        self._forget()

    def suspend(self) -> None:
        """SIGSTOP: alive but silent, as behind a broken network."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        process = self.process
        if process is not None:
            process.send_signal(number)

    def _forget(self) -> None:
        self._pid_file.unlink(missing_ok=True)
        if self._child is not None:
            self._child.wait(STOP_SECONDS)
            self._child = None

    def _exit_status(self) -> str:
        status = self._child.poll() if self._child else None
        return "" if status is None else f" (status {status})"

    def _explain(self, fault: str) -> str:
        lines = [*last_lines(self.log, 8), *last_lines(self.output, 8)]
        text = "\n".join(lines)
        if "No space left on device" in text or "NOT_ENOUGH_SPACE" in text:
            return f"{fault}: the disk of {self.data} is full; free some space or choose another --state-dir"
        told = "\n".join(f"    {line}" for line in lines) or "    (it wrote nothing)"
        return f"{fault}; its last lines:\n{told}\nmore in {self.log} and {self.output}"


def dying_with_us(command: list[str]) -> list[str]:
    """The command in a form that the kernel kills when this process ends, however it ends (Linux; else as it was).

    The thread that starts it must live as long as the process.
    """
    if sys.platform != "linux":
        return command
    return [sys.executable, "-I", "-S", str(die_with_parent.__file__), str(os.getpid()), *command]


def free_port() -> int:
    """A port that nobody listens at, and that no outgoing connection gets: Linux gives those ports from 32768 up, and
    one of them could be this one before a server that takes seconds to start has it.
    """
    while True:
        port = _PORTS_FROM + secrets.randbelow(_PORTS_TO - _PORTS_FROM)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def refuse_taken_port(port: int, name: str, option: str) -> None:
    """Raises StackError that names who listens there, as far as the system tells."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise StackError(
                f"{name} cannot listen on port {port}: {_listener(port) or error.strerror}; "
                f"stop that, or choose another port with {option} (0 takes any free one)"
            ) from None


def last_lines(path: Path, count: int) -> list[str]:
    """A log's end; empty when there is no log yet."""
    try:
        with path.open(errors="replace") as lines:
            return [line.rstrip() for line in deque(lines, count)]
    except FileNotFoundError:
        return []


def _listener(port: int) -> str | None:
    try:
        connections = psutil.net_connections("inet")
        pid = next(c.pid for c in connections if c.laddr and c.laddr.port == port and c.status == psutil.CONN_LISTEN)
        return f"{psutil.Process(pid).name()} (pid {pid}) listens there" if pid else None
    except (StopIteration, psutil.Error):
        return None
