"""A load of HTTP requests from a process of its own: as fast as they are answered, or at a steady rate.

Clients of general use cost more a request than the server does, and would measure themselves. This one writes the same
bytes again and again on kept connections, and looks for the end of each answer only.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from itertools import count
from typing import cast
from urllib.parse import urlsplit

import numpy as np
import uvloop

from consumer.errors import Fatal

_HEAD_END = b"\r\n\r\n"
_GRACE_SECONDS = 15.0


@dataclass(frozen=True)
class Answered:
    """What came of a load. Times are from when a request was due, so that waiting for a late answer counts."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def per_s(self) -> float:
        return self.requests / self.seconds


@dataclass(frozen=True)
class Asked:
    """`rate` in requests a second; None asks again as soon as there is an answer."""

    url: str
    body: str
    seconds: float
    connections: int = 8
    rate: float | None = None
    warm_up: float = 1.0


def load(asked: Asked) -> Answered:
    """Ask, in a process of its own. Raises Fatal when an answer is not 200, or none comes."""
    command = [sys.executable, "-m", "consumer.system.bench.http_load"]
    patience = asked.seconds + asked.warm_up + _GRACE_SECONDS
    try:
        done = subprocess.run(
            command, input=json.dumps(asdict(asked)), capture_output=True, text=True, timeout=patience, check=False
        )
    except subprocess.TimeoutExpired:
        raise Fatal(f"the requests of the bench were not answered within {patience:.0f} s") from None
    if done.returncode:
        raise Fatal(f"the requests of the bench failed:\n{done.stderr[-2000:]}")
    return Answered(**json.loads(done.stdout))


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._came = b""
        self._answer: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("closed before the answer"))

    def data_received(self, data: bytes) -> None:
        self._came += data
        head, end, rest = self._came.partition(_HEAD_END)
        if not end or self._answer is None:
            return
        if not head.startswith(b"HTTP/1.1 200"):
            self._answer.set_exception(ValueError(self._came[:500].decode(errors="replace")))
            return
        at = head.lower().index(b"content-length:") + 15
        if len(rest) >= int(head[at:].split(b"\r\n", 1)[0]):
            self._came = b""
            self._answer.set_result(None)

    async def ask(self) -> None:
        self._answer = self._loop.create_future()
        if self._transport is not None:
            self._transport.write(self._request)
        await self._answer


async def _ask(asked: Asked) -> Answered:
    parts, body = urlsplit(asked.url), asked.body.encode()
    host, port = parts.hostname or "", parts.port or 80
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    loop, request, counted = asyncio.get_running_loop(), head.encode() + body, list[tuple[float, float]]()
    connections = [
        (await loop.create_connection(lambda: _Connection(request), host, port))[1] for _ in range(asked.connections)
    ]
    began, numbers = time.perf_counter(), count()
    warm = began + asked.warm_up
    end = warm + asked.seconds

    async def use(connection: _Connection) -> None:
        while True:
            due = time.perf_counter() if asked.rate is None else began + next(numbers) / asked.rate
            if due >= end and counted:  # a machine that stood still for all of it is measured all the same
                return
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            await connection.ask()
            if due >= warm:
                counted.append((due, time.perf_counter()))

    await asyncio.gather(*(use(each) for each in connections))
    started, ended = np.array(counted).T
    took = 1000 * (ended - started)
    seconds = float(ended.max() - warm)
    return Answered(len(took), seconds, *np.percentile(took, [50, 99]).tolist())


if __name__ == "__main__":
    print(json.dumps(asdict(uvloop.run(_ask(Asked(**json.loads(sys.stdin.read())))))))
