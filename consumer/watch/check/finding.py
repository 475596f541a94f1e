"""What a check says of one thing, and what a fault of many means for a start."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from consumer.errors import BnplError, Retryable

Level = Literal["ok", "warning", "fault"]


@dataclass(frozen=True)
class Finding:
    """One thing that is well, should be known (`warning`), or keeps a service from working rightly (`fault`).

    `what` is a sentence with the figures, `remedy` the way out; it is empty where all is well. `passing` says that a
    fault may pass by itself, as a broker that restarts does.
    """

    part: str
    level: Level
    what: str
    remedy: str = ""
    passing: bool = False


Findings = Iterator[Finding]


def ok(part: str, what: str) -> Finding:
    return Finding(part, "ok", what)


def warning(part: str, what: str, remedy: str) -> Finding:
    return Finding(part, "warning", what, remedy)


def fault(part: str, what: str, remedy: str, *, passing: bool = False) -> Finding:
    return Finding(part, "fault", what, remedy, passing)


class Stopped(Exception):
    """A check cannot go on; what it would have looked at next depends on what failed."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.what)
        self.finding = finding


@contextmanager
def stopping(part: str, remedy: str = "") -> Iterator[None]:
    """End a check by one of our errors as a fault; without a `remedy` the error's own words tell the way out."""
    try:
        yield
    except BnplError as error:
        raise Stopped(fault(part, str(error), remedy, passing=isinstance(error, Retryable))) from error


def all_pass(faults: Iterable[Finding]) -> bool:
    """Whether every one of these faults may pass by itself."""
    return all(each.passing for each in faults)
