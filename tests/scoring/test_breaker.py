"""A breaker lets through what it should, and a guard waits for one budget and takes no late answer for a new one."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import dataclass, field

import numpy as np
import pytest
from harness import eventually
from hypothesis import given
from hypothesis import strategies as st
from samples import examples

from consumer.scoring.breaker import SWITCHED_OFF, TOO_SLOW, Breaker, Budget, Guard, Matrix
from consumer.settings import PROJECT

OFF_SECONDS = 30.0


@dataclass(frozen=True)
class Step:
    """The next call: when it comes, whether it would be in time, and for how long it would go on if not."""

    after: float
    in_time: bool
    lasts: float


STEPS = st.lists(
    st.builds(Step, st.floats(0, 100), st.booleans(), st.one_of(st.floats(0, 200), st.just(float("inf")))), max_size=40
)


@given(STEPS)
@examples(300)
def test_a_call_is_made_unless_one_overran_within_the_pause_or_goes_on(steps: list[Step]) -> None:
    breaker, now = Breaker(OFF_SECONDS), 0.0
    overran_at = ended_at = -float("inf")
    off = False
    for step in steps:
        now += step.after
        expected = not off or (now >= overran_at + OFF_SECONDS and now >= ended_at)
        assert breaker.lets_through(now, running=now < ended_at) == expected
        if expected and step.in_time:
            breaker.in_time()
            off = False
        elif expected:
            breaker.overran(now)
            off, overran_at, ended_at = True, now, now + step.lasts
        assert breaker.off == off


@given(STEPS)
@examples(100)
def test_what_hangs_for_ever_is_asked_once_and_what_is_mended_is_asked_after_one_pause(steps: list[Step]) -> None:
    breaker, now, waited = Breaker(OFF_SECONDS), 0.0, 0
    for step in steps:
        now += step.after
        if breaker.lets_through(now, running=waited > 0):
            breaker.overran(now)
            waited += 1
    assert waited == bool(steps)
    if steps:
        assert breaker.lets_through(now + OFF_SECONDS, running=False)


@dataclass
class Held:
    """A call that gives back its input, once it is let go."""

    go: threading.Event = field(default_factory=threading.Event)
    asked: int = 0

    def __call__(self, matrix: Matrix) -> Matrix:
        self.asked += 1
        assert self.go.wait(120)
        if matrix[0] < 0:
            raise RuntimeError
        return matrix


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def given_back(answer: Matrix | str) -> float:
    assert not isinstance(answer, str), answer
    return float(answer[0])


def test_a_late_answer_is_not_taken_for_a_new_one_and_the_call_is_asked_again_once_it_ended() -> None:
    call, clock = Held(), Clock()
    guard = Guard(call, Budget(2, OFF_SECONDS), clock)
    began = time.monotonic()
    assert guard(np.array([1.0])) == TOO_SLOW
    assert time.monotonic() - began >= 2
    assert guard(np.array([2.0])) == SWITCHED_OFF
    clock.now = 1000.0
    assert guard(np.array([3.0])) == SWITCHED_OFF, "the old call goes on"
    assert (guard.off, call.asked) == (True, 1)
    clock.now = OFF_SECONDS - 1
    call.go.set()
    assert guard(np.array([4.0])) == SWITCHED_OFF, "the pause is not over"
    clock.now = OFF_SECONDS
    answers = []
    eventually(lambda: answers.append(guard(np.array([5.0]))) or answers[-1] != SWITCHED_OFF, 30, "it is asked again")
    assert given_back(answers[-1]) == 5.0
    assert not guard.off
    assert given_back(guard(np.array([6.0]))) == 6.0


def test_tried_again_and_still_too_slow_it_is_off_for_another_pause() -> None:
    call, clock = Held(), Clock()
    guard = Guard(call, Budget(0.05, OFF_SECONDS), clock)
    for attempts in (1, 2, 3):
        assert guard(np.array([1.0])) == TOO_SLOW
        call.go.set()
        clock.now += OFF_SECONDS - 0.1
        assert guard(np.array([1.0])) == SWITCHED_OFF
        eventually(lambda: guard._late and guard._late.done(), 30, "the old call ends")
        call.go.clear()
        clock.now += 0.1
        assert call.asked == attempts


def test_a_call_that_raises_in_time_is_in_time() -> None:
    call = Held()
    call.go.set()
    guard = Guard(call, Budget(60, OFF_SECONDS))
    assert guard(np.array([-1.0])) == "RuntimeError"
    assert not guard.off
    assert given_back(guard(np.array([1.0]))) == 1.0


def test_a_guard_keeps_no_input_and_its_thread_ends_with_it() -> None:
    call = Held()
    before = set(threading.enumerate())
    guard = Guard(call, Budget(60, OFF_SECONDS))
    (mine,) = set(threading.enumerate()) - before
    assert mine.daemon
    call.go.set()
    gc.disable()
    try:
        seen = []
        for value in (1.0, -1.0):
            matrix = np.array([value])
            seen.append(weakref.ref(matrix))
            guard(matrix)
            del matrix
        eventually(lambda: not any(each() is not None for each in seen), 30, "the inputs are let go")
        del guard
        eventually(lambda: not mine.is_alive(), 30, "the thread ends")
    finally:
        gc.enable()


@pytest.mark.parametrize("seconds", [0.3, 3600])
def test_a_process_ends_in_order_though_a_call_goes_on(seconds: float) -> None:
    code = f"""
import time
import numpy as np
from consumer.scoring.breaker import Budget, Guard

def slow(matrix):
    time.sleep({seconds})
    return np.sort(matrix)

print(Guard(slow, Budget(0.01, 60))(np.zeros(10)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=PROJECT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "TooSlow\n", "")
