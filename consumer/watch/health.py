"""Is a service alive, and is it ready? Answered from what its loop shows, from any other thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from threading import Lock

from consumer.clock import utc_now
from consumer.errors import BnplError
from consumer.services.clickhouse import connect
from consumer.services.pulse import Pulse
from consumer.settings import Settings
from consumer.watch.status import LagReport

_ASK_EVERY_SECONDS = 5.0


class Health:
    """`live` and `ready` give reasons why not; none means yes.

    Live is progress or proven idle. A loop that waits for Kafka or ClickHouse to come back is live and not ready: to
    start it again would not help.
    """

    def __init__(
        self,
        settings: Settings,
        pulse: Pulse,
        lag: Callable[[], LagReport],
        sink_fault: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`lag` is the newest report on the service's group; `sink_fault` says why the store cannot be reached."""
        self._longest_turn = settings.max_poll_interval_ms / 1000
        self._longest_standstill = settings.stuck_after_seconds
        self._pulse = pulse
        self._lag = lag
        self._sink_fault = sink_fault

    def live(self) -> list[str]:
        now, pulse = time.monotonic(), self._pulse
        turned, progressed = now - pulse.turned_at, now - pulse.progressed_at
        if turned > self._longest_turn:
            return [f"the loop has not come round for {turned:.0f} s"]
        look = self._lag().look
        if pulse.waiting_for is not None or look is None or not look.unread:
            return []
        if turned > self._longest_standstill:  # whatever is assigned: a loop that hangs does not learn of it
            return [f"the loop has not come round for {turned:.0f} s, and {look.unread} records to read"]
        if progressed > self._longest_standstill and pulse.assigned:
            return [f"no progress for {progressed:.0f} s, and {look.unread} records to read"]
        return []

    def ready(self) -> list[str]:
        pulse, lag = self._pulse, self._lag()
        reasons = self.live()
        if pulse.halted:
            reasons.append("halted by a fault that will not pass; the log names it")
        elif pulse.stopping:
            reasons.append("stopping")
        if not pulse.assigned:
            reasons.append("no partition is assigned to it")
        if pulse.waiting_for:
            reasons.append(pulse.waiting_for)
        if lag.failed:
            reasons.append(f"its lag is not known: {lag.failed}")
        return reasons + list(filter(None, [self._sink_fault()]))


class ClickHouseProbe:
    """Says why ClickHouse cannot be reached, by asking it, though not at every question."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = Lock()
        self._asked_at = -_ASK_EVERY_SECONDS
        self._answer: str | None = None

    def __call__(self) -> str | None:
        """None when it answers; as old as 5 s."""
        with self._lock:
            if time.monotonic() - self._asked_at >= _ASK_EVERY_SECONDS:
                self._answer = self._ask()
                self._asked_at = time.monotonic()
            return self._answer

    def _ask(self) -> str | None:
        try:
            connect(self._settings).close()
        except BnplError as error:
            return str(error)
        return None


def lag_series(report: LagReport) -> Mapping[str, Iterable[tuple[tuple[str, ...], float]]]:
    """A report as the series of `Metrics.lag`; seconds are as of now, so they rise between looks."""
    now, group = utc_now(), report.group
    by_partition = [((group, each.topic, str(each.partition)), each) for each in report.partitions]
    topics = {each.topic: sum(other.topic == each.topic for other in report.partitions) for each in report.partitions}
    return {
        "bnpl_consumer_lag_messages": [(labels, each.messages) for labels, each in by_partition],
        "bnpl_consumer_lag_seconds": [(labels, each.seconds(now)) for labels, each in by_partition],
        "bnpl_consumer_partition_status": [
            (labels, status) for labels, each in by_partition if (status := report.statuses.get(each.key)) is not None
        ],
        "bnpl_consumer_drain_eta_seconds": [
            ((group, topic), report.drain_seconds) for topic in topics if report.drain_seconds is not None
        ],
        "bnpl_topic_partitions": [((topic,), count) for topic, count in topics.items()],
    }
