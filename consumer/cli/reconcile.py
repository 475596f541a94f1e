"""`bnpl-shadow reconcile`: the proof, on a running system."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

import click

from consumer import logs
from consumer.cli.progress import progress
from consumer.cli.reconcile_report import document, line, report
from consumer.cli.signals import interrupt_on_terminate
from consumer.cli.when import Since
from consumer.clock import utc_now
from consumer.errors import TRY_AGAIN, Retryable
from consumer.settings import Settings, load_settings
from consumer.watch.outcomes import count_outcomes
from consumer.watch.reconcile.reconcile import Reconciliation, reconcile
from consumer.watch.reconcile.repeat import Repeated
from consumer.watch.server import StatusServer


@click.command("reconcile")
@click.option("--since", type=Since(), help="Only what came into Kafka since then: 30m, 6h, 2d or an ISO time.")
@click.option(
    "--every",
    type=click.FloatRange(1),
    metavar="SECONDS",
    help="Go on until Ctrl-C, a line each time, with gauges on BNPL_RECONCILE_METRICS_PORT; --since moves along.",
)
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object, with --every one a line.")
def command(since: datetime | None, every: float | None, as_json: bool) -> None:
    """Prove that every transaction has exactly one shadow event or dead letter, and every prediction its row.

    Compares topics and table by partition and offset, on a running system, without stopping or moving anything. What
    score or sink have yet to commit is on its way, and no fault.

    \b
    lost           a transaction that score passed, without shadow event and dead letter
    twice          a transaction with two of the same
    unknown        an event or letter of a transaction that is not in the topic
    not stored     a prediction that sink passed, without a row
    rows too many  a row without a shadow event of its own

    Reads all that the topics hold; --since bounds it. Exits 0 when it holds, 1 when it does not, 75 when Kafka or
    ClickHouse could not be asked. With --every, the last result says so.
    """
    settings = load_settings()
    logs.configure("critical", "reconcile")  # what the clients complain of, the result says
    interrupt_on_terminate()
    if every is None:
        found = _once(settings, since)
        click.echo(json.dumps(document(found), indent=2) if as_json else report(found))
        sys.exit(not found.holds)
    sys.exit(_again_and_again(settings, since, every, as_json))


def _once(settings: Settings, since: datetime | None) -> Reconciliation:
    with progress() as bars:
        tasks: dict[str, Any] = {}

        def show(topic: str, done: int, total: int) -> None:
            if topic not in tasks:
                tasks[topic] = bars.add_task(f"reading {topic}")
            bars.update(tasks[topic], completed=done, total=total)

        return reconcile(settings, since=since, progress=show)


def _again_and_again(settings: Settings, since: datetime | None, every: float, as_json: bool) -> int:
    """Until Ctrl-C; the exit code that the last result has."""
    window = utc_now() - since if since else None
    code = 0
    repeated = Repeated(
        lambda: _once(settings, utc_now() - window if window else None), lambda: count_outcomes(settings)
    )
    port = settings.reconcile_metrics_port
    with StatusServer(settings.metrics_host, port, "BNPL_RECONCILE_METRICS_PORT") as server:
        server.show(repeated.metrics, repeated)
        click.echo(f"metrics: {server.url}/metrics", err=True)
        try:
            for found in repeated.every(every):
                click.echo(json.dumps(document(found)) if as_json else line(found))
                code = TRY_AGAIN if isinstance(found, Retryable) else int(not found.holds)
        except KeyboardInterrupt:
            pass
    return code
