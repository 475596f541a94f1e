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
    """Ours, with these addresses of services and a look each second."""
    config: dict[str, Any] = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(PROMETHEUS / name) for name in config["rule_files"]]
    (job,) = config["scrape_configs"]
    targets = [each for each in job["static_configs"] if each["labels"]["service"] in addresses]
    job["static_configs"] = [each | {"targets": [addresses[each["labels"]["service"]]]} for each in targets]
    return config


@pytest.fixture(scope="module")
def prometheus(stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """All services at work, and a Prometheus that has seen them."""
    folder = tmp_path_factory.mktemp("prometheus")
    commands = Commands(folder)
    with (
        fresh_settings(stack, folder / "state", reconcile_metrics_port=0, api_port=0) as settings,
        socket.create_server(("", 0)) as free,
    ):
        port = free.getsockname()[1]
        free.close()
        services = {name: commands.start(settings, *arguments) for name, arguments in SERVICES.items()}
        config = folder / "prometheus.yml"
        config.write_text(yaml.safe_dump(configuration({name: address(each) for name, each in services.items()})))
        with (folder / "prometheus.log").open("wb") as log:
            started = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={config}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=log,
                stderr=log,
            )
        try:
            asked = Prometheus(f"http://127.0.0.1:{port}")
            eventually(asked.ready, 30, lambda: (folder / "prometheus.log").read_text())
            events = simulated(2 * EVENTS)
            events[0]["device_type"] = "hologram"
            for each in events[:EVENTS]:  # old enough to be evaluated
                each["transaction_timestamp"] = utc_now() - timedelta(days=60)
            for stored in (EVENTS, 2 * EVENTS):  # a rate needs two looks
                half = events[stored - EVENTS : stored]
                send_events(settings, half)
                send(settings, settings.topic_transactions, [{"value": encoded(half[0], amount=-1.0)}])
                send_outcomes(
                    settings, [outcome(each["transaction_id"], defaulted=n % 4 == 0) for n, each in enumerate(half)]
                )
                wait_stored(settings, stored)
                seen = f'bnpl_sink_rows_total{{table="shadow_scores", result="ok"}} >= {stored}'
                eventually(partial(asked.query, seen), 20, seen)
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"http://{address(services['api'])}/v1/nothing", timeout=10)
            eventually(lambda: asked.query("bnpl_drift_window_rows > 0"), 30, "drift was measured")
            eventually(lambda: asked.query("bnpl_outcome_coverage_ratio > 0"), 30, "outcomes were evaluated")
            eventually(lambda: asked.query("sum(bnpl_api_refused_total)"), 20, "a refusal was scraped")
            eventually(lambda: asked.query(LATE_FIRES), 20, LATE_FIRES)
            yield asked
        finally:
            started.terminate()
            started.wait(20)
            commands.kill_all()


def test_every_target_of_the_configuration_is_reached(prometheus: Prometheus) -> None:
    up = {(each["metric"]["service"], each["value"][1]) for each in prometheus.query('up{job="bnpl"}')}
    assert up == {(name, "1") for name in SERVICES}


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
    asked = [(where, with_variables(expression, "10s")) for where, expression in expressions(dashboard)]
    assert {where for where, expression in asked if not prometheus.query(expression)} == NOTHING_TO_SHOW[dashboard.stem]
