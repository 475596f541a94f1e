"""ClickHouse and other blocking parts, asked in threads: nothing of them runs on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread
from clickhouse_connect.driver.client import Client

from consumer.errors import BnplError, ClickHouseUnavailable
from consumer.services.clickhouse import connect
from consumer.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")

_GRACE_SECONDS = 2.0


class Threads:
    """A few threads for one kind of work, each piece of which has so many seconds, the wait for a thread included."""

    def __init__(self, count: int, seconds: float, late: Callable[[], Exception]) -> None:
        """`late` makes what is raised when the time is over. The piece under way is left to its own timeouts, and keeps
        its thread from others: what hangs must not have more and more threads.
        """
        self._count, self._seconds, self._late = count, seconds, late
        self._limiter: CapacityLimiter | None = None

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` gives, or raises."""
        if self._limiter is None:  # belongs to the loop that asks
            self._limiter = CapacityLimiter(self._count)
        begun = False

        def begin() -> T:
            nonlocal begun
            begun = True
            return work()

        piece = asyncio.ensure_future(to_thread.run_sync(begin, limiter=self._limiter))
        done, _ = await asyncio.wait([piece], timeout=self._seconds)
        if done:
            return piece.result()
        if begun:
            piece.add_done_callback(_pass_over)
        else:
            piece.cancel()
        raise self._late()


def _pass_over(piece: asyncio.Future[Any]) -> None:
    """Nobody waits for it any more, also not for what it raises."""
    if not piece.cancelled():
        piece.exception()


class Store:
    """Asks ClickHouse: a client for each thread that asks, kept while it is well."""

    def __init__(self, settings: Settings, asking_at_once: int = 8) -> None:
        self._settings = settings
        self._idle: list[Client] = []
        self.fault: str | None = "not asked yet"
        """Why it did not answer when `watch` last asked; None when it did."""
        seconds = settings.clickhouse_timeout_seconds + _GRACE_SECONDS
        self._threads = Threads(asking_at_once, seconds, lambda: ClickHouseUnavailable("no answer in time"))

    async def ask(self, view: Callable[Concatenate[Client, P], T], *args: P.args, **named: P.kwargs) -> T:
        """What a view gives. Raises ClickHouseUnavailable when it does not come in time, or Fatal."""
        return await self._threads.run(partial(self._ask, lambda client: view(client, *args, **named)))

    def _ask(self, view: Callable[[Client], T]) -> T:
        try:
            client = self._idle.pop()  # asked first whether there is one, another thread may take it in between
        except IndexError:
            client = connect(self._settings)
        try:
            found = view(client)
        except BaseException:
            with suppress(Exception):
                client.close()
            raise
        self._idle.append(client)
        return found

    async def watch(self, every: float = 5.0) -> None:
        """Until cancelled, see whether it answers."""
        while True:
            try:
                await self.ask(_ping)
                self.fault = None
            except BnplError as error:
                self.fault = str(error)
            await asyncio.sleep(every)

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()


def _ping(client: Client) -> None:
    if not client.ping():
        raise ClickHouseUnavailable("ClickHouse does not answer")
