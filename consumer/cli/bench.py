"""`bnpl-shadow bench`: the figures of docs/benchmarks.md, measured on this machine."""

from __future__ import annotations

import json

import click

from consumer import logs
from consumer.cli.signals import interrupt_on_terminate
from consumer.system.bench.run import PARTS, Extent, run_bench


@click.command("bench")
@click.argument("parts", nargs=-1, type=click.Choice(PARTS))
@click.option(
    "--events", type=click.IntRange(100_000), default=1_200_000, show_default=True, help="In a round's steady state."
)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Of score, sink and outcomes.")
@click.option("--backlog", type=click.IntRange(100_000), default=2_000_000, show_default=True, help="For memory.")
@click.option("--rate", type=click.IntRange(100), default=10_000, show_default=True, help="For freshness, a second.")
@click.option(
    "--seconds", type=click.IntRange(5), default=60, show_default=True, help="For freshness; half of it for api."
)
@click.option("--calls", type=click.IntRange(100), default=5_000, show_default=True, help="For single.")
@click.option("--busy", is_flag=True, help="Measure also on a machine that is busy with other work.")
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object.")
def command(
    parts: tuple[str, ...],
    events: int,
    rounds: int,
    backlog: int,
    rate: int,
    seconds: int,
    calls: int,
    busy: bool,
    as_json: bool,
) -> None:
    """Measure PARTS (all, when none is named) on a stack and a load of their own; takes about 7 minutes.

    \b
    score      events a second, exactly once, against a pass-through that only copies bytes; stages of the loop
    freshness  from produce to readable by a read_committed reader, at a steady rate
    memory     of the score process over a long backlog
    sink       rows of shadow events a second into the local ClickHouse
    outcomes   rows of outcomes a second
    evaluate   a million scored transactions with their outcomes, by the command; seconds and memory
    api        POST /v1/score of one transaction on one worker, against an echo of the same JSON; times at half load
    single     one predict_single_transaction
    naive      the same by a pandas row and four predict_proba: what a notebook does

    Starts Kafka and ClickHouse in a temporary folder, makes its own events, and leaves nothing behind. Figures of a
    busy machine mean little: it refuses to start on one, and says how much other work there was meanwhile.
    """
    logs.configure("error", "bench")
    interrupt_on_terminate()
    extent = Extent(events, rounds, backlog, rate, seconds, calls)
    report = run_bench(parts or PARTS, extent, _say, busy_too=busy)
    if as_json:
        click.echo(json.dumps(report.as_json()))
    else:
        for line in report.lines():
            click.echo(line)


def _say(line: str) -> None:
    click.echo(line, err=True)
