"""What a sliding window of looks says: is a group well, and when will it have caught up. Pure functions of the window.

The statuses are those of LinkedIn's Burrow. Unlike Burrow, which knows commits only, this asks whether anybody reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import IntEnum
from itertools import pairwise
from typing import NamedTuple

from consumer.watch.lag import GroupLook, PartitionLag
from consumer.watch.unread import Key

WINDOW_SECONDS = 60.0
STALL_SECONDS = 30.0
"""Longer than the longest wait that is in order: an insert may take 15 s, a dead member's transaction 10 s."""
GAP_SECONDS = 25.0
"""Looks further apart say nothing of the time between: Kafka was away, and then nobody could move."""
GROWTH_SECONDS = 1.0
"""Less is the saw-tooth of batches."""


class Status(IntEnum):
    """A partition's state; the first of these that holds: EXPIRED, REWIND, OK for nothing to read, STOP, STALL, WARN,
    else OK.

    OK      nothing to read, or the group moves on and its lag does not grow.
    WARN    it moves on and lag in seconds grows: every look of the window's later half is more than a second above
            every one of its earlier half → add score processes, up to the number of partitions.
    STOP    there is something to read, and in the last two looks the group had no member → start the service.
    STALL   the group has members, and for 30 s there was something to read and the committed offset stood still → the
            log of the member and its `/readyz` say what it waits for; else restart it.
    REWIND  the committed offset went back within the window → somebody reset the group, or its offsets or the topic
            were lost; records are read again.
    EXPIRED retention deleted records that the group had yet to read → they are lost to it; a running service says how
            many and goes on behind them. Raise retention, and find out why the group stood.
    """

    OK = 0
    WARN = 1
    STOP = 2
    STALL = 3
    REWIND = 4
    EXPIRED = 5


class Observation(NamedTuple):
    """A partition in one look."""

    at: datetime
    lag: PartitionLag
    has_members: bool

    @property
    def waits(self) -> bool:
        """Whether there is something to read."""
        return self.lag.oldest_unread is not None

    @property
    def seconds(self) -> float:
        return self.lag.seconds(self.at)


@dataclass(frozen=True)
class LagReport:
    """The newest look at a group and what the window makes of it. It never changes: the next one replaces it whole, so
    a partition that is gone is gone from it too.
    """

    group: str
    look: GroupLook | None = None
    """The last look that succeeded; None when none has."""
    statuses: Mapping[Key, Status | None] = field(default_factory=dict)
    """None: the window is still too short to tell."""
    drain_seconds: float | None = None
    """See `drain_seconds`."""
    failed: str | None = None
    """Why the newest look failed; None when it did not. The rest then is as old as `look`."""

    @property
    def partitions(self) -> tuple[PartitionLag, ...]:
        return self.look.partitions if self.look else ()

    @property
    def messages(self) -> int:
        return sum(each.messages for each in self.partitions)

    @property
    def expired(self) -> int:
        return sum(each.expired for each in self.partitions)

    @property
    def worst(self) -> Status | None:
        """The highest status of any partition; None when no partition's is known."""
        return max((each for each in self.statuses.values() if each is not None), default=None)

    def seconds(self, now: datetime) -> float:
        """The longest that any partition's first unread record has waited; rises with the clock between looks."""
        return max((each.seconds(now) for each in self.partitions), default=0.0)

    def age(self, now: datetime) -> float:
        """Seconds since the last look that succeeded; infinite when none has."""
        return max(0.0, (now - self.look.at).total_seconds()) if self.look else math.inf


class LagWindow:
    """Collects looks at one group and reports on them."""

    def __init__(self, group: str) -> None:
        self._looks: list[GroupLook] = []
        self.report = LagReport(group)

    def add(self, look: GroupLook) -> LagReport:
        """Take a look into the window; those older than a minute leave it, but for the last one before a gap: an offset
        may have gone back meanwhile.
        """
        recent = [each for each in self._looks if (look.at - each.at).total_seconds() <= WINDOW_SECONDS]
        self._looks = [*(recent or self._looks[-1:]), look]
        statuses = {key: judge(window) for key, window in self._observations(look).items()}
        self.report = LagReport(look.group, look, statuses, drain_seconds(self._looks))
        return self.report

    def miss(self, reason: str) -> LagReport:
        """A look that failed: what was known stays, and says so."""
        self.report = replace(self.report, failed=reason)
        return self.report

    def _observations(self, newest: GroupLook) -> dict[Key, list[Observation]]:
        """The window of every partition that there is now."""
        windows: dict[Key, list[Observation]] = {each.key: [] for each in newest.partitions}
        for look in self._looks:
            for each in look.partitions:
                if each.key in windows:
                    windows[each.key].append(Observation(look.at, each, look.has_members))
        return windows


def judge(window: Sequence[Observation]) -> Status | None:
    """A partition's status from its observations, oldest first; None when they are too few or too short to tell."""
    newest = window[-1]
    if newest.lag.expired:
        return Status.EXPIRED
    if _went_back(window):
        return Status.REWIND
    if not newest.waits:
        return Status.OK
    if not any(each.has_members for each in window[-2:]):
        return Status.STOP
    window = _since_gap(window)
    if _standing_seconds(window) >= STALL_SECONDS:
        return Status.STALL
    long_enough = (newest.at - window[0].at).total_seconds() >= STALL_SECONDS
    moved = newest.lag.committed != window[0].lag.committed
    if moved and _grows(window):
        return Status.WARN if long_enough else None
    was_caught_up = not all(each.waits for each in window)
    return Status.OK if moved or was_caught_up or long_enough else None


def drain_seconds(looks: Sequence[GroupLook]) -> float | None:
    """Seconds until nothing is unread, should messages go on shrinking as they did over the window.

    0.0 when nothing is unread; infinite when they do not shrink; None when there is one look only. The rate at which
    messages shrink is what is committed less what is produced.
    """
    first, last = looks[0], looks[-1]
    if not last.unread:
        return 0.0
    seconds = (last.at - first.at).total_seconds()
    if seconds <= 0:
        return None
    shrunk = sum(each.messages for each in first.partitions) - sum(each.messages for each in last.partitions)
    return last.unread * seconds / shrunk if shrunk > 0 else math.inf


def _went_back(window: Sequence[Observation]) -> bool:
    """Also from an offset to none at all."""
    offsets = [-1 if each.lag.committed is None else each.lag.committed for each in window]
    return any(after < before for before, after in pairwise(offsets))


def _since_gap(window: Sequence[Observation]) -> Sequence[Observation]:
    for at in range(len(window) - 1, 0, -1):
        if (window[at].at - window[at - 1].at).total_seconds() > GAP_SECONDS:
            return window[at:]
    return window


def _standing_seconds(window: Sequence[Observation]) -> float:
    """How long, up to now, members have had something to read and have not committed."""
    newest = window[-1]
    since = newest.at
    for each in reversed(window):
        if each.lag.committed != newest.lag.committed or not each.waits or not each.has_members:
            break
        since = each.at
    return (newest.at - since).total_seconds()


def _grows(window: Sequence[Observation]) -> bool:
    """A single look never moved, so there are two at least."""
    seconds = [each.seconds for each in window]
    half = len(seconds) // 2
    return min(seconds[-half:]) > max(seconds[:half]) + GROWTH_SECONDS
