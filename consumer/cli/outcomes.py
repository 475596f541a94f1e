"""`bnpl-shadow outcomes`: what became of the transactions, weeks later."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import BinaryIO, cast

import click
from rich.console import Console
from rich.table import Table

from consumer import logs
from consumer.cli.bad_lines import BadLines, reading
from consumer.cli.progress import progress
from consumer.services.lines import unpacked
from consumer.services.outcomes import Format, OutcomeSender, read_lines
from consumer.settings import load_settings
from consumer.watch.outcomes import LabelCounts, count_outcomes


@click.group()
def outcomes() -> None:
    """Send what became of transactions, and see what was made of it."""


@outcomes.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option(
    "--format",
    "told_as",
    type=click.Choice(["jsonl", "csv"]),
    help="What the lines are.  [default: csv where the name says so, else jsonl]",
)
@click.option("--json", "as_json", is_flag=True, help="For programs: the summary as one JSON object.")
def load(file: Path, told_as: Format | None, as_json: bool) -> None:
    """Send the outcomes of FILE (JSON lines or CSV, .gz unpacked; - reads stdin) to bnpl.outcomes.

    A line needs the fields of schemas/outcome.v1.avsc: transaction_id, label (first_payment, d28, d42 or
    full_term), defaulted (true or false), observed_at, source and version; days_to_resolution, loss_amount and
    transaction_timestamp may be absent. CSV names them in its first line. A line that is no outcome goes to
    bnpl.outcomes.dlq with its reason, and the others are sent. Lines with will_default, as `bnpl-shadow
    simulate` writes them, are transactions and no outcomes.

    A file may be sent again: the same outcome replaces itself.

    Exits 0 when the broker acknowledged everything.

    \b
    Examples:
      bnpl-shadow outcomes load outcomes-2026-07.csv.gz
      export-outcomes | bnpl-shadow outcomes load - --format csv
    """
    settings = load_settings()
    logs.configure(settings.log_level, "outcomes")
    sender, bad, started = OutcomeSender(settings), BadLines(), time.monotonic()
    told_as = told_as or ("csv" if ".csv" in file.suffixes else "jsonl")
    code = 0
    try:
        with reading(file, sender, "outcomes"), click.open_file(str(file), "rb") as raw:
            _send(cast(BinaryIO, raw), file, told_as, sender, bad)
    except KeyboardInterrupt:
        click.echo("interrupted: waiting for what is under way", err=True)
        code = 130
    sender.flush()
    _summarise(file, sender, bad, time.monotonic() - started, as_json)
    sys.exit(code)


def _send(raw: BinaryIO, file: Path, told_as: Format, sender: OutcomeSender, bad: BadLines) -> None:
    size = file.stat().st_size if file.is_file() else None
    with unpacked(raw, file.name) as stream, progress() as shown:
        task = shown.add_task(f"sending {file.name}", total=size)
        for lines in read_lines(stream, told_as):
            bad.refuse(sender, lines.bad)
            sender.send(lines.batch)
            shown.update(task, completed=raw.tell() if size else None, description=f"sent {sender.sent:,}")


@outcomes.command()
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object.")
def status(as_json: bool) -> None:
    """Show what was made of the outcomes, by label. Each transaction with an outcome is one of the first three.

    \b
    matched    it has a prediction and was financed
    orphaned   it has no prediction: that is yet to come, or nobody knows the transaction
    declined   every prediction says that checkout declined, and yet an outcome came
    corrected  a later version replaced an earlier one
    cured      it was said to have defaulted, and is no more
    repeated   records that told a version again (records, not transactions)

    Asks ClickHouse for both tables as they are now; docs/outcomes.md says what becomes of each.
    """
    settings = load_settings()
    logs.configure(settings.log_level, "outcomes")
    found = count_outcomes(settings)
    if as_json:
        click.echo(json.dumps({"labels": [asdict(each) for each in found]}))
        return
    names = [each.name for each in fields(LabelCounts)]
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name, justify="left" if name == "label" else "right")
    for counts in found:
        table.add_row(counts.label, *(f"{getattr(counts, name):,}" for name in names[1:]))
    Console().print(table if found else "no outcome was stored yet")


def _summarise(file: Path, sender: OutcomeSender, bad: BadLines, seconds: float, as_json: bool) -> None:
    if as_json:
        summary = {
            "file": file.name,
            "sent": sender.sent,
            "dead_letters": sender.dead_letters,
            "errors": dict(bad.errors),
            "seconds": round(seconds, 3),
        }
        click.echo(json.dumps(summary))
        return
    click.echo(f"sent {sender.sent:,} outcomes in {seconds:.1f} s ({sender.sent / seconds:,.0f} a second)")
    bad.tell("outcomes")
