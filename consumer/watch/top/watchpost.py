"""Looks at services, lag and the control topic, again and again.

A part that is away leaves its place in the overview empty and says why; the rest goes on, and the part is asked again
at the next look.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from consumer.clock import Deadline, utc_now
from consumer.contracts.control import Control
from consumer.errors import BnplError
from consumer.services import control
from consumer.services.background import Background
from consumer.settings import Settings
from consumer.stack.endpoint import endpoint, reached
from consumer.watch.lag import GroupLook, topics_by_group
from consumer.watch.lag_watch import LagWatch
from consumer.watch.top.overview import Overview, Process
from consumer.watch.top.service import Series, ServiceLook, ask

WINDOW_SECONDS = 10.0
"""Rates and shares are of about so long."""
_CONTROL_SECONDS = 5.0
_NOT_ASKED = "not asked yet"


class Watchpost:
    """Looks at everything whenever asked. A context manager: while it is open, threads watch lag and control."""

    def __init__(self, settings: Settings, urls: Mapping[str, str], every: float) -> None:
        """`urls`: where services answer, by what they are called until they say it themselves.

        Raises ConfigurationError or StackError when Kafka's address is not known.
        """
        self._settings, self._every = settings, every
        self._names = {url: name for name, url in urls.items()}
        self._looks: dict[str, deque[ServiceLook]] = {url: deque() for url in self._names}
        self._ends: deque[GroupLook] = deque()
        self._lags: dict[str, LagWatch] = {}
        self._control: Control | None = None
        self._control_failed: str | None = _NOT_ASKED
        self._asking, self._ask_again = Background(), Deadline.after(0)
        self._threads = ThreadPoolExecutor(max(2, len(self._names)), thread_name_prefix="top")

    def __enter__(self) -> Self:
        for group, topics in topics_by_group(self._settings).items():
            self._watch(group, topics)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Takes up to 5 s when Kafka is away."""
        with self._threads:
            self._threads.map(LagWatch.stop, self._lags.values())

    @property
    def settled(self) -> bool:
        """Whether everything has answered once, or failed to."""
        seen = all(watch.report.look or watch.report.failed for watch in self._lags.values())
        return seen and self._control_failed is not _NOT_ASKED

    def look(self) -> Overview:
        """Ask the services now, and take lag and control as they were last seen."""
        processes = tuple(map(self._remembered, self._threads.map(self._ask, self._names)))
        self._follow(processes)
        self._ask_control()
        reports = tuple(watch.report for watch in self._lags.values())
        return Overview(utc_now(), processes, reports, self._read(), self._control, self._control_failed)

    def _ask(self, url: str) -> ServiceLook:
        return ask(self._names[url], url)

    def _remembered(self, look: ServiceLook) -> Process:
        """A process with what it counted since the oldest look that is young enough and of the same process."""
        looks = self._looks[look.url]
        self._names[look.url] = look.name
        if looks and looks[-1].started != look.started:
            looks.clear()
        if not look.started:  # away, or silent about itself
            return Process(look, 0.0, Series({}))
        looks.append(look)
        while look.at - looks[0].at > WINDOW_SECONDS and len(looks) > 2:
            looks.popleft()
        return Process(look, look.at - looks[0].at, look.series.since(looks[0].series))

    def _follow(self, processes: Sequence[Process]) -> None:
        """Watch also the groups that services say they are members of: drift's bears the digest of its export."""
        told: dict[str, set[str]] = defaultdict(set)
        for each in processes:
            for group, topic in each.look.series.by("bnpl_consumer_assigned_partitions", "group", "topic"):
                told[group].add(topic)
        for group in told.keys() - self._lags.keys():
            self._watch(group, sorted(told[group]))

    def _watch(self, group: str, topics: Sequence[str]) -> None:
        often = self._settings.model_copy(update={"lag_interval_ms": round(self._every * 1000)})
        watch = LagWatch(often, group, topics)
        watch.start()
        self._lags[group] = watch

    def _read(self) -> float | None:
        """How fast the topic of transactions grows, by its ends."""
        topic = self._settings.topic_transactions
        report = self._lags[self._settings.score_group].report
        if (look := report.look) is None or report.failed:
            return None
        if not self._ends or self._ends[-1] is not look:
            self._ends.append(look)
        while (look.at - self._ends[0].at).total_seconds() > WINDOW_SECONDS and len(self._ends) > 2:
            self._ends.popleft()
        seconds = (look.at - self._ends[0].at).total_seconds()
        grown = _end(look, topic) - _end(self._ends[0], topic)
        if grown < 0:  # the topic was made anew
            self._ends.clear()
        return grown / seconds if seconds and grown >= 0 else None

    def _ask_control(self) -> None:
        if self._asking.done:
            try:
                self._asking.settle()
                self._control_failed = None
            except BnplError as error:
                self._control_failed = str(error)
        if not self._asking.busy and self._ask_again.passed:
            self._ask_again = Deadline.after(_CONTROL_SECONDS)
            self._asking.start(self._take_control)

    def _take_control(self) -> None:
        self._control = control.read(self._settings).log.state


def local_services(settings: Settings) -> dict[str, str]:
    """Where the services of this machine answer, by the ports of the settings; a port of 0 is not known here."""
    ports = {name.removesuffix("_metrics_port"): port for name, port in settings if name.endswith("_metrics_port")}
    places = {name: (settings.metrics_host, port) for name, port in ports.items()}
    places["api"] = settings.api_host, settings.api_port
    return {name: f"http://{endpoint(reached(host), port)}" for name, (host, port) in places.items() if port}


def _end(look: GroupLook, topic: str) -> int:
    return sum(each.end for each in look.partitions if each.topic == topic)
