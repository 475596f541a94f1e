"""The API behind a socket: uvicorn on one event loop, until told to stop."""

from __future__ import annotations

import gc
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp
from threadpoolctl import threadpool_limits

from consumer.api.connection import Connection
from consumer.errors import ConfigurationError
from consumer.logs import get_logger
from consumer.stack.endpoint import endpoint

log = get_logger(__name__)

_STOP_SECONDS = 10
_KEEP_ALIVE_SECONDS = 75
_BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """Raises ConfigurationError when the port is taken or the host is none of ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigurationError(
            f"the API cannot listen on {endpoint(host, port)} ({error.strerror}); set BNPL_API_HOST and BNPL_API_PORT "
            "to others, or the port to 0 for any"
        ) from error


def address(listening: socket.socket) -> str:
    """The URL that it answers under."""
    return f"http://{endpoint(*listening.getsockname()[:2])}"


def serve(app: ASGIApp, listening: socket.socket, stop: threading.Event) -> None:
    """Answer until `stop` is set, then end what is under way, within 10 s."""
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=Connection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,  # a path holds an id; requests are counted instead
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )
    server = _Server(config)
    gc.collect()
    gc.freeze()  # what is loaded stays: a full collection that walks over all of it would hold up every request
    with threadpool_limits(1, "blas"), _stopping(server, stop):
        server.run(sockets=[listening])
    if not server.started:
        raise ConfigurationError("the API did not start; its log says why")


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the command's own."""
        yield


@contextmanager
def _stopping(server: uvicorn.Server, stop: threading.Event) -> Iterator[None]:
    ended = threading.Event()

    def watch() -> None:
        while not (stop.wait(0.1) or ended.is_set()):
            pass
        server.should_exit = True

    watching = threading.Thread(target=watch, name="stop", daemon=True)
    watching.start()
    try:
        yield
    finally:
        ended.set()
        watching.join()
