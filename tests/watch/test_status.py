"""What a window of looks says: each status by its rule, and figures that are never NaN."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.watch.lag import GroupLook, PartitionLag
from consumer.watch.status import LagReport, LagWindow, Observation, Status, drain_seconds, judge
from consumer.watch.unread import arrival

START = datetime(2026, 3, 1, tzinfo=UTC)
EVERY = 5.0


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def look(
    seconds: float,
    committed: int | None,
    end: int = 1000,
    waits: float | None = 3.0,
    manned: bool = True,
    begin: int = 0,
    partition: int = 0,
) -> GroupLook:
    """One look at one partition whose first unread record has waited `waits` seconds; None: there is none."""
    oldest = None if waits is None else at(seconds - waits)
    lag = PartitionLag("t", partition, begin, committed, end, oldest)
    return GroupLook("g", at(seconds), "stable" if manned else "empty", (lag,))


def status(looks: Sequence[GroupLook]) -> Status | None:
    return judge([Observation(each.at, each.partitions[0], each.has_members) for each in looks])


def steady(count: int, waits: Sequence[float], step: int = 100) -> list[GroupLook]:
    return [look(n * EVERY, n * step, waits=waits[n % len(waits)]) for n in range(count)]


def standing(count: int, **changes: object) -> list[GroupLook]:
    return [look(n * EVERY, 10, waits=1 + n * EVERY, **changes) for n in range(count)]  # type: ignore[arg-type]


def test_a_group_with_nothing_to_read_is_ok_whoever_is_there() -> None:
    assert status([look(0, 1000, waits=None, manned=False)]) is Status.OK
    assert status([look(0, None, end=0, waits=None)]) is Status.OK
    # a marker is left: one message, and no record
    assert status([look(n * EVERY, 999, waits=None) for n in range(13)]) is Status.OK


def test_a_group_that_moves_and_does_not_fall_behind_is_ok() -> None:
    assert status(steady(13, waits=[0.2, 1.4, 0.1, 0.9])) is Status.OK
    assert status(steady(13, waits=[500.0])) is Status.OK
    assert status([look(n * EVERY, n * 100, waits=600 - 40 * n) for n in range(13)]) is Status.OK


def test_a_group_that_moves_and_falls_behind_is_warned_of() -> None:
    behind = [look(n * EVERY, n * 100, waits=2 + 2.5 * n) for n in range(13)]
    assert status(behind) is Status.WARN
    assert status(behind[:7]) is Status.WARN
    assert status(behind[:6]) is None, "half a minute has not passed"


def test_one_slow_batch_is_no_warning() -> None:
    looks = steady(13, waits=[0.3])
    looks[9] = look(9 * EVERY, 900, waits=25)
    assert status(looks) is Status.OK


def test_a_group_without_members_is_stopped() -> None:
    assert status([look(0, 10, manned=False)]) is Status.STOP
    assert status([look(0, None, manned=False)]) is Status.STOP
    assert status(standing(13, manned=False)) is Status.STOP


def test_a_group_between_two_members_is_not_stopped() -> None:
    looks = steady(13, waits=[1.0])
    looks[-1] = look(12 * EVERY, 1100, manned=False)
    assert status(looks) is Status.OK


def test_a_member_that_does_not_commit_for_half_a_minute_stalls() -> None:
    assert status(standing(13)) is Status.STALL
    assert status(standing(7)) is Status.STALL
    assert status(standing(6)) is None
    assert status([look(n * EVERY, None) for n in range(7)]) is Status.STALL


def test_a_member_that_stops_committing_stalls_half_a_minute_later() -> None:
    moving = steady(7, waits=[1.0])
    stuck = [look((7 + n) * EVERY, 600, waits=1 + n * EVERY) for n in range(6)]
    assert status(moving + stuck[:5]) is not Status.STALL
    assert status(moving + stuck) is Status.STALL


def test_a_record_that_has_just_come_is_no_stall() -> None:
    idle = [look(n * EVERY, 1000, waits=None) for n in range(12)]
    assert status([*idle, look(12 * EVERY, 1000, end=1001, waits=0.1)]) is Status.OK


def test_a_member_that_has_just_come_is_given_its_half_minute() -> None:
    alone = standing(10, manned=False)
    assert status([*alone, look(50, 10, waits=51)]) is not Status.STALL


@pytest.mark.parametrize("after", [400, 0, None])
def test_an_offset_that_went_back_is_a_rewind_until_it_leaves_the_window(after: int | None) -> None:
    window = LagWindow("g")
    for each in steady(6, waits=[1.0]):
        window.add(each)
    assert window.add(look(30, after)).worst is Status.REWIND
    assert window.add(look(85, 5000, end=9000)).worst is Status.REWIND
    assert window.add(look(91, 5100, end=9000)).worst is not Status.REWIND


def test_a_gap_is_no_warning_and_no_stall_and_hides_no_rewind() -> None:
    window = LagWindow("g")
    for each in standing(3):
        window.add(each)
    window.miss("Kafka is away")
    assert window.add(look(310, 20, waits=300)).worst is None, "it has moved, and waited as long as Kafka was away"
    window.miss("Kafka is away")
    assert window.add(look(610, 4)).worst is Status.REWIND


def test_a_window_keeps_no_partition_that_is_gone() -> None:
    window = LagWindow("g")
    window.add(look(0, 10, partition=0))
    report = window.add(look(5, 10, partition=1))
    assert list(report.statuses) == [("t", 1)] == [each.key for each in report.partitions]


def test_a_look_that_failed_leaves_the_last_one_ageing() -> None:
    window = LagWindow("g")
    window.add(look(0, 10, waits=3))
    report = window.miss("no answer")
    assert report.failed == "no answer"
    assert report.seconds(at(60)) == 63
    assert report.age(at(60)) == 60
    assert window.add(look(65, 20)).failed is None


def test_before_any_look_nothing_is_claimed() -> None:
    report = LagReport("g")
    assert (report.messages, report.seconds(START), report.worst, report.drain_seconds) == (0, 0.0, None, None)
    assert report.age(START) == math.inf


def test_drain_time_is_what_is_left_at_the_rate_it_shrinks() -> None:
    assert drain_seconds([look(0, 0), look(10, 500, end=1200)]) == pytest.approx(700 / 30)
    assert drain_seconds([look(0, 0), look(10, 500, end=1500)]) == math.inf
    assert drain_seconds([look(0, 0), look(10, 0)]) == math.inf
    assert drain_seconds([look(0, 0)]) is None
    assert drain_seconds([look(0, 0), look(10, 999, waits=None)]) == 0.0


def test_messages_count_from_the_committed_offset_or_the_beginning_and_say_what_is_lost() -> None:
    def lag(begin: int, committed: int | None, end: int) -> tuple[int, int, int]:
        made = PartitionLag("t", 0, begin, committed, end)
        return made.messages, made.expired, made.position

    assert lag(0, 4, 10) == (6, 0, 4)
    assert lag(3, None, 10) == (7, 0, 3)
    assert lag(7, 4, 10) == (6, 3, 7)
    assert lag(0, 12, 10) == (0, 0, 12), "a topic made anew: the group stands beyond its end"


offsets = st.integers(0, 2**62)
observed = st.tuples(st.floats(-10, 100), st.none() | offsets, offsets, st.none() | st.floats(-1e6, 1e9), st.booleans())


@given(st.lists(observed, min_size=1, max_size=15))
def test_whatever_is_seen_the_figures_are_numbers(
    seen: list[tuple[float, int | None, int, float | None, bool]],
) -> None:
    """Also with a clock that goes back, timestamps of the future, offsets that jump."""
    window = LagWindow("g")
    for moment, (_, committed, end, waits, manned) in zip(accumulate(each[0] for each in seen), seen, strict=True):
        report = window.add(look(moment, committed, end, waits, manned))
        drain = report.drain_seconds
        assert drain is None or drain >= 0
        seconds = report.seconds(at(moment))
        assert math.isfinite(seconds)
        assert seconds >= 0
        assert report.messages >= 0


@given(st.integers(0, 2), st.integers(-(2**63), 2**63 - 1))
def test_no_timestamp_is_later_than_the_look(kind: int, milliseconds: int) -> None:
    found = arrival(kind, milliseconds, START)
    assert found <= START
    if kind == 0 or milliseconds < 0 or milliseconds > START.timestamp() * 1000:
        assert found == START
