"""`bnpl-shadow trace`: one transaction's way through the system, or where it got stuck."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import asdict
from datetime import datetime
from typing import Any

import click

from consumer.cli.progress import progress
from consumer.cli.since import Since
from consumer.cli.trace_report import report
from consumer.errors import TRY_AGAIN
from consumer.settings import load_settings
from consumer.watch.trace.trace import trace


@click.command("trace")
@click.argument("transaction_id")
@click.option("--since", type=Since(), help="Search only what came into Kafka since then: 30m, 6h, 2d or an ISO time.")
@click.option("--all", "everything", is_flag=True, help="Search to the end, for further sendings of the same id.")
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object with all of it.")
def command(transaction_id: str, since: datetime | None, everything: bool, as_json: bool) -> None:
    """Follow one transaction: event, decision with reasons, features, scores, shadow event, row, outcome.

    Tells where it got stuck: not in Kafka, waiting for score, a dead letter, waiting for the sink. A stored one is
    found at once by its row; others are searched, the newest records first. Needs no running service and changes
    nothing. The customer's id is never shown.

    Exits 1 when the id is unknown, 75 when Kafka or ClickHouse could not be asked.
    """
    settings = load_settings()
    logging.disable()  # nothing of a transaction goes to a log, also not by way of a library
    with progress() as bars:
        tasks: dict[str, Any] = {}

        def show(topic: str, done: int, total: int) -> None:
            if topic not in tasks:
                tasks[topic] = bars.add_task(f"searching {topic}")
            bars.update(tasks[topic], completed=done, total=total)

        found = trace(settings, transaction_id, since=since, everything=everything, progress=show)
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2, default=_plain))
    elif found.sendings:
        click.echo(report(found))
    for part, why in found.away.items():
        click.echo(f"could not be asked: {why if why.startswith(part) else f'{part}: {why}'}", err=True)
    if not found.sendings and not found.away:
        click.echo(f"error: no transaction, dead letter or score with this id; {found.searched}", err=True)
    if found.away or not found.sendings:
        sys.exit(TRY_AGAIN if found.away and found.away_passes else 1)


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
