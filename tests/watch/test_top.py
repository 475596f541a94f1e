"""`bnpl-shadow top` on running services: right numbers, what is away named and seen again, a terminal left in order."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from click.testing import CliRunner
from harness import (
    encoded,
    environment,
    eventually,
    fresh_settings,
    running,
    send,
    send_events,
    simulated,
    wait_stored,
)
from rich.console import Console

from consumer.champion.promotion import Signature, configured, killed
from consumer.cli.main import cli
from consumer.cli.top_screen import document, screen
from consumer.clock import utc_now
from consumer.metrics import Metrics
from consumer.scoring.controller import ShadowModeController
from consumer.services import control
from consumer.services.score import ScoreService
from consumer.services.sink import SinkService
from consumer.settings import PROJECT, Settings
from consumer.stack.local import LocalStack
from consumer.watch.server import StatusServer, watched
from consumer.watch.top.overview import Overview, Process
from consumer.watch.top.service import Series, ask
from consumer.watch.top.watchpost import Watchpost, local_services

EVENTS = 400


@contextmanager
def answering(
    settings: Settings, service: ScoreService | SinkService, group: str, topic: str, port: int = 0
) -> Iterator[str]:
    """A service with its metrics and health at an address."""
    with StatusServer("127.0.0.1", port, "BNPL_X") as server, watched(service, server, settings, group, [topic]):
        yield server.url


@pytest.fixture(scope="module")
def system(
    stack: LocalStack, controller: ShadowModeController, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """Score and sink that have done their work, two letters and a kill on the record; settings and addresses."""
    with ExitStack() as opened:
        settings = opened.enter_context(fresh_settings(stack, tmp_path_factory.mktemp("top")))
        score, sink = ScoreService(settings, controller), SinkService(settings)
        opened.enter_context(running(score))
        opened.enter_context(running(sink))
        urls = {
            "score": opened.enter_context(
                answering(settings, score, settings.score_group, settings.topic_transactions)
            ),
            "sink": opened.enter_context(answering(settings, sink, settings.sink_group, settings.topic_shadow_scores)),
            "drift": "http://127.0.0.1:9",
        }
        send(
            settings,
            settings.topic_transactions,
            [{"value": b"rubbish"}, {"value": encoded(simulated(1)[0], amount=-1.0)}],
        )
        signed = Signature("anna", utc_now(), "a [drill]")
        control.amend(settings, lambda state: killed(state, configured(settings), signed))
        yield settings, urls


def shown(overview: Overview) -> str:
    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(screen(overview))
    return console.export_text()


def test_a_frame_has_the_numbers_of_what_happened(system: Any) -> None:
    settings, urls = system
    with Watchpost(settings, urls, 0.5) as post:
        eventually(lambda: (post.look(), post.settled)[1], 20, "everything has answered")
        send_events(settings, simulated(EVENTS))
        wait_stored(settings, EVENTS)

        def caught_up() -> Overview | None:
            overview = post.look()
            lag = {report.group: report for report in overview.lag}
            ruled = set(overview.revisions.values()) == {1}
            rates = (overview.read, overview.rate("bnpl_sink_rows_total", result="ok"))
            done = all(rates) and not lag[settings.score_group].messages and not lag[settings.sink_group].messages
            return overview if done and ruled and overview.control else None

        overview = eventually(caught_up, 20, lambda: document(post.look()))
    told = json.loads(json.dumps(document(overview)))
    assert [(each["name"], each["state"]) for each in told["services"]] == [
        ("score", "ready"),
        ("sink", "ready"),
        ("drift", "away"),
    ]
    assert told["services"][2]["reasons"] == ["nobody listens there"]
    assert told["services"][0]["memory_bytes"] > 50e6
    assert {each["group"]: each["messages"] for each in told["lag"]} == {
        settings.score_group: 0,
        settings.sink_group: 0,
    }
    for rate in told["per_second"].values():
        assert 10 < rate < EVENTS / 0.3
    assert {lane: sum(shares.values()) for lane, shares in told["stages"].items()} == {
        "shadow": pytest.approx(1),
        "sink": pytest.approx(1),
    }
    assert {(each["error"], each["count"]) for each in told["dead_letters"]} == {
        ("unknown_framing", 1),
        ("negative", 1),
    }
    assert told["control"]["state"]["made_by"] == "anna"
    assert told["control"]["ruling"] == [{"champion": "ridge", "mode": "shadow"}]
    assert told["drift"] == {"known": False, "alarms": [], "warnings": []}
    text = shown(overview)
    assert "revision 1: kill by anna" in text
    assert "a [drill]" in text, "what people wrote is no markup"
    assert "dead letters since the start: 2" in text
    assert re.search(rf"{settings.sink_group} +{re.escape(settings.topic_shadow_scores)} +0 +0 +0.0  OK", text)


class Told:
    """The health of a service, as the test says it."""

    def __init__(self) -> None:
        self.dead: list[str] = []
        self.busy: list[str] = []

    def live(self) -> list[str]:
        return self.dead

    def ready(self) -> list[str]:
        return self.busy


def test_a_service_that_goes_away_is_named_and_shown_again_once_it_is_back(system: Any) -> None:
    settings, urls = system
    metrics, health = Metrics("sink"), Told()
    written = metrics.rows.labels("shadow_scores", "ok")

    def served(port: int = 0) -> StatusServer:
        server = StatusServer("127.0.0.1", port, "BNPL_X")
        server.show(metrics, health)
        return server

    with ExitStack() as opened:
        server = served()
        with server:
            post = opened.enter_context(Watchpost(settings, {"sink of ours": server.url, "score": urls["score"]}, 0.5))

            def sink() -> Process:
                overview = post.look()
                assert overview.processes[1].look.state == "ready", "the other one is shown all the while"
                return overview.processes[0]

            assert (sink().look.name, sink().look.state) == ("sink", "ready")
            written.inc(1000)
            rate = sink().rate("bnpl_sink_rows_total")
            assert rate
            assert rate > 0
            health.busy = ["ClickHouse does not answer"]
            assert (sink().look.state, sink().look.reasons) == ("not ready", ("ClickHouse does not answer",))
            health.dead = ["no progress for 61 s"]
            assert (sink().look.state, sink().look.reasons) == ("not alive", ("no progress for 61 s",))
        away = sink()
        assert (away.look.name, away.look.state, away.look.reasons) == ("sink", "away", ("nobody listens there",))
        assert away.rate("bnpl_sink_rows_total") is None
        assert re.search(r"sink +127\.0\.0\.1:\d+ +away +nobody listens there", shown(post.look()))
        health.dead, health.busy = [], []
        with served(int(server.url.rpartition(":")[2])):
            assert sink().look.state == "ready"
            assert sink().rate("bnpl_sink_rows_total") == 0, "what was counted before it was away is not of now"


def test_without_kafka_the_services_are_shown_all_the_same(system: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, urls = system
    monkeypatch.setattr("consumer.services.kafka.NETWORK_TIMEOUT_MS", 500)
    nowhere = settings.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:9"})
    with Watchpost(nowhere, urls, 0.5) as post:
        eventually(lambda: (post.look(), post.settled)[1], 30, "everything has answered or failed to")
        overview = post.look()
    assert overview.processes[0].look.state == "ready"
    assert overview.read is None
    assert all("127.0.0.1:9" in (report.failed or "") for report in overview.lag)
    assert "Kafka does not answer at 127.0.0.1:9" in (overview.control_failed or "")
    text = shown(overview)
    assert "the lag of" in text
    assert "bnpl.control is not known" in text


class Odd(BaseHTTPRequestHandler):
    """A server whose answers are in the first part of its paths: by health, readiness and metrics."""

    let_go = threading.Event()

    def do_GET(self) -> None:
        said = dict(zip(("livez", "readyz", "metrics"), self.path.split("/")[1].split(","), strict=True))
        answer = said[self.path.rpartition("/")[2]]
        if answer == "hangs":
            self.let_go.wait(10)
        with suppress(ConnectionError):  # it is not waited for
            self.send_response(int(answer) if answer.isdigit() else 200)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.mark.parametrize(
    ("answers", "state", "reasons"),
    [
        ("hangs,200,200", "away", ("no answer within 1 s",)),
        ("404,404,404", "away", ("it answers 404",)),
        ("200,hangs,401", "not ready", ("/readyz: no answer within 1 s", "/metrics: it answers 401")),
        ("503,503,500", "not alive", ("/metrics: it answers 500",)),
        ("200,200,html", "ready", ("/metrics: it is not Prometheus' format",)),
    ],
)
def test_what_a_service_does_not_answer_is_said(answers: str, state: str, reasons: tuple[str, ...]) -> None:
    Odd.let_go.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Odd) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        look = ask("sink", f"http://127.0.0.1:{server.server_port}/{answers}")
        Odd.let_go.set()
        server.shutdown()
    assert (look.name, look.state, look.reasons) == ("sink", state, reasons)


def test_a_series_that_is_new_began_at_nothing() -> None:
    earlier = Series.parsed('a_total{x="1",y="1"} 3\n')
    later = Series.parsed('a_total{x="1",y="1"} 5\na_total{x="1",y="2"} 4\na_total{x="2",y="1"} 1\nb 7\n')
    assert later.since(earlier).by("a_total", "x") == {("1",): 6, ("2",): 1}
    assert later.total("a_total", y="1") == 6
    assert later.total("c") == 0


def test_without_a_terminal_there_is_one_frame_and_programs_get_an_object(
    system: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, urls = system
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    frame = CliRunner().invoke(cli, ["top", "--at", urls["score"], "--at", urls["sink"] + "/"])
    assert frame.exit_code == 0, frame.output
    assert frame.output.startswith("BNPL shadow scoring   ")
    assert "\x1b" not in frame.output
    assert re.search(r"score +127.* +ready", frame.output)
    told = json.loads(CliRunner().invoke(cli, ["top", "--json", "--at", urls["score"]]).output)
    assert [each["name"] for each in told["services"]] == ["score"]
    assert told["per_second"]["read"] == 0


def test_the_ports_of_the_settings_say_where_services_answer() -> None:
    found = local_services(Settings(score_metrics_port=1, sink_metrics_port=0, metrics_host="0.0.0.0"))
    assert found["score"] == "http://127.0.0.1:1"
    assert found["drift"] == "http://127.0.0.1:9653"
    assert found["api"] == "http://127.0.0.1:9660"
    assert "sink" not in found
    for host, url in (("::", "http://[::1]:1"), ("fd00::7", "http://[fd00::7]:1")):
        assert local_services(Settings(score_metrics_port=1, metrics_host=host))["score"] == url


@pytest.mark.parametrize("key", [b"q", b"\x03"], ids=["q", "Ctrl-C"])
def test_a_key_ends_it_and_the_terminal_is_as_it_was(system: Any, key: bytes) -> None:
    settings, urls = system
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    top = subprocess.Popen(
        [sys.executable, "-m", "consumer", "top", "--every", "0.5", "--at", urls["score"]],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=PROJECT, start_new_session=True, preexec_fn=own_terminal,
        env=environment(settings) | {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"},
    )  # fmt: skip
    screen = Screen(ours)
    try:
        eventually(lambda: "caught up" in screen.text and "\x1b[?1049h" in screen.text, 30, lambda: screen.text)
        assert termios.tcgetattr(theirs) != before, "keys are read without Enter, and not shown"
        os.write(ours, b"x")
        drawn = len(screen.text)
        eventually(lambda: len(screen.text) > drawn, 10, "another key ends nothing")
        os.write(ours, key)
        assert top.wait(15) == 0
        eventually(lambda: "\x1b[?1049l" in screen.text and "\x1b[?25h" in screen.text, 5, lambda: screen.text)
        assert termios.tcgetattr(theirs) == before
        assert "Traceback" not in screen.text
    finally:
        top.kill()
        top.wait()
        screen.close()
        os.close(theirs)


def own_terminal() -> None:
    """Makes stdin the terminal that controls this process, so that Ctrl-C is an interrupt."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Screen:
    """What a program writes to its terminal, read all the while so that it is never held up."""

    def __init__(self, terminal: int) -> None:
        self.text = ""
        self._terminal, self._stop = terminal, threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while not self._stop.is_set():
            if select.select([self._terminal], [], [], 0.05)[0]:
                self.text += os.read(self._terminal, 65536).decode(errors="replace")

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        os.close(self._terminal)
