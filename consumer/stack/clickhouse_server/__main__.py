"""`python -m consumer.stack.clickhouse_server --data DIR --port N`: serve until SIGTERM or SIGINT."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import click

from consumer.logs import configure, get_logger

GRACE_SECONDS = 8.0
"""How long running requests have to end."""
CLOSE_SECONDS = 4.0
"""How long the engine has to close; nothing that was acknowledged depends on it."""
_LOOK_SECONDS = 0.5


@click.command()
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the tables.")
@click.option("--port", type=click.IntRange(1, 65535), required=True, help="Port to listen on, at 127.0.0.1.")
@click.option("--log-level", default="info", show_default=True)
def main(data: Path, port: int, log_level: str) -> None:
    """Serve ClickHouse's engine on loopback until SIGTERM."""
    os.environ["TZ"] = "UTC"  # the engine's time zone: it reads TZ once, when it is loaded
    time.tzset()
    from consumer.stack.clickhouse_server.engine import Engine
    from consumer.stack.clickhouse_server.server import Server

    configure(log_level, service="clickhouse")
    log = get_logger(__name__)
    stopping = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stopping.set())
    data.mkdir(parents=True, exist_ok=True)
    engine = Engine(data)
    server = Server(port, engine)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    log.info("serving", address=f"http://127.0.0.1:{port}", version=engine.version)

    while not stopping.wait(_LOOK_SECONDS):
        pass  # a signal that one of the engine's threads got is acted on when this one wakes
    ended = server.stop(GRACE_SECONDS)
    closed = ended and _ends(engine.close, CLOSE_SECONDS)
    log.info("stopped", requests_cut_off=not ended, engine_closed=closed)
    sys.stderr.flush()
    os._exit(0 if ended else 1)  # idle connections' threads and a query that will not end must not hold the process


def _ends(call: Callable[[], None], seconds: float) -> bool:
    """Whether it ends in time; it must not hold the process."""
    running = threading.Thread(target=call, daemon=True)
    running.start()
    running.join(seconds)
    return not running.is_alive()


if __name__ == "__main__":
    main()
