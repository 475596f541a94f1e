"""A real Prometheus scrapes running services by our configuration, and whatever rules and dashboards ask is asked."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from exported import DASHBOARDS, PROMETHEUS, expressions, rules, with_variables
from harness import (
    Command,
    Commands,
    encoded,
    eventually,
    fresh_settings,
    outcome,
    send,
    send_events,
    send_outcomes,
    simulated,
    wait_stored,
)

from consumer.clock import utc_now
from consumer.settings import Settings
from consumer.stack.local import LocalStack

pytestmark = pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus: apt-get install prometheus")

SERVICES = {
    "score": ("score",),
    "sink": ("sink",),
    "drift": ("drift", "--every", "1"),
    "reconcile": ("reconcile", "--every", "1"),
    "evaluate": ("evaluate", "--every", "1"),
    "api": ("api",),
}
EVENTS = 300
LATE_FIRES = 'ALERTS{alertname="BnplShadowFreshnessBurn", alertstate="firing"}'


class Prometheus:
    """One that runs, asked over HTTP."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, path: str, **parameters: str) -> Any:
        """Data of an answer; fails with what Prometheus says is wrong."""
        try:
            with urllib.request.urlopen(
                f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=10
            ) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as refused:
            with refused:
                raise AssertionError(f"{parameters}: {refused.read().decode()}") from None

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def query(self, expression: str) -> list[Any]:
        """The samples of an instant query."""
        return list(self.get("query", query=expression)["result"])


def address(service: Command) -> str:
    """host:port that a service told."""
    found = eventually(
        lambda: re.search(r'(?:"url": "|metrics: )http://([\d.]+:\d+)', service.output), 40, lambda: service.output
    )
    return found[1]


def configuration(addresses: dict[str, str]) -> dict[str, Any]:
    """Ours, with these addresses of services and a look every two seconds."""
    config: dict[str, Any] = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "2s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(PROMETHEUS / name) for name in config["rule_files"]]
    (job,) = config["scrape_configs"]
    targets = [each for each in job["static_configs"] if each["labels"]["service"] in addresses]
    job["static_configs"] = [each | {"targets": [addresses[each["labels"]["service"]]]} for each in targets]
    return config


@contextmanager
def scraping(folder: Path, addresses: dict[str, str]) -> Iterator[Prometheus]:
    """A Prometheus that scrapes these services."""
    config, output = folder / "prometheus.yml", folder / "prometheus.log"
    config.write_text(yaml.safe_dump(configuration(addresses)))
    with socket.create_server(("127.0.0.1", 0)) as free:
        where = f"127.0.0.1:{free.getsockname()[1]}"
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    with output.open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={where}"], stdout=log, stderr=log)
    try:
        asked = Prometheus(f"http://{where}")
        eventually(asked.ready, 30, output.read_text)
        yield asked
    finally:
        process.terminate()
        process.wait(20)


def send_traffic(settings: Settings, api: str, asked: Prometheus) -> None:
    """Checkouts, rubbish, outcomes and requests, in two halves because a rate needs two looks; until all is scraped."""
    events = simulated(2 * EVENTS)
    events[0]["device_type"] = "hologram"
    for each in events[:EVENTS]:  # old enough to be evaluated
        each["transaction_timestamp"] = utc_now() - timedelta(days=60)
    for half in (1, 2):
        some = events[(half - 1) * EVENTS : half * EVENTS]
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://{api}/v1/nothing", timeout=10)
        send_events(settings, some)
        send(settings, settings.topic_transactions, [{"value": encoded(some[0], amount=-1.0)}])
        send_outcomes(settings, [outcome(each["transaction_id"], defaulted=n % 4 == 0) for n, each in enumerate(some)])
        wait_stored(settings, half * EVENTS)
        for seen in (
            f"sum(bnpl_event_age_seconds_count) >= {half * EVENTS * 2}",  # published, and stored
            f"sum(bnpl_api_refused_total) == {half}",
        ):
            eventually(partial(asked.query, seen), 20, seen)
    for seen in ("bnpl_drift_window_rows > 0", "bnpl_outcome_coverage_ratio > 0", LATE_FIRES):
        eventually(partial(asked.query, seen), 30, seen)


@pytest.fixture(scope="module")
def prometheus(stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """All services at work, and a Prometheus that has seen them."""
    folder = tmp_path_factory.mktemp("prometheus")
    commands = Commands(folder)
    try:
        with fresh_settings(stack, folder / "state", reconcile_metrics_port=0, api_port=0) as settings:
            services = {name: commands.start(settings, *arguments) for name, arguments in SERVICES.items()}
            addresses = {name: address(service) for name, service in services.items()}
            with scraping(folder, addresses) as asked:
                send_traffic(settings, addresses["api"], asked)
                yield asked
    finally:
        commands.kill_all()


def test_every_target_of_the_configuration_is_reached(prometheus: Prometheus) -> None:
    def reached() -> set[str]:
        return {each["metric"]["service"] for each in prometheus.query('up{job="bnpl"} == 1')}

    eventually(lambda: reached() == set(SERVICES), 20, reached)


def test_every_rule_is_evaluated_and_only_the_age_of_these_checkouts_is_told(prometheus: Prometheus) -> None:
    """They are of weeks ago, and so their shadow events are published late."""
    found = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert len(found) == len(rules("alert_rules.yml")) + len(rules("recording_rules.yml"))
    assert {(rule["name"], rule.get("lastError")) for rule in found if rule["health"] != "ok"} == set()
    assert {rule["name"] for rule in found if rule.get("state") == "firing"} == {"BnplShadowFreshnessBurn"}


def test_every_group_shows_its_lag(prometheus: Prometheus) -> None:
    found = {each["metric"]["service"] for each in prometheus.query("bnpl_consumer_lag_messages")}
    assert found == {"score", "sink", "drift"}


def test_every_recorded_name_has_series(prometheus: Prometheus) -> None:
    assert {name for rule in rules("recording_rules.yml") if not prometheus.query(name := rule["record"])} == set()


def test_a_label_that_the_target_has_too_keeps_its_own_value(prometheus: Prometheus) -> None:
    assert prometheus.query('bnpl_job_last_success_timestamp_seconds{job="drift"}')


NOTHING_TO_SHOW = {
    "lag": set[str](),
    "service": set[str](),
    "model": {
        "Scores not made A",  # no model fails
        "Drift: state A",  # too few transactions to be judged
        "Discrimination ratio A",  # too few defaults
    },
}
"""Queries that have no answer here, though what they ask for is declared."""


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_every_query_of_a_dashboard_has_an_answer(prometheus: Prometheus, dashboard: Path) -> None:
    asked = [(where, with_variables(expression, "1m")) for where, expression in expressions(dashboard)]
    assert {where for where, expression in asked if not prometheus.query(expression)} == NOTHING_TO_SHOW[dashboard.stem]
