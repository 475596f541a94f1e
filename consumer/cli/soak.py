"""`bnpl-shadow soak`: a long steady run that shows whether anything grows."""

from __future__ import annotations

import json
from pathlib import Path

import click

from consumer import logs
from consumer.cli.signals import interrupt_on_terminate
from consumer.errors import Fatal
from consumer.system.soak import run_soak


@click.command("soak")
@click.option("--minutes", type=click.FloatRange(1), default=30, show_default=True, help="How long.")
@click.option("--rate", type=click.IntRange(100), default=5000, show_default=True, help="Events a second.")
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Also write it to this Markdown file.")
@click.option("--busy", is_flag=True, help="Measure also on a machine that is busy with other work.")
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object.")
def command(minutes: float, rate: int, report: Path | None, busy: bool, as_json: bool) -> None:
    """Let one score and one sink work steadily, and see whether memory, file descriptors or lag grow.

    Samples both every 5 s. At the end every record that Kafka acknowledged is compared with the topics and the table,
    as `bnpl-shadow faults` does. Starts its own Kafka and ClickHouse in a temporary folder and leaves nothing behind.
    All events stay on disk until they are proved, and it refuses a disk that cannot hold them. Exits 1 when something
    grows, was lost or done twice.
    """
    logs.configure("error", "soak")
    interrupt_on_terminate()
    found = run_soak(minutes, rate, _say, busy_too=busy)
    if report:
        report.write_text("\n".join(found.lines()) + "\n")
    click.echo(json.dumps(found.as_json()) if as_json else "\n".join(found.lines()))
    if not found.good:
        raise Fatal("something grows" if found.outcome.holds else "something was lost, done twice or changed")


def _say(line: str) -> None:
    click.echo(line, err=True)
