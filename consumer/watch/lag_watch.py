"""Lag watched from a thread of its own: it goes on rising when the loop that should shrink it hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from consumer.errors import BnplError
from consumer.logs import get_logger
from consumer.settings import Settings
from consumer.watch.lag import LagReader
from consumer.watch.status import LagReport, LagWindow

log = get_logger(__name__)

_STOP_SECONDS = 5.0


class LagWatch:
    """Looks at one group every BNPL_LAG_INTERVAL_MS and keeps the newest report."""

    def __init__(
        self,
        settings: Settings,
        group: str,
        topics: Sequence[str],
        on_look: Callable[[LagReport], None] = lambda _: None,
    ) -> None:
        """`on_look` is called in the watch's thread after every look, also one that failed.

        Raises ConfigurationError when the client's settings cannot be used.
        """
        self._reader = LagReader(settings, group, topics)
        self._window = LagWindow(group)
        self._on_look = on_look
        self._interval = settings.lag_interval_ms / 1000
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"lag of {group}", daemon=True)

    @property
    def report(self) -> LagReport:
        """The newest report; without a look while there was none."""
        return self._window.report

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread, within 5 s also when Kafka is away."""
        self._stop.set()
        self._thread.join(_STOP_SECONDS)

    def _watch(self) -> None:
        with self._reader:
            while not self._stop.is_set():
                self._on_look(self._look())
                self._stop.wait(self._interval)

    def _look(self) -> LagReport:
        failed = self._window.report.failed
        try:
            report = self._window.add(self._reader.look(patience=0))
        except BnplError as error:  # whatever is wrong, what was known stays, and the next look may succeed
            if not failed:
                log.warning("lag is not known", reason=str(error))
            return self._window.miss(str(error))
        if failed:
            log.info("lag is known again")
        return report
