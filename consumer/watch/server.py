"""`/metrics`, `/livez` and `/readyz` of one service, over HTTP on a port of its own."""

from __future__ import annotations

import errno
import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from socketserver import TCPServer, ThreadingMixIn
from types import TracebackType
from typing import Any, Protocol, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from consumer.errors import ConfigurationError
from consumer.logs import get_logger
from consumer.metrics import Metrics
from consumer.services.pulse import Pulse
from consumer.settings import Settings
from consumer.stack.endpoint import endpoint
from consumer.watch.health import ClickHouseProbe, Health, lag_series
from consumer.watch.lag_watch import LagWatch
from consumer.watch.watchdog import Watchdog

log = get_logger(__name__)

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
Reasons = Callable[[], list[str]]


class Watchable(Protocol):
    """A service whose loop can be watched."""

    metrics: Metrics
    pulse: Pulse


class Judge(Protocol):
    """Reasons why a process is not alive, or not ready; none means that it is."""

    def live(self) -> list[str]: ...

    def ready(self) -> list[str]: ...


class StatusServer:
    """Answers from the moment it is made: alive, not ready, no metrics yet; then for the service it is shown.

    A context manager.
    """

    def __init__(self, host: str, port: int, setting: str) -> None:
        """Raises ConfigurationError that names `setting` when the port is taken or the host is none of ours."""
        try:
            self._server = make_server(host, port, self._answer, _Server6 if ":" in host else _Server, _Handler)
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            why = (
                f"port {port} of {host} is taken"
                if taken
                else f"cannot listen on {endpoint(host, port)} ({error.strerror})"
            )
            raise ConfigurationError(f"no metrics and health: {why}; set {setting} to another, or 0 for any") from error
        self.url = f"http://{endpoint(host, self._server.server_port)}"
        self._metrics: Application = make_wsgi_app(CollectorRegistry())
        self._live: Reasons = list
        self._ready: Reasons = lambda: ["starting"]

    def show(self, metrics: Metrics, health: Judge) -> None:
        """From now on answer for this service."""
        self._metrics = make_wsgi_app(metrics.registry)
        self._live, self._ready = health.live, health.ready

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        match environ["PATH_INFO"]:
            case "/metrics":
                return self._metrics(environ, start_response)
            case "/livez":
                return _verdict(self._live(), start_response)
            case "/readyz":
                return _verdict(self._ready(), start_response)
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"there are /metrics, /livez and /readyz\n"]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, name="status", daemon=True).start()
        log.info("metrics and health", url=self.url)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def watched(
    service: Watchable,
    server: StatusServer,
    settings: Settings,
    group: str,
    topics: Sequence[str],
    *,
    stores: bool = False,
) -> Iterator[None]:
    """While the block runs, `server` answers for `service`, a member of `group` on `topics`, and a watchdog tells when
    it is stuck; `stores` in ClickHouse.
    """
    watch = LagWatch(settings, group, topics)
    service.metrics.lag.read_from(lambda: lag_series(watch.report))
    probe = ClickHouseProbe(settings) if stores else lambda: None
    health = Health(settings, service.pulse, lambda: watch.report, probe)
    watchdog = Watchdog(health.live, service.metrics)
    server.show(service.metrics, health)
    watch.start()
    watchdog.start()
    try:
        yield
    finally:
        watchdog.stop()
        watch.stop()


def _verdict(reasons: list[str], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("503 Service Unavailable" if reasons else "200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"ok": not reasons, "reasons": reasons}).encode() + b"\n"]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Bind without the base class's look-up of a name, which may wait for a DNS server."""
        TCPServer.server_bind(self)
        host, self.server_port = self.server_address[:2]
        self.server_name = str(host)
        self.setup_environ()


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = 10  # a client that says nothing must not keep a thread

    def log_message(self, format: str, *args: object) -> None:
        """Probes and scrapes come every few seconds: they are not worth a line."""
