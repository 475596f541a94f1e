"""An API that answers on a port of its own, in a thread of the test process."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from harness import eventually
from history import BEGAN

from consumer.api.app import make_app, served
from consumer.api.auth import Callers, Scope, new_token
from consumer.api.parts import Parts, make_parts
from consumer.api.serve import address, listen, serve
from consumer.clock import utc_now
from consumer.contracts.control import Control, Mode
from consumer.scoring.controller import ShadowModeController
from consumer.services.control import amend
from consumer.settings import Settings

SECONDS = 30.0
HISTORY, RECENT, DAYS = 3_000, 300, 42
"""Transactions of the history, over so many days, and those that services scored."""
FIRST = datetime.combine(BEGAN, datetime.min.time(), UTC)
MATURE = FIRST + timedelta(days=DAYS + 28 + 7 + 10)
"""When all of the history is old enough for label d28."""


@dataclass(frozen=True)
class Api:
    """What tests ask."""

    url: str
    settings: Settings
    parts: Parts
    tokens: dict[str, str]
    """By name; the name is also the scope."""

    def client(self, name: str | None = "admin") -> httpx.Client:
        """A client with the token of this name, or with none."""
        headers = {"Authorization": f"Bearer {self.tokens[name]}"} if name and self.tokens else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=SECONDS)

    def get(self, path: str, name: str | None = "admin", **given: Any) -> httpx.Response:
        with self.client(name) as client:
            return client.get(path, **given)

    def post(self, path: str, content: Any, name: str | None = "admin", **given: Any) -> httpx.Response:
        """`content`: what becomes JSON, or bytes as they are."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        headers = {"Content-Type": "application/json", **given.pop("headers", {})}
        with self.client(name) as client:
            return client.post(path, content=body, headers=headers, **given)


def token_file(path: Path) -> dict[str, str]:
    """A file with a token for each scope; gives the tokens."""
    scopes: tuple[Scope, ...] = ("read", "score", "outcomes", "admin")
    made = {scope: new_token(scope, [scope]) for scope in scopes}
    path.write_text(json.dumps({"tokens": [json.loads(kept.model_dump_json()) for _, kept in made.values()]}))
    return {name: secret for name, (secret, _) in made.items()}


def let_decide(
    settings: Settings, controller: ShadowModeController, mode: Mode, percent: float | None = None
) -> Control:
    """Promote `elastic`; gives what was written, which processes follow a little later."""
    model_set = controller.predictor.model_set

    def following(state: Control | None) -> Control:
        return Control(
            revision=(state.revision if state else 0) + 1, action="promote", champion="elastic", mode=mode,
            canary_percent=percent, artifact_version=model_set.version, artifact_sha256=model_set.digest,
            made_by="tests", made_at=utc_now(), reason="to see", override=True, unsupported="a test",
        )  # fmt: skip

    return amend(settings, following)


@contextmanager
def serving(settings: Settings, tokens: dict[str, str] | None = None, *, ready: bool = True) -> Iterator[Api]:
    """An API with these settings, ready to decide unless told not to wait for that; it is stopped at the end."""
    stop = threading.Event()
    parts = make_parts(settings)
    with listen(settings.api_host, 0) as listening, ThreadPoolExecutor(1) as pool:
        app = served(make_app(parts, Callers.of(settings)))
        run = pool.submit(serve, app, listening, stop)
        api = Api(address(listening), settings, parts, tokens or {})
        try:
            eventually(lambda: run.done() or not ready or parts.control.known, SECONDS, "the API is ready")
            yield api
        finally:
            stop.set()
            run.result(SECONDS)
