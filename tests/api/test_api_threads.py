"""Blocking work of the API: so many threads, whatever hangs in them."""

from __future__ import annotations

import asyncio
import threading

import pytest

from consumer.api.store import Threads


class Late(Exception):
    pass


def test_what_hangs_has_no_more_threads_than_there_are() -> None:
    go, running, most = threading.Event(), 0, 0

    def hang() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        go.wait(20)
        running -= 1
        raise ValueError("to nobody")

    async def ask() -> str:
        threads = Threads(2, 0.05, Late)
        for _ in range(3):
            answers = await asyncio.gather(*(threads.run(hang) for _ in range(4)), return_exceptions=True)
            assert [type(each) for each in answers] == [Late] * 4
        assert most == 2
        go.set()
        while running:
            await asyncio.sleep(0.01)
        return await Threads(2, 20, Late).run(lambda: "well")

    assert asyncio.run(ask()) == "well"
    assert most == 2


def test_what_work_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        asyncio.run(Threads(1, 20, Late).run(lambda: 1 / 0))
