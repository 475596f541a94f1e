"""How often one caller may ask: `limits`' sliding window, in this process's memory."""

from __future__ import annotations

import math
import time

from limits import parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from consumer.api.problems import Refused


class RateLimit:
    """One budget a caller, of this process alone: n processes together let in n times as much."""

    def __init__(self, rate: str) -> None:
        """`rate`: as `100/second`."""
        self._rate = rate
        self._item = parse(rate)
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def count(self, caller: str) -> None:
        """Count one request. Raises Refused when there were too many."""
        if await self._limiter.hit(self._item, caller):
            return
        reset = (await self._limiter.get_window_stats(self._item, caller)).reset_time
        wait = str(max(1, math.ceil(reset - time.time())))
        raise Refused(429, "too-many", f"no more than {self._rate} are served", headers={"Retry-After": wait})
