"""`bnpl-shadow drift`: has traffic moved away from training, and the service that keeps the answer current."""

from __future__ import annotations

import json
import sys
from datetime import datetime

import click

from consumer import logs
from consumer.cli.drift_report import report
from consumer.cli.signals import stop_on_signals
from consumer.clock import utc_now
from consumer.services.clickhouse import PATIENT_SECONDS, connect
from consumer.services.drift.export import load_export
from consumer.services.drift.look import WINDOW_DAYS, document, look
from consumer.services.drift.service import DriftService, group_of
from consumer.settings import Settings, load_settings
from consumer.watch.server import StatusServer, watched


@click.command("drift")
@click.option(
    "--as-of",
    type=click.DateTime(["%Y-%m-%d"]),
    help="Look at the full days before this one (UTC).  [default: today]",
)
@click.option("--days", type=click.IntRange(1, 366), default=WINDOW_DAYS, show_default=True, help="How many of them.")
@click.option(
    "--every",
    type=click.FloatRange(1, 3600),
    metavar="SECONDS",
    help="Be the service: count transactions until stopped, and measure when they change, at most so often.",
)
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object with all of it.")
def command(as_of: datetime | None, days: int, every: float | None, as_json: bool) -> None:
    """Compare the last full week of traffic with what the models were trained on.

    Features, scores and flags against the bins of the export (BNPL_ARTIFACT_VERSION), and defaults against scores where
    outcomes are known. A state needs two windows in a row, each a day later than the other. docs/drift.md says how to
    read it. Reads what `bnpl-shadow drift --every 60` has counted, and the stored scores.

    \b
    ok       nothing to do
    warning  PSI of 0.10 and more, and more than chance
    alarm    PSI of 0.25 and more, and more than chance
    muted    moves by construction, as the calendar does: never alarmed

    With --every it reads bnpl.transactions in a group of its own, stores counts and results in ClickHouse, and shows
    gauges, /livez and /readyz on port BNPL_DRIFT_METRICS_PORT. SIGTERM or Ctrl-C stores what is counted.

    Exits 0 when nothing alarms, 1 on an alarm or when nothing can be judged, 75 when ClickHouse does not answer.
    """
    settings = load_settings()
    if every is not None:
        if as_of or as_json or days != WINDOW_DAYS:
            raise click.UsageError(
                "--every measures the last full week as metrics and rows: leave out the other options"
            )
        _serve(settings, every)
        return
    export = load_export(settings)
    with connect(settings, PATIENT_SECONDS) as client:
        found = look(client, export, as_of.date() if as_of else utc_now().date(), days)
    click.echo(json.dumps(document(found), indent=2, default=str) if as_json else report(found))
    sys.exit(int(not found.judged or found.worst >= 2))


def _serve(settings: Settings, every: float) -> None:
    logs.configure(settings.log_level, "drift")
    stop = stop_on_signals()
    with StatusServer(settings.metrics_host, settings.drift_metrics_port, "BNPL_DRIFT_METRICS_PORT") as server:
        export = load_export(settings)
        service = DriftService(settings, export, every)
        group = group_of(settings, export)
        with watched(service, server, settings, group, [settings.topic_transactions], stores=True):
            service.run(stop)
