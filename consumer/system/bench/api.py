"""The API on one worker: `POST /v1/score` of one transaction against an echo of the same JSON by the same server.

The echo is a route of the app under test, behind the same gate, and there is none outside of a bench. Run as a module
it is the server.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from consumer import logs
from consumer.api import bodies
from consumer.api.answers import said
from consumer.api.app import make_app, served
from consumer.api.auth import Callers
from consumer.api.gate import GatedRoute, needs
from consumer.api.openapi import EXAMPLES, TRANSACTION
from consumer.api.parts import make_parts
from consumer.api.serve import address, listen, serve
from consumer.clock import utc_now
from consumer.errors import Fatal
from consumer.settings import Settings, load_settings
from consumer.system.bench.http_load import Asked, load
from consumer.system.bench.load import Say
from consumer.system.supervisor import environment

_ROUNDS = 3
_UNBOUNDED = "100000000/second"

echoing = APIRouter(route_class=GatedRoute)


@echoing.post("/echo", include_in_schema=False, openapi_extra=needs("score"))
async def echo(request: Request) -> Response:
    """The body, parsed and written again."""
    return said(orjson.loads(await bodies.read(request)))


@dataclass(frozen=True)
class ApiFigures:
    """Requests a second of one worker, medians of rounds, and times in milliseconds at half of the scores' rate."""

    rounds: int
    echo_per_s: float
    score_per_s: float
    ratios: list[float]
    half_load_per_s: float
    p50_ms: float
    p99_ms: float

    @property
    def ratio(self) -> float:
        """Scores over echoes, the median of the rounds: the two of a round follow each other."""
        return median(self.ratios)


def bench_api(settings: Settings, seconds: float, say: Say) -> ApiFigures:
    """Measure an API process of its own: `seconds` at half load, and a fifth of that for each other measurement."""
    body = orjson.dumps({**EXAMPLES[TRANSACTION], "transaction_timestamp": utc_now().isoformat()}).decode()
    warm_up = min(1.0, seconds)
    with _server(settings) as url:
        echoes, scores = [], []
        for number in range(_ROUNDS):
            echoes.append(load(Asked(f"{url}/echo", body, seconds / 5, warm_up=warm_up)).per_s)
            scores.append(load(Asked(f"{url}/v1/score", body, seconds / 5, warm_up=warm_up)).per_s)
            say(f"api {number + 1}: {echoes[-1]:,.0f} echoes/s, {scores[-1]:,.0f} scores/s")
        half = median(scores) / 2
        steady = load(Asked(f"{url}/v1/score", body, seconds, connections=32, rate=half))
    ratios = [score / echo for score, echo in zip(scores, echoes, strict=True)]
    return ApiFigures(_ROUNDS, median(echoes), median(scores), ratios, steady.per_s, steady.p50_ms, steady.p99_ms)


@contextmanager
def _server(settings: Settings) -> Iterator[str]:
    """Its URL. Raises Fatal when it does not start."""
    given = {**os.environ, **environment(settings), "BNPL_API_PORT": "0", "BNPL_API_RATE_LIMIT": _UNBOUNDED}
    command = [sys.executable, "-m", "consumer.system.bench.api"]
    with subprocess.Popen(command, env=given, stdout=subprocess.PIPE, text=True) as server:
        try:
            url = server.stdout.readline().strip() if server.stdout else ""
            if not url:
                raise Fatal("the API of the bench did not start; what it said stands above")
            yield url
        finally:
            server.send_signal(signal.SIGTERM)


def _main() -> None:
    logs.configure("error", "bench")
    settings, stop = load_settings(), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with listen(settings.api_host, settings.api_port) as listening:
        app = make_app(make_parts(settings), Callers.of(settings))
        app.include_router(echoing)
        print(address(listening), flush=True)
        serve(served(app), listening, stop)


if __name__ == "__main__":
    _main()
