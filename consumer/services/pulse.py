"""What a loop shows of itself to whoever watches it from another thread."""

from __future__ import annotations

import time

from consumer.metrics import Metrics, StageClock


class Pulse:
    """When the loop last came round and last got on, what it waits for, and where its time goes."""

    def __init__(self, metrics: Metrics) -> None:
        self.stages = StageClock(metrics)
        self._last_poll = metrics.last_poll.labels(metrics.lane)
        self._halted_gauge = metrics.halted.labels(metrics.lane)
        self.turned_at = self.progressed_at = time.monotonic()
        """Monotonic seconds."""
        self.waiting_for: str | None = None
        """The outside part that is away, as an error said it; None while all goes well."""
        self.assigned = 0
        """Partitions of this member."""
        self.stopping = self.halted = False

    def turn(self, assigned: int) -> None:
        """The loop is about to read from so many partitions."""
        self.turned_at = time.monotonic()
        self.assigned = assigned
        self._last_poll.set_to_current_time()

    def progress(self) -> None:
        """Records were committed, or the end of all partitions was reached."""
        self.progressed_at = time.monotonic()

    def halt(self) -> None:
        """A fault that will not pass has ended the loop."""
        self.halted = True
        self._halted_gauge.set(1)
