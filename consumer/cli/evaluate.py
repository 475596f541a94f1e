"""`bnpl-shadow evaluate`: rules and models on the same matured rows, and what that allows to say."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from consumer import logs
from consumer.champion import evaluations
from consumer.champion.dossier import document, to_bytes
from consumer.champion.evaluate import Evaluated, evaluate_scope, read_terms
from consumer.champion.job import EvaluateJob
from consumer.champion.scope import Scope
from consumer.cli.evaluate_report import report
from consumer.cli.progress import progress
from consumer.cli.signals import interrupt_on_terminate
from consumer.cli.when import AsOf, Since
from consumer.clock import utc_now
from consumer.services.clickhouse import connect
from consumer.settings import Settings, load_settings
from consumer.watch.server import StatusServer

Options = dict[str, Any]


def scope_options(command: Any) -> Any:
    """The options that say what is evaluated."""
    for option in (
        click.option("--label", help="Label horizon.  [default: the policy's]"),
        click.option("--as-of", type=AsOf(), help="Only what was known then: 2026-11-20, or 7d ago.  [default: now]"),
        click.option("--since", type=Since(), help="Only transactions since then; weeks count from it."),
        click.option("--until", type=Since(), help="Only transactions before then."),
        click.option("--artifact", help="Version of the models.  [default: BNPL_ARTIFACT_VERSION, or v1]"),
    ):
        command = option(command)
    return command


@click.command("evaluate")
@scope_options
@click.option("--json", "as_json", is_flag=True, help="For programs: the dossier as one JSON object.")
@click.option(
    "--every",
    type=click.FloatRange(1, 86_400),
    metavar="SECONDS",
    help="Be the job: evaluate as of now until stopped, at most so often, and store each result.",
)
@click.option(
    "--store", is_flag=True, help="Also keep it, for API and dashboard, which prefer one of all transactions."
)
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Also write a report with plots there.")
def command(as_json: bool, every: float | None, store: bool, html: Path | None, **scope: Any) -> None:
    """Compare every model with the rules, and with the champion, on the same transactions whose outcome is known.

    A transaction counts when its label horizon and grace are over, and only with what was known by --as-of. Models
    are compared at the rules' own flagged share, with thresholds that no outcome has a part in. Figures come with
    intervals; below the policy's coverage, weeks or counts there is no verdict.

    \b
    better        by more than the margin, after correction for all models and looks
    worse         the same the other way round
    equivalent    the difference lies within the margin
    continue      neither is shown yet, and looks are left
    inconclusive  neither is shown, and no look is left

    With --every it judges by the policy's label, and makes no evaluation again while day, rows and terms are the same.
    It shows gauges, /livez and /readyz on port BNPL_EVALUATE_METRICS_PORT; SIGTERM or Ctrl-C ends it at once.

    Exits 0 whatever the verdict is; 1 when there is nothing to evaluate, 75 when ClickHouse does not answer.
    """
    if every is not None and (as_json or store or html or any(scope.values())):
        raise click.UsageError("--every evaluates as of now by the policy, and stores: leave out the other options")
    settings = load_settings()
    interrupt_on_terminate()
    if every is not None:
        _repeat(settings, every)
        return
    logs.configure("critical", "evaluate")
    evaluated = evaluated_scope(settings, **scope)
    told = document(evaluated)
    if store:
        with connect(settings) as client:
            evaluations.store(client, told, evaluated.curves)
    if html is not None:
        from consumer.champion.report.html import write_html  # matplotlib takes a second to load

        write_html(told, html)
        click.echo(f"report: {html}", err=True)
    click.echo(to_bytes(told) if as_json else report(told), nl=not as_json)


def _repeat(settings: Settings, every: float) -> None:
    logs.configure(settings.log_level, "evaluate")
    port = settings.evaluate_metrics_port
    with (
        suppress(KeyboardInterrupt),
        StatusServer(settings.metrics_host, port, "BNPL_EVALUATE_METRICS_PORT") as server,
    ):
        job = EvaluateJob(settings)
        server.show(job.metrics, job)
        job.run(every)


def evaluated_scope(
    settings: Settings,
    label: str | None,
    as_of: datetime | None,
    since: datetime | None,
    until: datetime | None,
    artifact: str | None,
) -> Evaluated:
    """What the options ask for, with its progress on a terminal."""
    version = artifact or settings.artifact_version
    terms = read_terms(settings, version, label)
    with progress() as bars:
        task = bars.add_task("reading", total=None)
        return evaluate_scope(
            settings,
            Scope(as_of or utc_now(), version, since, until),
            terms,
            lambda step, rows: bars.update(task, description=f"{step} {rows:,} transactions"),
        )
