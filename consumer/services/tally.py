"""What a service did, counted in the loop and told in the log every few seconds and at the end."""

from __future__ import annotations

import time
from collections import Counter, defaultdict

from consumer.logs import Logger

_EVERY_SECONDS = 10.0
_NAMES_KEPT = 100
"""Distinct names of one kind that are counted apart; what comes after them is counted as `other`."""


class Tally:
    """Totals since the start and the rate since last told. `add` tells when it is time; a quiet service calls `tell`."""

    def __init__(self, log: Logger, event: str) -> None:
        self._log, self._event = log, event
        self.totals: Counter[str] = Counter()
        self.named: dict[str, Counter[str]] = defaultdict(Counter)
        self._told: Counter[str] = Counter()
        self._told_at = time.monotonic()

    def add(self, **counts: int) -> None:
        """Add to totals; tells when it is time."""
        self.totals.update(counts)
        self.tell()

    def add_named(self, kind: str, name: str, count: int) -> None:
        """Add to a total of its own for each name; the first sight of a name is logged."""
        names = self.named[kind]
        if name not in names:
            if len(names) >= _NAMES_KEPT:
                name = "other"
            self._log.warning(f"first of {kind}", name=name)
        names[name] += count

    def tell(self, *, final: bool = False) -> None:
        """Log totals and rate if something changed and the last time is long enough ago, or for good."""
        seconds = time.monotonic() - self._told_at
        if not final and (seconds < _EVERY_SECONDS or self.totals == self._told):
            return
        first = next(iter(self.totals), None)
        rate = (self.totals[first] - self._told[first]) / seconds if first and seconds else 0.0
        named = {kind: dict(names) for kind, names in self.named.items()}
        self._log.info(self._event, **self.totals, **named, per_second=round(rate))
        self._told, self._told_at = self.totals.copy(), time.monotonic()
