"""`bnpl-shadow check`: everything that could keep the services from working rightly, all at once."""

from __future__ import annotations

import json
import logging
import sys
import textwrap
from dataclasses import asdict

import click

from consumer.errors import TRY_AGAIN
from consumer.settings import load_settings
from consumer.watch.check.check import check
from consumer.watch.check.finding import Finding, all_pass
from consumer.watch.check.timeouts import Service

_WIDTH = 110
_COLOURS = {"ok": "green", "warning": "yellow", "fault": "red"}


@click.command("check")
@click.option(
    "--for",
    "service",
    type=click.Choice(["score", "sink"]),
    help="Only what this service needs; without it, everything.",
)
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object with every finding.")
def command(service: Service | None, as_json: bool) -> None:
    """Look at Kafka, its topics, schemas, ClickHouse, models, timeouts and clocks; print every fault with its remedy.

    Changes nothing. A warning is a promise weaker than wanted; a fault would lose or stop something, and the services
    refuse to start on it. Takes a few seconds, up to 15 when nothing answers. Exits 0 without faults, 75 when all of
    them may pass by themselves (a broker that is starting), else 1.
    """
    settings = load_settings()
    logging.disable()  # what the clients log is told here, more clearly
    findings = check(settings, service)
    faults = [each for each in findings if each.level == "fault"]
    if as_json:
        click.echo(json.dumps({"ok": not faults, "findings": [asdict(each) for each in findings]}, indent=2))
    else:
        for each in findings:
            click.echo(_lines(each))
        click.echo(_summary(findings))
    if faults:
        sys.exit(TRY_AGAIN if all_pass(faults) else 1)


def _lines(finding: Finding) -> str:
    head = f"{finding.level:8} {finding.part:11} "
    indent = " " * len(head)
    lines = textwrap.wrap(finding.what, _WIDTH - len(head), break_long_words=False, break_on_hyphens=False)
    if finding.remedy:
        remedy = f"→ {finding.remedy}"
        lines += textwrap.wrap(remedy, _WIDTH - len(head), subsequent_indent="  ", break_on_hyphens=False)
    text = f"\n{indent}".join(lines)
    return click.style(f"{finding.level:8}", fg=_COLOURS[finding.level]) + head[8:] + text


def _summary(findings: list[Finding]) -> str:
    count = {level: sum(each.level == level for each in findings) for level in _COLOURS}
    faults, warnings = count["fault"], count["warning"]
    told = [f"{faults} fault{'s' * (faults != 1)}", f"{warnings} warning{'s' * (warnings != 1)}"]
    return f"\n{', '.join(told)}, {count['ok']} well"
