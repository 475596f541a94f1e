"""Keys as they are pressed, without Enter, from a terminal that is left as it was found."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

NextKey = Callable[[float], str]
"""Waits up to so many seconds for a key; empty when none was pressed."""


@contextmanager
def keys() -> Iterator[NextKey]:
    """While the block runs, keys of stdin's terminal are read and not shown. Where stdin is none, no key ever comes."""
    if not sys.stdin.isatty():
        yield _no_key
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal)  # Ctrl-C goes on being an interrupt
        yield lambda seconds: _key(terminal, seconds)
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _key(terminal: int, seconds: float) -> str:
    ready, _, _ = select.select([terminal], [], [], seconds)
    return os.read(terminal, 1).decode(errors="replace") if ready else ""


def _no_key(seconds: float) -> str:
    time.sleep(seconds)
    return ""
