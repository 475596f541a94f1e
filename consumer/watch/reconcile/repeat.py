"""Reconcile again and again, and show what was found last."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from consumer.clock import Deadline, utc_now
from consumer.errors import Retryable
from consumer.metrics import Metrics
from consumer.watch.outcomes import STATES, LabelCounts
from consumer.watch.reconcile.reconcile import KINDS, Reconciliation


class Repeated:
    """The last result as metrics and health. A fault that was found leaves it ready: what is wrong is elsewhere."""

    def __init__(
        self, once: Callable[[], Reconciliation], count_outcomes: Callable[[], list[LabelCounts]] = list
    ) -> None:
        """`count_outcomes` is asked after each reconciliation: one process does, however many sinks there are."""
        self.metrics = Metrics("reconcile")
        self._once = once
        self._count_outcomes = count_outcomes
        self._not_asked: str | None = "nothing was reconciled yet"

    def every(self, seconds: float) -> Iterator[Reconciliation | Retryable]:
        """Each result, or why nothing could be asked, without end; `seconds` from start to start, if they suffice.

        Raises Fatal when trying again would not help.
        """
        while True:
            next_start = Deadline.after(seconds)
            yield self._tried()
            time.sleep(next_start.remaining)

    def live(self) -> list[str]:
        """Always: every wait of a reconciliation has its end."""
        return []

    def ready(self) -> list[str]:
        return [self._not_asked] if self._not_asked else []

    def _tried(self) -> Reconciliation | Retryable:
        started = time.monotonic()
        try:
            found, outcomes = self._once(), self._count_outcomes()
        except Retryable as error:
            self._not_asked = str(error)
            self.metrics.reconcile_failures.inc()
            return error
        self._not_asked = None
        self._show(found, outcomes, time.monotonic() - started)
        return found

    def _show(self, found: Reconciliation, outcomes: list[LabelCounts], seconds: float) -> None:
        for counts in outcomes:
            for state in STATES:
                self.metrics.outcomes.labels(counts.label, state).set(getattr(counts, state))
        for kind in KINDS:
            self.metrics.reconcile_faults.labels(kind).set(getattr(found, kind))
        self.metrics.reconcile_in_flight.labels("shadow").set(found.waiting_for_score)
        self.metrics.reconcile_in_flight.labels("sink").set(found.waiting_for_sink)
        self.metrics.reconcile_seconds.set(seconds)
        self.metrics.reconciled_at.set(utc_now().timestamp())
