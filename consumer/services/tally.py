"""What a service did, counted in the loop and told in the log every few seconds and at the end."""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict

from consumer.logs import Logger

_EVERY_SECONDS = 10.0
_NAMES_KEPT = 100
"""Distinct names of one kind that are counted apart; what comes after them is counted as `other`."""
_SHOWN = re.compile(r"[\w<>+=.-]{1,64}")
"""Names come from producers: one that does not look like a name is counted, and not repeated in a log."""


class Tally:
    """Totals since the start and the rate since last told. `add` tells when due; a quiet service calls `tell`."""

    def __init__(self, log: Logger, event: str) -> None:
        self._log, self._event = log, event
        self.totals: Counter[str] = Counter(records=0)
        self.named: dict[str, Counter[str]] = defaultdict(Counter)
        self._told: Counter[str] = self.totals.copy()
        self._told_at = time.monotonic()

    def add(self, **counts: int) -> None:
        """Add to totals, `records` among them; tells when it is time."""
        self.totals.update(counts)
        self.tell()

    def add_named(self, kind: str, name: str, count: int) -> None:
        """Add to a total of its own for each name; the first sight of a name is logged."""
        names = self.named[kind]
        if not _SHOWN.fullmatch(name):
            name = "unprintable"
        if name not in names:
            if len(names) >= _NAMES_KEPT:
                name = "other"
            if name not in names:
                self._log.warning(f"first of {kind}", name=name)
        names[name] += count

    def tell(self, *, final: bool = False) -> None:
        """Log totals and rate if something changed and the last time is long enough ago, or for good."""
        seconds = time.monotonic() - self._told_at
        if not final and (seconds < _EVERY_SECONDS or self.totals == self._told):
            return
        rate = (self.totals["records"] - self._told["records"]) / seconds if seconds else 0.0
        named = {kind: dict(names) for kind, names in self.named.items() if names}
        self._log.info(self._event, **self.totals, **named, per_second=round(rate))
        self._told, self._told_at = self.totals.copy(), time.monotonic()
