"""`/livez`, `/readyz` and `/metrics` of services as processes, and the rules behind them on a loop made to stand."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from typing import Any

import pytest
from harness import Commands, asked, eventually, send_events, simulated

from consumer.clock import utc_now
from consumer.metrics import Metrics
from consumer.services.pulse import Pulse
from consumer.settings import Settings
from consumer.system.services import SERVICES
from consumer.watch.health import Health, lag_series
from consumer.watch.lag import GroupLook, PartitionLag
from consumer.watch.server import StatusServer
from consumer.watch.status import LagReport, Status


def test_a_service_is_ready_when_it_reads_and_shows_its_metrics_and_lag(settings: Settings, commands: Commands) -> None:
    score, sink = commands.start(settings, "score"), commands.start(settings, "sink")
    for service, lane in ((score, "shadow"), (sink, "sink")):
        eventually(
            lambda service=service: asked(service, "readyz")[0] == 200, 40, lambda service=service: service.output
        )
        assert asked(service, "livez") == (200, '{"ok": true, "reasons": []}\n')
        assert asked(service, "elsewhere")[0] == 404
        status, scraped = asked(service, "metrics")
        assert status == 200
        assert f'bnpl_lane_halted{{lane="{lane}"}} 0.0' in scraped
        assert "process_resident_memory_bytes" in scraped
    send_events(settings, simulated(300))

    def caught_up() -> bool:
        lines = asked(score, "metrics")[1].splitlines()
        lags = [line for line in lines if line.startswith("bnpl_consumer_lag_messages{")]
        read = f'bnpl_consumer_records_total{{lane="shadow",topic="{settings.topic_transactions}"}} 300.0'
        return read in lines and len(lags) == 3 and all(line.endswith(" 0.0") for line in lags)

    eventually(caught_up, 30, lambda: asked(score, "metrics")[1])


def test_a_taken_port_ends_a_service_with_one_sentence(settings: Settings, commands: Commands) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        score = commands.run(settings.model_copy(update={"score_metrics_port": port}), "score")
    assert score.process.returncode == 1
    assert score.output.splitlines()[-1] == (
        f"error: no metrics and health: port {port} of 127.0.0.1 is taken; "
        "set BNPL_SCORE_METRICS_PORT to another, or 0 for any"
    )


class Well:
    def live(self) -> list[str]:
        return []

    def ready(self) -> list[str]:
        return []


def can_listen(host: str) -> bool:
    try:
        socket.create_server((host, 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not can_listen("::1"), reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["::1", "::"])
def test_a_service_at_an_ipv6_address_answers_where_run_says(host: str) -> None:
    (sink,) = (each for each in SERVICES if each.name == "sink")
    with StatusServer(host, 0, "BNPL_SINK_METRICS_PORT") as server:
        port = int(server.url.removeprefix(f"http://[{host}]:"))
        given = Settings(metrics_host=host, sink_metrics_port=port)
        assert not sink.answers(given)
        server.show(Metrics("sink"), Well())
        assert sink.answers(given)
        assert sink.address(given) == f"http://[::1]:{port}/metrics"


# the rules


NOTHING_UNREAD = PartitionLag("t", 0, 0, 10, 10)


@pytest.fixture
def pulse() -> Pulse:
    pulse = Pulse(Metrics("shadow"))
    pulse.turn(3)
    return pulse


def health(pulse: Pulse, report: LagReport, **others: Any) -> Health:
    return Health(Settings(stuck_after_seconds=20, max_poll_interval_ms=30_000), pulse, lambda: report, **others)


def report(*partitions: PartitionLag, failed: str | None = None) -> LagReport:
    statuses = {each.key: Status.OK for each in partitions}
    return LagReport("g", GroupLook("g", utc_now(), "stable", partitions), statuses, 0.0, failed)


UNREAD = replace(NOTHING_UNREAD, committed=4, oldest_unread=utc_now())


def test_a_loop_that_hangs_is_not_alive(pulse: Pulse) -> None:
    pulse.turned_at -= 31
    assert health(pulse, report(NOTHING_UNREAD)).live() == ["the loop has not come round for 31 s"]


def test_a_loop_that_hangs_with_records_to_read_is_not_alive_sooner_whatever_is_assigned(pulse: Pulse) -> None:
    for assigned in (3, 0):  # none: it hung in its first turn, or the group took all of them away meanwhile
        pulse.turn(assigned)
        pulse.turned_at -= 21
        assert health(pulse, report(NOTHING_UNREAD)).live() == []
        assert health(pulse, report(UNREAD)).live() == ["the loop has not come round for 21 s, and 6 records to read"]
    pulse.waiting_for = "Kafka does not answer"  # to give up what was begun takes longer than a turn
    assert health(pulse, report(UNREAD)).live() == []
    pulse.turned_at -= 10
    assert health(pulse, report(UNREAD)).live() == ["the loop has not come round for 31 s"]


def test_members_that_have_no_partition_wait_for_one_and_are_alive(pulse: Pulse) -> None:
    pulse.turn(0)
    pulse.progressed_at -= 100
    assert health(pulse, report(UNREAD)).live() == []


def test_turning_without_progress_is_life_only_when_there_is_nothing_to_do(pulse: Pulse) -> None:
    pulse.progressed_at -= 21
    assert health(pulse, report(NOTHING_UNREAD)).live() == []
    assert health(pulse, LagReport("g")).live() == []
    assert health(pulse, report(UNREAD)).live() == ["no progress for 21 s, and 6 records to read"]
    pulse.progress()
    assert health(pulse, report(UNREAD)).live() == []


def test_waiting_for_an_outside_part_is_alive_and_not_ready(pulse: Pulse) -> None:
    pulse.progressed_at -= 100
    pulse.waiting_for = "ClickHouse does not answer"
    asked = health(pulse, report(UNREAD))
    assert asked.live() == []
    assert asked.ready() == ["ClickHouse does not answer"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda pulse: pulse.turn(0), "no partition is assigned to it"),
        (lambda pulse: pulse.halt(), "halted by a fault that will not pass; the log names it"),
        (lambda pulse: setattr(pulse, "stopping", True), "stopping"),
    ],
)
def test_what_keeps_a_service_from_being_ready(pulse: Pulse, change: Any, reason: str) -> None:
    assert health(pulse, report(NOTHING_UNREAD)).ready() == []
    change(pulse)
    assert health(pulse, report(NOTHING_UNREAD)).ready() == [reason]


def test_unknown_lag_and_a_store_that_is_away_are_said(pulse: Pulse) -> None:
    asked = health(pulse, report(NOTHING_UNREAD, failed="Kafka: gone"), sink_fault=lambda: "ClickHouse does not answer")
    assert asked.ready() == ["its lag is not known: Kafka: gone", "ClickHouse does not answer"]


def test_lag_in_seconds_rises_between_looks_and_a_partition_that_is_gone_leaves_no_series() -> None:
    two = report(UNREAD, replace(UNREAD, partition=1))
    first = dict(lag_series(two)["bnpl_consumer_lag_seconds"])
    time.sleep(0.02)
    second = dict(lag_series(two)["bnpl_consumer_lag_seconds"])
    assert first.keys() == {("g", "t", "0"), ("g", "t", "1")}
    assert all(second[labels] > seconds for labels, seconds in first.items())
    assert [labels for labels, _ in lag_series(report(UNREAD))["bnpl_consumer_lag_messages"]] == [("g", "t", "0")]
