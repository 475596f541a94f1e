"""The local stack: a real Kafka and a real ClickHouse engine on this machine, in one folder.

    with LocalStack(folder, kafka_port=0, clickhouse_port=0) as stack:   # ends with this process
        addresses = stack.start(print)

`bnpl-shadow up` starts one that stays; services find it by `read_addresses`.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import psutil

from consumer.clock import Deadline
from consumer.errors import StackError
from consumer.stack.clickhouse import ClickHouse
from consumer.stack.kafka import SESSION_SECONDS, Kafka, fetch_kafka_jars
from consumer.stack.part import POLL_SECONDS, Part

KAFKA_PORT = 19092
CLICKHOUSE_PORT = 18123
ENV_FILE = "env"
"""In a state folder: settings that go with its data, as lines that a shell reads."""
MIN_FREE_BYTES = 512 * 1024 * 1024
LOCK_SECONDS = 120.0


@dataclass(frozen=True)
class Addresses:
    """Where the parts answer."""

    kafka: str
    """`host:port`, as `bootstrap.servers` takes it."""
    clickhouse: str
    """`http://host:port`"""


@dataclass(frozen=True)
class PartStatus:
    name: str
    state: Literal["up", "not answering", "down"]
    address: str | None
    pid: int | None
    memory_bytes: int | None
    log: str


class LocalStack:
    """Kafka and ClickHouse with their data, logs and addresses under `state_dir`.

    A port of 0 takes any free one. With `owned` (the default) the parts belong to this process: they end when
    it does, even by SIGKILL on Linux, and `start` refuses a folder whose stack is running already. Without it
    they stay after it, and `start` completes a stack that is running.
    """

    def __init__(
        self,
        state_dir: Path,
        kafka_port: int = KAFKA_PORT,
        clickhouse_port: int = CLICKHOUSE_PORT,
        *,
        owned: bool = True,
        kafka_session_seconds: int = SESSION_SECONDS,
    ) -> None:
        self.state_dir = state_dir.resolve()
        self.owned = owned
        self.kafka = Kafka(self.state_dir, kafka_port, owned=owned, session_seconds=kafka_session_seconds)
        self.clickhouse = ClickHouse(self.state_dir, clickhouse_port, owned=owned)
        # in this order ClickHouse comes up while Kafka formats its folder
        self._parts: tuple[Part, ...] = (self.clickhouse, self.kafka)

    def start(self, progress: Callable[[str], None]) -> Addresses:
        """Start what is not running, both at once, and return when both answer. Data of earlier runs is kept.

        Calls `progress` with a line a step. Raises StackError, and then leaves running only what ran before.
        """
        _claim_folder(self.state_dir)
        with self._locked():
            self._refuse_shared_folder()
            missing = [part for part in self._parts if part.process is None]
            if missing:
                fetch_kafka_jars(progress)
                _refuse_full_disk(self.state_dir)
            if self.owned:
                atexit.register(self.stop)
            try:
                self._start(missing, progress)
            except BaseException:
                self._stop(missing)
                raise
            return self._write_addresses()

    def stop(self) -> list[str]:
        """End both, by force when they do not end in 15 s; gives the names of those that ran.

        An owner leaves alone what another started.
        """
        atexit.unregister(self.stop)
        parts = [part for part in self._parts if part.is_child] if self.owned else self._parts
        if not parts or not self.state_dir.exists():
            return []
        with self._locked():
            stopped = self._stop(parts)
            _address_file(self.state_dir).unlink(missing_ok=True)
            return stopped

    def status(self) -> list[PartStatus]:
        """What runs, as it is this moment; a part that runs is asked to answer within 2 s."""
        return [_status(part) for part in self._parts]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self, parts: list[Part], progress: Callable[[str], None]) -> None:
        for part in parts:
            progress(f"starting {part.name}")
            part.launch()
        for part in parts:
            part.wait_ready()
            progress(f"{part.name} answers at {part.address}")

    def _stop(self, parts: tuple[Part, ...] | list[Part]) -> list[str]:
        running = [part for part in parts if part.process is not None]
        for part in running:
            part.request_stop()
        for part in running:
            part.stop()
        return [part.name for part in running]

    def _refuse_shared_folder(self) -> None:
        """An owner ends its parts with itself, so it must not take over another's."""
        others = [part for part in self._parts if part.process is not None and not part.is_child]
        if self.owned and others:
            pids = ", ".join(f"{part.name} pid {part.pid}" for part in others)
            raise StackError(
                f"{self.state_dir} is in use by a running stack ({pids}); use another --state-dir, "
                "or stop that one with `bnpl-shadow down`"
            )

    def _write_addresses(self) -> Addresses:
        addresses = Addresses(self.kafka.address, self.clickhouse.address)
        file = _address_file(self.state_dir)
        draft = file.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(addresses), indent=2) + "\n")
        draft.replace(file)
        return addresses

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One start or stop at a time in a folder; another process's is waited for."""
        with (self.state_dir / "lock").open("w") as lock:
            deadline = Deadline.after(LOCK_SECONDS)
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if deadline.passed:
                        raise StackError(
                            f"another process is still starting or stopping the stack in {self.state_dir} "
                            f"after {LOCK_SECONDS:.0f} s; see who holds {self.state_dir / 'lock'}"
                        ) from None
                    time.sleep(POLL_SECONDS)
            yield


