"""Dying on purpose, so that tests can prove what a death leaves behind. Does nothing unless BNPL_CRASH_POINT is set."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Literal

from consumer.logs import get_logger
from consumer.settings import Settings

log = get_logger(__name__)

_TO_LEARN_SECONDS = 1.0
"""After a SIGCONT the client learns first, in its own threads, what happened meanwhile: the worse case for the step."""


class CrashPoint:
    """The place after one numbered step of one service's protocol, and what happens there the n-th time."""

    def __init__(self, settings: Settings, service: Literal["score", "sink"]) -> None:
        place, _, times = (settings.crash_point or "").partition("@")
        name, _, step = place.partition(":")
        self._step = int(step) if name == service else None
        self._left = int(times or 1)
        self._action = settings.crash_action
        if self._step is not None:
            log.warning("this process is told to fail", crash_point=settings.crash_point, action=self._action)

    def after(self, step: int) -> None:
        """Called when a step is done, by whichever thread did it."""
        if step != self._step:
            return
        self._left -= 1
        if self._left == 0:
            self._act()

    def _act(self) -> None:
        if self._action == "hang":
            threading.Event().wait()
        os.kill(os.getpid(), signal.SIGKILL if self._action == "kill" else signal.SIGSTOP)
        time.sleep(_TO_LEARN_SECONDS)
