"""A loop that hangs is seen from outside, wherever it does: liveness, lag that rises, and where every thread stands."""

from __future__ import annotations

import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from harness import (
    eventually,
    fresh_settings,
    running,
    send_events,
    shadow_events,
    simulated,
    stored,
    wait_scored,
    wait_stored,
)
from structlog.testing import capture_logs

from consumer.metrics import total
from consumer.scoring.controller import ShadowModeController
from consumer.services.score import ScoreService
from consumer.services.sink import SinkService
from consumer.settings import Settings
from consumer.stack.local import LocalStack
from consumer.watch.server import StatusServer, watched
from consumer.watch.watchdog import stacks

BEFORE, AFTER = 60, 90


class Hang:
    """Stands before a call until it is let go."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call
        self.go = threading.Event()
        self.go.set()
        self.reached = threading.Event()

    def stand_here(self, *given: Any, **named: Any) -> Any:
        if not self.go.is_set():
            self.reached.set()
            assert self.go.wait(300)
        return self._call(*given, **named)


def hung(monkeypatch: pytest.MonkeyPatch, target: Any, name: str) -> Hang:
    hang = Hang(getattr(target, name))
    monkeypatch.setattr(target, name, hang.stand_here)
    return hang


@pytest.fixture
def hasty(stack: LocalStack, tmp_path: Path) -> Iterator[Settings]:
    """Stuck after four seconds, so that max.poll.interval has no say."""
    with fresh_settings(stack, tmp_path / "state", stuck_after_seconds=4) as settings:
        yield settings


def asked(server: StatusServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"{server.url}/{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


def lag_seconds(server: StatusServer) -> float:
    lines = asked(server, "metrics")[1].splitlines()
    return max(float(line.rpartition(" ")[2]) for line in lines if line.startswith("bnpl_consumer_lag_seconds{"))


@contextmanager
def seen_to_hang(service: ScoreService | SinkService, settings: Settings, hang: Hang, resume: Any) -> Iterator[None]:
    """Run a service that hangs from the block on, and see everything that should be seen until it goes on."""
    stores = isinstance(service, SinkService)
    group = settings.sink_group if stores else settings.score_group
    topic = settings.topic_shadow_scores if stores else settings.topic_transactions
    with (
        StatusServer("127.0.0.1", 0, "unused") as server,
        capture_logs() as logs,
        watched(service, server, settings, group, [topic], stores=stores),
        running(service),
    ):
        try:
            resume()
            eventually(lambda: asked(server, "livez")[0] == 200, 60, "it is alive")
            before = len(logs)
            hang.go.clear()
            yield
            assert hang.reached.wait(60)
            body = eventually(lambda: (seen := asked(server, "livez"))[0] == 503 and seen[1], 60, "it is not alive")
            (reason,) = json.loads(body)["reasons"]
            assert re.fullmatch(r"(the loop has not come round|no progress) for \d+ s, and \d+ records to read", reason)
            # the first unread record may be younger than the loop's last round
            eventually(lambda: lag_seconds(server) > 4.5, 30, "lag in seconds goes on rising")
            found = eventually(lambda: [each for each in logs[before:] if each["event"] == "stuck"], 30, "it is told")
        finally:
            hang.go.set()
        eventually(lambda: asked(server, "livez")[0] == 200, 60, "it is alive again")
        eventually(lambda: any(each["event"] == "moves again" for each in logs[before:]), 30, "that is told")
        resume()
    assert len(found) == 1
    assert total(service.metrics.stuck) == sum(each["event"] == "stuck" for each in logs)
    standing = [calls for calls in found[0]["stacks"].values() if any("Hang.stand_here" in each for each in calls)]
    assert len(standing) == 1
    assert all(re.fullmatch(r"[\w.]+:\d+ [\w.<>]+", each) for calls in found[0]["stacks"].values() for each in calls)
    assert any(name.startswith("watchdog (") for name in found[0]["stacks"])


@pytest.mark.parametrize("where", ["score a batch", "commit it"])
def test_a_score_service_that_hangs_is_seen_and_goes_on(
    where: str, hasty: Settings, controller: ShadowModeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ShadowModeController(controller.rules, controller.predictor)
    service = ScoreService(hasty, own)
    if where == "score a batch":
        hang = hung(monkeypatch, own, "score_batch")
    else:
        hang = hung(monkeypatch, service._transaction, "commit")
    events = simulated(BEFORE + AFTER)
    send_events(hasty, events[:BEFORE])
    with seen_to_hang(service, hasty, hang, lambda: wait_scored(hasty, 60)):
        send_events(hasty, events[BEFORE:])
    found = sorted(each["transaction_id"] for each in shadow_events(hasty))
    assert found == sorted(each["transaction_id"] for each in events)


def test_a_sink_whose_insert_hangs_is_seen_and_goes_on(
    hasty: Settings, controller: ShadowModeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = SinkService(hasty)
    hang = hung(monkeypatch, service._clickhouse, "insert_arrow")
    goals = iter((BEFORE, BEFORE + AFTER))
    events = simulated(BEFORE + AFTER)
    with running(ScoreService(hasty, controller)):
        send_events(hasty, events[:BEFORE])
        with seen_to_hang(service, hasty, hang, lambda: wait_stored(hasty, next(goals), 60)):
            send_events(hasty, events[BEFORE:])
    assert stored(hasty, "uniqExact(transaction_id)") == BEFORE + AFTER


def test_stacks_name_threads_and_the_calls_they_are_in_outermost_first() -> None:
    hang = Hang(lambda: None)
    hang.go.clear()
    thread = threading.Thread(target=hang.stand_here, name="one that stands")
    thread.start()
    try:
        assert hang.reached.wait(30)
        calls = eventually(
            lambda: (calls := stacks()[f"one that stands ({thread.ident})"])[-1].startswith("threading:") and calls,
            30,
            "it waits",
        )
        assert [each.partition(" ")[2] for each in calls[:3]] == [
            "Thread._bootstrap",
            "Thread._bootstrap_inner",
            "Thread.run",
        ]
        assert calls[3].startswith("test_watchdog:")
        assert calls[3].endswith(" Hang.stand_here")
    finally:
        hang.go.set()
        thread.join()
