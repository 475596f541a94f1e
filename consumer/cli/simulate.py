"""`bnpl-shadow simulate`: write made-up transactions with their outcomes."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, cast

import click

from consumer.cli.progress import progress
from consumer.research.simulate import SimulationConfig, json_lines, simulate


@click.command("simulate")
@click.option("--events", type=click.IntRange(1), default=100_000, show_default=True, help="How many transactions.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Same seed, same bytes.")
@click.option(
    "--start",
    type=click.DateTime(["%Y-%m-%d"]),
    default="2026-06-01",
    show_default=True,
    help="First day, UTC.",
)
@click.option("--days", type=click.IntRange(1), default=92, show_default=True, help="How many days they span.")
@click.option(
    "--customers",
    type=click.IntRange(1),
    help="How many customers there are.  [default: one to eight events]",
)
@click.option(
    "--outcomes/--no-outcomes",
    default=True,
    show_default=True,
    help=(
        "Whether rows say will_default and days_to_first_missed_payment, as research data does and"
        " live events never do."
    ),
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="File to write, JSON lines; .gz compresses. An existing file is replaced.",
)
def command(
    events: int, seed: int, start: datetime, days: int, customers: int | None, outcomes: bool, output: Path
) -> None:
    """Write seeded, plausible transactions as JSON lines, in order of time.

    About 5 % of customers miss a payment, weakly foretold by the risk score; purchases follow the hour and
    the weekday; customers come back. A few transactions are declined at checkout: nobody learns their
    outcome, so theirs is null.

    \b
    Examples:
      bnpl-shadow simulate --events 120000 --seed 7 -o research.jsonl.gz
      bnpl-shadow simulate --events 1000 --no-outcomes -o live.jsonl
    """
    config = SimulationConfig(events, seed, start.date(), days, customers, outcomes)
    with progress() as shown, _whole_file(output) as stream:
        task = shown.add_task("simulating", total=events)
        for batch in simulate(config):
            stream.write(json_lines(batch))
            shown.advance(task, batch.num_rows)
    click.echo(f"{events:,} transactions over {days} day{'s' * (days != 1)} written to {output}", err=True)


@contextmanager
def _whole_file(path: Path) -> Iterator[BinaryIO]:
    """A stream whose content becomes `path` at the end; an error or interrupt leaves `path` as it was."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as raw:
            if path.suffix == ".gz":
                # no name and time in the header, so that the same events are the same bytes
                with gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=1, mtime=0) as packed:
                    yield cast(BinaryIO, packed)
            else:
                yield raw
        partial.replace(path)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
