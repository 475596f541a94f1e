"""Prometheus takes our rules; each alert fires and is silent where it should, leads somewhere, and can be asked."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import click
import pytest
import yaml
from exported import PROMETHEUS, faults, rules

from consumer.cli.main import cli
from consumer.settings import PROJECT, Settings
from consumer.system.services import SERVICES

ALERTS = rules("alert_rules.yml")
RECORDED = rules("recording_rules.yml")
CASES = sorted((PROMETHEUS / "tests").glob("*.yml"))
RUNBOOK = (PROJECT / "docs" / "runbook.md").read_text()

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool: apt-get install prometheus")


def promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_takes_the_configuration_and_both_files_of_rules() -> None:
    promtool("check", "config", "prometheus.yml")


def test_what_is_scraped_is_what_run_keeps_running_at_the_ports_it_has_if_not_told_otherwise() -> None:
    (job,) = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    scraped = {each["labels"]["service"]: each["targets"] for each in job["static_configs"]}
    served = {each.name: f"127.0.0.1:{Settings.model_fields[each.port].default}" for each in SERVICES}
    assert scraped == {name: [at] for name, at in served.items() if name != "dashboard"}, "which exports nothing"


@needs_promtool
def test_every_case_comes_out_as_it_says() -> None:
    promtool("test", "rules", *map(str, CASES))


def cases() -> Iterator[tuple[str, bool]]:
    """Every case of an alert: its name, and whether it should fire."""
    for file in CASES:
        for test in yaml.safe_load(file.read_text())["tests"]:
            for case in test.get("alert_rule_test", ()):
                yield case["alertname"], bool(case.get("exp_alerts"))


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_has_cases_of_both_kinds_and_a_section_of_the_runbook(alert: dict[str, Any]) -> None:
    name = alert["alert"]
    assert {fires for alertname, fires in cases() if alertname == name} == {True, False}
    assert alert["labels"] == {"severity": alert["labels"]["severity"]}
    assert alert["labels"]["severity"] in ("page", "ticket")
    assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"
    assert f"\n### {name}\n" in RUNBOOK


def test_nothing_is_said_of_alerts_that_there_are_not() -> None:
    names = [alert["alert"] for alert in ALERTS]
    assert len(set(names)) == len(names)
    assert {alertname for alertname, _ in cases()} == set(names)
    assert re.findall(r"^### (Bnpl\w+)$", RUNBOOK, re.M) == names, "the runbook has the order of the rules"


@pytest.mark.parametrize("rule", ALERTS + RECORDED, ids=lambda rule: rule.get("alert") or rule.get("record"))
def test_a_rule_asks_for_what_the_services_export(rule: dict[str, Any]) -> None:
    recorded = {
        "kminion_kafka_consumer_group_topic_partition_lag": {"group_id", "topic_name", "partition_id"},
    }
    assert faults(rule["expr"], recorded=recorded) == []


def test_every_recorded_name_has_a_case() -> None:
    tested = yaml.safe_load((PROMETHEUS / "tests" / "recording_rules.yml").read_text())["tests"][0]["promql_expr_test"]
    assert {case["expr"] for case in tested} == {rule["record"] for rule in RECORDED}


def runbook_commands() -> list[str]:
    """Every line of its blocks and every command in its text."""
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", RUNBOOK, re.S))
    return sorted({*filter(None, blocks.splitlines()), *re.findall(r"`(bnpl-shadow [^`]+)`", RUNBOOK)})


@pytest.mark.parametrize("line", runbook_commands())
def test_a_command_of_the_runbook_is_one_with_these_options(line: str) -> None:
    program, *arguments = shlex.split(line.replace("PARTITION/OFFSET", "0/17"))
    if program == "curl":
        (port,) = re.findall(r":(\d+)/readyz$", line)
        assert int(port) in dict(Settings()).values()
        return
    assert program == "bnpl-shadow"
    command: click.Command = cli
    with ExitStack() as parsed:
        context = click.Context(cli)
        while isinstance(command, click.Group):
            inner = command.get_command(context, arguments.pop(0))
            assert inner, line
            command = inner
        parsed.enter_context(command.make_context(line, arguments, context))  # raises for what it does not take
