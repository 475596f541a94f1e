"""Calls that must not hold up the loop: a budget of time each, and a breaker that leaves out what outlasts it.

    on ── a call outlasts its budget ──► off ── the pause is over and that call has ended ──► tried by the next call
    ▲                                     ▲                                                        │
    └──────────── in time ────────────────┼────────────────────────────────────────────────────────┤
                                          └───────────────────── too slow again ───────────────────┘

Being in time is all that counts: a call that raises in time has lost its own answer and is asked again.
"""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from consumer.clock import Deadline
from consumer.settings import Settings

Matrix = npt.NDArray[np.float64]
Call = Callable[[Matrix], Matrix]
Answer = Matrix | str
"""What a call gave, or the name of why it gave nothing."""

TOO_SLOW = "TooSlow"
SWITCHED_OFF = "SwitchedOff"

_EXIT_SECONDS = 2.0


@dataclass(frozen=True)
class Budget:
    """How long one call may take, and for how long the next ones are left out when it takes longer."""

    seconds: float
    off_seconds: float

    @classmethod
    def of(cls, settings: Settings) -> Budget:
        return cls(settings.model_budget_ms / 1000, settings.model_off_seconds)


def attempt(call: Call, matrix: Matrix) -> Answer:
    """What the call gives, however long it takes, or the name of what it raised."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # a setting of the thread's own
            return call(matrix)
    except (Exception, SystemExit) as error:  # noqa: BLE001 whatever a model raises is its own failure
        return type(error).__name__


class Breaker:
    """Whether a call may be made, as of a time that the caller tells."""

    def __init__(self, off_seconds: float) -> None:
        self._off_seconds = off_seconds
        self._off_until: float | None = None

    @property
    def off(self) -> bool:
        """From a call that overran until one that came in time."""
        return self._off_until is not None

    def lets_through(self, now: float, *, running: bool) -> bool:
        """`running`: whether the call that overran still goes on."""
        return self._off_until is None or (now >= self._off_until and not running)

    def in_time(self) -> None:
        self._off_until = None

    def overran(self, now: float) -> None:
        self._off_until = now + self._off_seconds


class Guard:
    """One call behind a breaker, in a thread of its own that ends with the guard.

    Whoever asks waits for one budget at the most. A thread cannot be made to stop: a call that never returns keeps
    its thread and its one matrix, and is never asked again.
    """

    def __init__(self, call: Call, budget: Budget, clock: Callable[[], float] = time.monotonic) -> None:
        self._budget, self._clock = budget, clock
        self._breaker = Breaker(budget.off_seconds)
        self._late: Future[Answer] | None = None
        worker = _Worker(call)
        worker.start()
        self._requests = worker.requests
        weakref.finalize(self, self._requests.put, None)

    @property
    def off(self) -> bool:
        return self._breaker.off

    def __call__(self, matrix: Matrix) -> Answer:
        """What the call gives or raised in time, else TOO_SLOW, or SWITCHED_OFF when it was not made."""
        running = self._late is not None and not self._late.done()
        if not self._breaker.lets_through(self._clock(), running=running):
            return SWITCHED_OFF
        promise: Future[Answer] = Future()  # of this call alone: what comes late is an answer to nobody
        self._requests.put((matrix, promise))
        futures.wait([promise], self._budget.seconds)
        if not promise.done():
            self._late = promise
            self._breaker.overran(self._clock())
            return TOO_SLOW
        self._late = None
        self._breaker.in_time()
        return promise.result()


class _Worker(threading.Thread):
    """Makes one call after the other until it is handed None."""

    def __init__(self, call: Call) -> None:
        super().__init__(name="model", daemon=True)  # a call that never returns must not keep the process from ending
        self._call = call
        self.requests: SimpleQueue[tuple[Matrix, Future[Answer]] | None] = SimpleQueue()
        _WORKERS.add(self)

    def run(self) -> None:
        while (request := self.requests.get()) is not None:
            matrix, promise = request
            promise.set_result(attempt(self._call, matrix))
            del request, matrix, promise  # while it waits for the next batch it keeps nothing of the last one


_WORKERS: WeakSet[_Worker] = WeakSet()


@atexit.register
def _end_workers() -> None:
    """Give calls that are nearly done the time to end: the interpreter would cut their threads off inside native code,
    and some of that ends the process by SIGABRT then (python/cpython#87135).
    """
    workers, deadline = list(_WORKERS), Deadline.after(_EXIT_SECONDS)
    for worker in workers:
        worker.requests.put(None)
    for worker in workers:
        worker.join(deadline.remaining)
