"""When a loop is stuck, where every thread stands: told by a thread of its own, once an episode."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable

from consumer.logs import get_logger
from consumer.metrics import Metrics

log = get_logger(__name__)

_ASK_EVERY_SECONDS = 2.0
_STOP_SECONDS = 5.0


class Watchdog:
    """Asks every 2 s why a service is not alive, and logs what it finds when that begins and when it ends."""

    def __init__(self, live: Callable[[], list[str]], metrics: Metrics) -> None:
        self._live = live
        self._found = metrics.stuck.labels(metrics.lane)
        self._stuck_since: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(_STOP_SECONDS)

    def _watch(self) -> None:
        while not self._stop.wait(_ASK_EVERY_SECONDS):
            self._look()

    def _look(self) -> None:
        reasons = self._live()
        if reasons and self._stuck_since is None:
            self._stuck_since = time.monotonic()
            self._found.inc()
            log.error("stuck", reasons=reasons, stacks=stacks())
        elif not reasons and self._stuck_since is not None:
            log.warning("moves again", after_seconds=round(time.monotonic() - self._stuck_since, 1))
            self._stuck_since = None


def stacks() -> dict[str, list[str]]:
    """The calls that every Python thread is in, the outermost first, by the thread's name: code, no values."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return {
        f"{names.get(ident, 'unnamed')} ({ident})": [
            f"{frame.f_globals.get('__name__')}:{line} {frame.f_code.co_qualname}"
            for frame, line in traceback.walk_stack(innermost)
        ][::-1]
        for ident, innermost in sys._current_frames().items()
    }
