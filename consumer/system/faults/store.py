"""Faults of ClickHouse, on an endpoint of the trial's own.

clickhouse  connections reset, slow answers, errors of the server and of a load balancer, answers that come after the
            client gave up, a full disk, and the endpoint killed
outage      the endpoint killed and away for a minute
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import SecretStr

from consumer.errors import Fatal
from consumer.services import clickhouse as client
from consumer.stack.clickhouse import ClickHouse
from consumer.system.faults.extent import Extent
from consumer.system.faults.proxy import Mode, Proxy
from consumer.system.faults.trial import Fault, Ground, Outcome, Say, Trial, trial
from consumer.watch.lag import LagReader

_MODES: dict[Mode, str] = {
    "cut": "connections reset",
    "slow": "slow answers",
    "500": "errors of the server",
    "503": "errors of a load balancer",
    "late": "answers after the client gave up",
}
_CLIENT_SECONDS = 2
"""The sink's patience in this part, so that a late answer need not be very late."""
_FRESH_SECONDS = 3.0
"""The sink has caught up when nothing waits longer than this: it fills a batch for one second and inserts it."""
_CATCH_UP_SECONDS = 300.0
_NO_ROOM = 10**15


def clickhouse(ground: Ground, extent: Extent, say: Say) -> Outcome:
    with _own_clickhouse(ground) as (own, server), Proxy(server.address) as proxy:
        settings = own.settings("store", clickhouse_timeout_seconds=_CLIENT_SECONDS, sink_max_wait_ms=200)
        with trial(settings, extent.rate, say) as running:
            _start(running, proxy)
            running.wait_flowing()
            for _ in range(extent.rounds):
                for mode, kind in _MODES.items():
                    _misbehave(running, proxy, mode, kind, extent)
                _fill_disk(running, extent)
                _kill(running, server)
        return running.outcome("clickhouse")


def outage(ground: Ground, extent: Extent, say: Say) -> Outcome:
    with _own_clickhouse(ground) as (own, server):
        settings = own.settings("outage")
        with trial(settings, extent.rate, say) as running:
            running.supervise(running.service("score"), running.service("sink"))
            running.wait_flowing()
            with LagReader(settings, settings.sink_group, [settings.topic_shadow_scores]) as lag:
                _stay_away(running, server, lag, extent.outage_seconds)
        return running.outcome("outage")


@contextmanager
def _own_clickhouse(ground: Ground) -> Iterator[tuple[Ground, ClickHouse]]:
    """The ground with a ClickHouse that may be killed."""
    server = ClickHouse(ground.folder / "own-clickhouse", 0, owned=True)
    server.start()
    try:
        yield Ground(ground.kafka, server.address, ground.folder, ground.partitions, ground.replicas), server
    finally:
        server.kill()


def _start(running: Trial, proxy: Proxy) -> None:
    """Score, and a sink that finds ClickHouse behind the proxy."""
    settings = running.settings
    database = client.address_of(settings).rpartition("/")[2]
    behind = settings.model_copy(update={"clickhouse_url": SecretStr(f"{proxy.address}/{database}")})
    running.supervise(running.service("score"), running.service("sink", settings=behind))


def _misbehave(running: Trial, proxy: Proxy, mode: Mode, kind: str, extent: Extent) -> None:
    proxy.seconds = _CLIENT_SECONDS + 1.0 if mode == "late" else _CLIENT_SECONDS / 2
    before, proxy.mode = proxy.spoilt, mode
    try:
        running.rest(extent.fault_seconds)
        running.until(lambda: proxy.spoilt > before, _CATCH_UP_SECONDS, f"the sink meets {kind}")
    finally:
        proxy.mode = "pass"
    running.recovered(kind, running.sink, time.monotonic())


def _fill_disk(running: Trial, extent: Extent) -> None:
    """A disk that is full by ClickHouse's own measure: the engine itself refuses to insert."""
    with client.connect(running.settings) as admin:
        name = "min_free_disk_bytes_to_perform_insert"
        admin.command(f"ALTER TABLE shadow_scores MODIFY SETTING {name} = {_NO_ROOM}")
        began = time.monotonic()
        try:
            running.rest(extent.fault_seconds)
            stood_still = not running.sink.moved_since(began + extent.fault_seconds / 2)
        finally:
            admin.command(f"ALTER TABLE shadow_scores RESET SETTING {name}")
    if not stood_still:
        raise Fatal("the sink committed rows that a full disk could not take")
    running.recovered("disk full", running.sink, time.monotonic())


def _kill(running: Trial, server: ClickHouse) -> None:
    server.kill()
    server.start()
    running.recovered("endpoint killed", running.sink, time.monotonic())


def _stay_away(running: Trial, server: ClickHouse, lag: LagReader, seconds: float) -> None:
    """Kill the endpoint, start it after a while, and see how long the sink takes to have stored all that waited."""
    server.kill()
    running.rest(seconds)
    waiting = lag.look().unread
    server.start()
    back = time.monotonic()
    running.recovered(f"away for {seconds:.0f} s", running.sink, back)
    caught_up = running.until(lambda: _is_fresh(lag), _CATCH_UP_SECONDS, "the sink has caught up")
    running.keep(Fault(f"away for {seconds:.0f} s, until caught up", caught_up - back))
    running.notes.append(f"{waiting:,} events waited when ClickHouse came back")


def _is_fresh(lag: LagReader) -> bool:
    look = lag.look()
    return all(each.seconds(look.at) <= _FRESH_SECONDS for each in look.partitions)