def read_addresses(state_dir: Path) -> Addresses:
    """Where the stack of a folder answers. Raises StackError when none runs there."""
    file = _address_file(state_dir)
    parts: tuple[Part, ...] = (Kafka(state_dir, 0, owned=False), ClickHouse(state_dir, 0, owned=False))
    if not file.exists() or not any(part.process for part in parts):
        raise StackError(
            f"no local stack is running in {state_dir}{_running_below(state_dir)}: start it with `bnpl-shadow up`, or "
            "set BNPL_KAFKA_BOOTSTRAP_SERVERS and BNPL_CLICKHOUSE_URL to servers of your own"
        )
    return Addresses(**json.loads(file.read_text()))


def _running_below(state_dir: Path) -> str:
    """Where else one runs, in words: what `bnpl-shadow run` shows may lie in a folder below."""
    for file in sorted(state_dir.glob(f"*/{_address_file(state_dir).name}")):
        if Kafka(file.parent, 0, owned=False).process:
            env = file.parent / ENV_FILE
            way = f"`. {env}`" if env.exists() else f"BNPL_STATE_DIR={file.parent}"
            return f" (one runs in {file.parent}: {way} leads to it)"
    return ""


def _address_file(state_dir: Path) -> Path:
    return state_dir / "stack.json"


def _status(part: Part) -> PartStatus:
    process = part.process
    if process is None:
        return PartStatus(part.name, "down", None, None, None, str(part.log))
    try:
        memory = process.memory_info().rss
    except psutil.NoSuchProcess:
        return PartStatus(part.name, "down", None, None, None, str(part.log))
    state: Literal["up", "not answering"] = "up" if part.answers(timeout_seconds=2.0) else "not answering"
    return PartStatus(part.name, state, part.address, process.pid, memory, str(part.log))


def _claim_folder(state_dir: Path) -> None:
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        (state_dir / "lock").touch()
    except OSError as error:
        raise StackError(
            f"the state folder {state_dir} cannot be written ({error.strerror}); choose another --state-dir"
        ) from None


def _refuse_full_disk(state_dir: Path) -> None:
    free = shutil.disk_usage(state_dir).free
    if free < MIN_FREE_BYTES:
        raise StackError(
            f"the disk that holds {state_dir} has {free / 2**20:.0f} MiB free and the stack needs "
            f"{MIN_FREE_BYTES / 2**20:.0f}; free some space or choose another --state-dir"
        )
