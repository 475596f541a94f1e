"""`bnpl-shadow rescore`: history again, with other models."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import datetime

import click

from consumer import logs
from consumer.cli.progress import progress
from consumer.cli.signals import stop_on_signals
from consumer.cli.when import Since
from consumer.clock import utc_now
from consumer.errors import ConfigurationError, Fatal
from consumer.scoring.load import load_controller
from consumer.services.rescore import Rescored, rescore
from consumer.settings import load_settings
from consumer.watch.records import TopicReader


@click.command("rescore")
@click.option(
    "--from", "since", type=Since(), required=True, help="Where to begin, by Kafka's time: 6h, 2d or an ISO time."
)
@click.option("--to", "until", type=Since(), help="Where to end, the same way.  [default: now]")
@click.option("--artifacts", "version", required=True, help="Version of the models, a folder of artifacts/.")
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object.")
def command(since: datetime, until: datetime | None, version: str, as_json: bool) -> None:
    """Score the transactions of a time again with the models of another artifact version.

    Their shadow events go to bnpl.shadow-scores like live ones, exactly once, under their own prediction ids: the
    sink stores them as rows beside the live ones, told apart by artifact_version. It works in a group of its own;
    the live services and their offsets are not touched. Transactions that cannot be scored are counted, and get no
    second dead letter.

    Ctrl-C stops in order; the same command, with the time that it shows, goes on from there. Two ranges that begin
    at different times and overlap score what they share twice (one row each all the same).

    \b
    Example:
      bnpl-shadow rescore --from 2026-11-01 --to 2026-11-08 --artifacts v2
    """
    settings = load_settings()
    logs.configure("warning", "rescore")
    live, controller = load_controller(settings), load_controller(load_settings(artifact_version=version))
    if controller.identity == live.identity:
        raise ConfigurationError(
            f"{version} is what scores live: its scores would be the same predictions again; name another version"
        )
    until = until or utc_now()
    if since >= until:
        raise click.UsageError(f"--from {since.isoformat()} is not before --to {until.isoformat()}")
    with TopicReader(settings) as reader:
        ranges = reader.held(settings.topic_transactions, since, until)
    if not any(begin < end for begin, end in ranges.values()):
        raise Fatal(f"{settings.topic_transactions} holds nothing between {since.isoformat()} and {until.isoformat()}")
    with progress() as bars:
        task = bars.add_task(f"rescoring with {version}")
        done = rescore(
            settings,
            controller,
            since,
            ranges,
            stop_on_signals(),
            lambda at, of: bars.update(task, completed=at, total=of),
        )
    click.echo(json.dumps(asdict(done)) if as_json else _summary(done, since, until, version))
    if not done.finished:
        sys.exit(130)


def _summary(done: Rescored, since: datetime, until: datetime, version: str) -> str:
    lines = [f"scored {done.scored:,} transactions with {version}, as group {done.group}"]
    if done.refused:
        lines.append("not scored: " + ", ".join(f"{reason} {count:,}" for reason, count in done.refused.items()))
    if not done.finished:
        again = f"--from {since.isoformat()} --to {until.isoformat()} --artifacts {version}"
        lines.append(f"stopped before the end; `bnpl-shadow rescore {again}` goes on")
    return "\n".join(lines)
