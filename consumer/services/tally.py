"""What a service did, told in its log every few seconds and at the end, from the numbers that its metrics count."""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping

from consumer.logs import Logger

_EVERY_SECONDS = 10.0
_NAMES_KEPT = 100
"""Distinct names of one kind that are counted apart; what comes after them is counted as `other`."""
_SHOWN = re.compile(r"[\w<>+=.-]{1,64}")
"""Names come from producers: one that does not look like a name is counted, and not repeated in a log."""


def printable(name: str) -> str:
    """The name as it may be logged and shown."""
    return name if _SHOWN.fullmatch(name) else "unprintable"


class Tally:
    """Totals since the start and the rate since last told. Names that may not be labels are counted here alone."""

    def __init__(self, log: Logger, event: str, counted: Mapping[str, Callable[[], int]]) -> None:
        """`counted`: what to tell of, `records` among it."""
        self._log, self._event, self._counted = log, event, counted
        self.named: dict[str, Counter[str]] = defaultdict(Counter)
        self._told = self._totals()
        self._told_at = time.monotonic()

    def add_named(self, kind: str, name: str, count: int) -> None:
        """Add to a total of its own for each name; the first sight of a name is logged."""
        names = self.named[kind]
        name = printable(name)
        if name not in names:
            if len(names) >= _NAMES_KEPT:
                name = "other"
            if name not in names:
                self._log.warning(f"first of {kind}", name=name)
        names[name] += count

    def tell(self, *, final: bool = False) -> None:
        """Log totals and rate if something changed and the last time is long enough ago, or for good."""
        seconds = time.monotonic() - self._told_at
        if not final and seconds < _EVERY_SECONDS:
            return
        totals = self._totals()
        if not final and totals == self._told:
            return
        rate = (totals["records"] - self._told["records"]) / seconds if seconds else 0.0
        named = {kind: dict(names) for kind, names in self.named.items() if names}
        self._log.info(self._event, **totals, **named, per_second=round(rate))
        self._told, self._told_at = totals, time.monotonic()

    def _totals(self) -> dict[str, int]:
        return {name: count() for name, count in self._counted.items()}
