"""Runs batches in processes of their own, which may crash, hang or grow: each of these is a finding too."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np
import psutil

from fuzz.batches import SIZE, Batch, batch
from fuzz.checks import Finding, Outcome, finding

Check = Callable[[Batch], Outcome]

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["fuzz.checks"])  # importing it takes a process seconds
_WARM = 0.3
"""The part of a run in which memory may still grow: libraries fill their caches."""
_FEWEST = 50
"""Batches of one process from which on a slope says something."""


@dataclass
class Report:
    """What a run did; `memory_mb` has the memory after each batch, process by process."""

    seed: int
    payloads: int = 0
    seconds: float = 0.0
    families: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    memory_mb: list[list[float]] = field(default_factory=list)

    @property
    def peak_mb(self) -> float:
        return max((max(each) for each in self.memory_mb if each), default=0.0)

    @property
    def growth_mb(self) -> float:
        """By how much the memory of the process that grows most would grow in a million payloads, once warm."""
        steady = [each[int(len(each) * _WARM) :] for each in self.memory_mb if len(each) >= _FEWEST]
        slopes = [np.polyfit(np.arange(len(each)) * SIZE / 1e6, each, 1)[0] for each in steady]
        return float(max(slopes, default=0.0))


@dataclass
class _Done:
    """One batch's outcome, as its process tells it."""

    family: str
    kinds: Counter[str]
    outcome: Outcome
    memory_mb: float


def _serve(orders: Connection, seed: int, check: Check) -> None:
    """The process: answers (number, size, singly) with _Done; singly, with each payload's number before it is read."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that reports
    me = psutil.Process()
    orders.send(None)
    while (order := orders.recv()) is not None:
        number, size, singly = order
        made = batch(seed, number, size)
        for single in made.singles() if singly else ():
            orders.send(single.payloads[0].number)
            check(single)
        outcome = check(made)
        kinds = Counter(each.kind for each in made.payloads)
        orders.send(_Done(made.family, kinds, outcome, me.memory_info().rss / 2**20))


class _Process:
    """A process and the batch it works on."""

    def __init__(self, seed: int, check: Check) -> None:
        self.pipe, theirs = _FORKS.Pipe()
        self._process = _FORKS.Process(target=_serve, args=(theirs, seed, check), daemon=True)
        self._process.start()
        theirs.close()
        self.pipe.recv()  # it is ready: what it takes to start counts for no batch
        self.number = self.size = 0
        self.since = 0.0
        self.memory_mb: list[float] = []

    def give(self, number: int, size: int, *, singly: bool = False) -> None:
        self.number, self.size, self.since = number, size, time.monotonic()
        self.pipe.send((number, size, singly))

    def answer(self, seconds: float) -> Any:
        """What the process sends within the time; None when it has died or takes longer."""
        try:
            return self.pipe.recv() if self.pipe.poll(seconds) else None
        except (EOFError, ConnectionResetError):
            return None

    def finish(self) -> None:
        """Let it end by itself: it has nothing to do."""
        self.pipe.send(None)
        self._process.join()

    def kill(self) -> str:
        """How it ended, or that it had to be ended."""
        self._process.join(1)
        fault = "hangs" if self._process.is_alive() else f"ends the process with {self._process.exitcode}"
        self._process.kill()
        self._process.join()
        return fault


def run(
    report: Report,
    payloads: int,
    check: Check,
    *,
    processes: int = 2,
    limit_seconds: float = 120.0,
    tell: Callable[[], None] = lambda: None,
) -> None:
    """Check that many payloads of the report's seed; `tell` is called after each batch, when the report has it.

    A finding does not end a run, nor does a process's death.
    """
    seed, started = report.seed, time.monotonic()
    orders = iter([(at // SIZE, min(SIZE, payloads - at)) for at in range(0, payloads, SIZE)])
    idle = [_new(report, seed, check) for _ in range(processes)]
    at_work: list[_Process] = []
    try:
        while True:
            for order in [order for _, order in zip(range(len(idle)), orders, strict=False)]:
                at_work.append(idle.pop())
                at_work[-1].give(*order)
            if not at_work:
                break
            ready = wait([each.pipe for each in at_work], timeout=1)
            for each in list(at_work):
                overdue = time.monotonic() - each.since > limit_seconds
                if each.pipe not in ready and not overdue:
                    continue
                at_work.remove(each)
                done = each.answer(0)
                if done is None:
                    report.findings.append(_blame(each, seed, check, limit_seconds))
                    each = _new(report, seed, check)
                else:
                    _add(report, done, each)
                idle.append(each)
                report.seconds = time.monotonic() - started
                tell()
        for each in idle:
            each.finish()
    finally:
        for each in (*at_work, *idle):
            each.kill()


def _new(report: Report, seed: int, check: Check) -> _Process:
    process = _Process(seed, check)
    report.memory_mb.append(process.memory_mb)
    return process


def _add(report: Report, done: _Done, process: _Process) -> None:
    report.payloads += process.size
    report.families[done.family] += process.size
    report.kinds += done.kinds
    report.told += done.outcome.told
    report.findings += done.outcome.findings
    process.memory_mb.append(done.memory_mb)


def _blame(process: _Process, seed: int, check: Check, limit_seconds: float) -> Finding:
    """Which payload a process died of or hangs in: its batch once more in another, payload by payload."""
    fault = process.kill()
    again, last = _Process(seed, check), None
    again.give(process.number, process.size, singly=True)
    while not isinstance(last, _Done) and (answer := again.answer(limit_seconds)) is not None:
        last = answer
    again.kill()
    made = batch(seed, process.number, process.size)
    culprits = [single for single in made.singles() if single.payloads[0].number == last]
    return finding(culprits[0] if culprits else made, fault)
