"""`bnpl-shadow produce`: send a file of transactions."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path

import click

from consumer import logs
from consumer.cli.bad_lines import BadLines, reading
from consumer.cli.progress import progress
from consumer.services.lines import unpacked
from consumer.services.produce import Pace, TransactionSender, new_ids, read_lines
from consumer.settings import load_settings


@click.command("produce")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Events a second.  [default: as fast as it goes]",
)
@click.option(
    "--loop",
    is_flag=True,
    help="Start over at the end, each turn under transaction ids of its own, until stopped.",
)
@click.option("--json", "as_json", is_flag=True, help="For programs: the summary as one JSON object.")
def command(file: Path, rate: float | None, loop: bool, as_json: bool) -> None:
    """Send the transactions of FILE (JSON lines, .gz unpacked) to bnpl.transactions.

    A line needs the fields of schemas/transaction.v2.avsc; fields it does not know are left out. Labels
    (will_default, days_to_first_missed_payment) are stripped and counted: a live event never knows them. A
    line that is no transaction goes to the dead-letter topic with its reason, and the others are sent.

    Exits 0 when the broker acknowledged everything.

    \b
    Examples:
      bnpl-shadow produce transactions.jsonl.gz
      bnpl-shadow produce transactions.jsonl --rate 500 --loop
    """
    settings = load_settings()
    logs.configure(settings.log_level, "produce")
    sender, pace = TransactionSender(settings), Pace(rate)
    bad, labels = BadLines(), Counter[str]()
    started, turn = time.monotonic(), 1
    try:
        while True:
            _send_file(file, turn, sender, pace, bad, labels)
            if not loop:
                break
            turn += 1
    except KeyboardInterrupt:
        click.echo("interrupted: waiting for what is under way", err=True)
        sender.flush()
        _summarise(file, sender, bad, labels, time.monotonic() - started, as_json)
        sys.exit(130)
    sender.flush()
    _summarise(file, sender, bad, labels, time.monotonic() - started, as_json)


def _send_file(
    file: Path, turn: int, sender: TransactionSender, pace: Pace, bad: BadLines, labels: Counter[str]
) -> None:
    with (
        reading(file, sender, "transactions"),
        file.open("rb") as raw,
        unpacked(raw, file.name) as stream,
        progress() as shown,
    ):
        task = shown.add_task(f"sending {file.name}", total=file.stat().st_size)
        for lines in read_lines(stream):
            labels.update(lines.labels)
            bad.refuse(sender, lines.bad)
            for piece in pace.slices(lines.batch if turn == 1 else new_ids(lines.batch, turn)):
                sender.send(piece)
            shown.update(task, completed=raw.tell(), description=f"sent {sender.sent:,}")


def _summarise(
    file: Path, sender: TransactionSender, bad: BadLines, labels: Counter[str], seconds: float, as_json: bool
) -> None:
    if as_json:
        summary = {
            "file": file.name,
            "sent": sender.sent,
            "dead_letters": sender.dead_letters,
            "errors": dict(bad.errors),
            "labels_stripped": dict(labels),
            "seconds": round(seconds, 3),
        }
        click.echo(json.dumps(summary))
        return
    click.echo(f"sent {sender.sent:,} transactions in {seconds:.1f} s ({sender.sent / seconds:,.0f} a second)")
    if any(labels.values()):
        click.echo("labels stripped: " + ", ".join(f"{name} {count:,}" for name, count in labels.items()))
    bad.tell("transactions")
