"""One service asked over HTTP: is it well, and what does it count."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import urllib3
from prometheus_client.parser import text_string_to_metric_families

State = Literal["ready", "not ready", "not alive", "away"]

_SECONDS = 1.0
"""What one answer may take: a service that hangs must not hold up the others' figures."""
_OK, _NO = 200, 503
_LANES = {"shadow": "score"}
"""Where a lane's name is not that of its service."""


class Series:
    """The samples of one scrape, or the differences of two."""

    def __init__(self, samples: Mapping[tuple[str, frozenset[tuple[str, str]]], float]) -> None:
        self._samples = samples

    @classmethod
    def parsed(cls, exposition: str) -> Series:
        """From Prometheus' text format. Raises ValueError when it is none."""
        families = text_string_to_metric_families(exposition)
        return cls(
            {(each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples}
        )

    def by(self, metric: str, *labels: str, **where: str) -> dict[tuple[str, ...], float]:
        """The sums of a metric's samples by these labels, among those that have the labels of `where`."""
        sums: dict[tuple[str, ...], float] = {}
        for found, value in self._of(metric):
            if where.items() <= found.items():
                key = tuple(found.get(label, "") for label in labels)
                sums[key] = sums.get(key, 0.0) + value
        return sums

    def total(self, metric: str, **where: str) -> float:
        """The sum of a metric's samples that have these labels; 0.0 for none."""
        return self.by(metric, **where).get((), 0.0)

    def since(self, earlier: Series) -> Series:
        """What was counted since an earlier scrape of the same process, where a series that is new began at 0."""
        return Series({key: value - earlier._samples.get(key, 0.0) for key, value in self._samples.items()})

    def _of(self, metric: str) -> Iterator[tuple[dict[str, str], float]]:
        for (name, labels), value in self._samples.items():
            if name == metric:
                yield dict(labels), value


@dataclass(frozen=True)
class ServiceLook:
    """A service at one moment."""

    name: str
    """As it calls itself; while it is away, as it was called before."""
    url: str
    at: float
    """Monotonic seconds."""
    state: State
    reasons: tuple[str, ...] = ()
    """Why it is not ready."""
    series: Series = field(default_factory=lambda: Series({}))

    @property
    def started(self) -> float:
        """When its process began, in seconds since 1970; 0.0 when it does not say."""
        return self.series.total("process_start_time_seconds")


def ask(name: str, url: str) -> ServiceLook:
    """A service by what it answers on `url`; whatever is wrong with it is in the look. Takes 3 s at the most."""
    at = time.monotonic()
    try:
        live, why_not_live = _health(url, "livez")
    except _Unanswered as away:
        return ServiceLook(name, url, at, "away", (str(away),))
    try:
        ready, why_not_ready = _health(url, "readyz")
    except _Unanswered as silent:  # as while ClickHouse hangs, which it asks
        ready, why_not_ready = False, (f"/readyz: {silent}",)
    unseen: tuple[str, ...] = ()
    try:
        series = _metrics(url)
    except _Unanswered as silent:
        series, unseen = Series({}), (f"/metrics: {silent}",)
    state: State = "not alive" if not live else "not ready" if not ready else "ready"
    return ServiceLook(
        _name(series, name), url, at, state, (*(why_not_ready if live else why_not_live), *unseen), series
    )


class _Unanswered(Exception):
    """No answer, or none that a service of ours would give."""


def _health(url: str, path: str) -> tuple[bool, tuple[str, ...]]:
    """Yes or no, and why not."""
    status, body = _get(f"{url}/{path}")
    if status not in (_OK, _NO):
        raise _Unanswered(f"it answers {status}")
    return status == _OK, _reasons(body)


def _metrics(url: str) -> Series:
    status, body = _get(f"{url}/metrics")
    if status != _OK:
        raise _Unanswered(f"it answers {status}")
    try:
        return Series.parsed(body)
    except ValueError:
        raise _Unanswered("it is not Prometheus' format") from None


def _get(url: str) -> tuple[int, str]:
    try:
        answer = urllib3.request("GET", url, timeout=_SECONDS, retries=False)
    except urllib3.exceptions.NewConnectionError:  # which is a time-out too, to urllib3
        raise _Unanswered("nobody listens there") from None
    except urllib3.exceptions.TimeoutError:
        raise _Unanswered(f"no answer within {_SECONDS:.0f} s") from None
    except urllib3.exceptions.HTTPError:
        raise _Unanswered("the connection broke") from None
    return answer.status, answer.data.decode(errors="replace")


def _name(series: Series, otherwise: str) -> str:
    for (lane,) in series.by("bnpl_lane_halted", "lane"):
        return _LANES.get(lane, lane)
    return otherwise


def _reasons(body: str) -> tuple[str, ...]:
    try:
        told: Any = json.loads(body)
    except ValueError:
        return ()
    reasons = told.get("reasons") if isinstance(told, dict) else None
    return tuple(map(str, reasons)) if isinstance(reasons, list) else ()
