"""A job that goes on while the loop does something else, and may be given up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future

from consumer.clock import Deadline
from consumer.errors import KafkaUnavailable


class Background:
    """One job at a time in a thread of its own; whoever starts the next one first learns how the last one ended."""

    def __init__(self, patience: float | None = None) -> None:
        """`patience`: seconds after which a job is given up; None waits for it."""
        self._patience = patience
        self._job: Future[None] | None = None

    def start(self, job: Callable[[], None]) -> None:
        """Start a job; `settle` must have been called since the last one."""
        self._job = Future()
        # a daemon: one that never returns must not keep the process from ending
        threading.Thread(target=_fulfil, args=(self._job, job), name="background", daemon=True).start()

    def settle(self, deadline: Deadline | None = None) -> None:
        """Wait for the job, until `deadline` at the latest, and raise what it failed with.

        Raises KafkaUnavailable when it was given up; it may still be running then.
        """
        if self._job is not None:
            job, self._job = self._job, None
            until = deadline.remaining if deadline else None
            waits = [seconds for seconds in (self._patience, until) if seconds is not None]
            futures.wait([job], min(waits, default=None))
            if not job.done():
                raise KafkaUnavailable(f"what was under way did not end within {min(waits):.0f} s")
            job.result()

    @property
    def busy(self) -> bool:
        """Whether a job was started and not yet settled."""
        return self._job is not None

    @property
    def done(self) -> bool:
        """Whether a job has ended and waits to be settled."""
        return self._job is not None and self._job.done()


def _fulfil(promise: Future[None], job: Callable[[], None]) -> None:
    try:
        job()
        promise.set_result(None)
    except BaseException as error:  # noqa: BLE001 raised again by whoever settles
        promise.set_exception(error)
