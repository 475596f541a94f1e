"""`bnpl-shadow faults`: everything that may die or misbehave does, and a ledger proves that nothing was lost."""

from __future__ import annotations

import json
import logging

import click

from consumer import logs
from consumer.cli.signals import interrupt_on_terminate
from consumer.errors import Fatal
from consumer.system.faults.extent import Extent
from consumer.system.faults.run import PARTS, run_faults

_EXTENT = Extent()


@click.command("faults")
@click.option("--part", "parts", multiple=True, type=click.Choice(list(PARTS)), help="Only this one; may be repeated.")
@click.option("--rate", type=click.IntRange(100), default=int(_EXTENT.rate), show_default=True, help="Events a second.")
@click.option("--rounds", type=click.IntRange(1), default=_EXTENT.rounds, show_default=True, help="Of each fault.")
@click.option(
    "--seconds",
    type=click.FloatRange(1),
    default=_EXTENT.outage_seconds,
    show_default=True,
    help="That ClickHouse is away in part outage.",
)
@click.option("--seed", type=click.IntRange(0), default=_EXTENT.seed, show_default=True, help="Of what is killed when.")
@click.option("--busy", is_flag=True, help="Measure also on a machine that is busy with other work.")
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object.")
def command(
    parts: tuple[str, ...], rate: int, rounds: int, seconds: float, seed: int, busy: bool, as_json: bool
) -> None:
    """Break everything on purpose, under steady traffic, and prove that nothing is lost and nothing done twice.

    \b
    kills       SIGKILL of score or sink at random; the supervisor brings them back
    crashes     a death after every numbered step of score and of sink
    members     1 → 3 → 1 score processes, by both group protocols
    zombie      a process that hangs, is replaced, and wakes; a second one of the same name
    clickhouse  reset connections, slow and late answers, errors, a full disk, the endpoint killed
    outage      ClickHouse away for a minute: how long the sink takes to catch up
    clock       the wall clock of score jumps (needs a C compiler)
    brokers     a cluster of three: nodes killed, hanging, all killed

    The producer writes down every record that Kafka acknowledged. At the end of each part the topics and the table are
    compared with that ledger place by place, and the product's own reconciler must agree. Starts its own Kafka and
    ClickHouse in a temporary folder, on free ports, and leaves nothing behind. All parts take about half an hour, more
    with more rounds. Exits 1 when anything was lost, done twice or changed.
    """
    logs.configure("error", "faults")
    logging.getLogger("consumer.services.kafka").setLevel(logging.CRITICAL)  # that a broker is away is no news here
    interrupt_on_terminate()
    extent = Extent(rate=rate, rounds=rounds, outage_seconds=seconds, seed=seed)
    report = run_faults(parts or tuple(PARTS), extent, _say, busy_too=busy)
    if as_json:
        click.echo(json.dumps(report.as_json()))
    else:
        for line in report.lines():
            click.echo(line)
    if not report.holds:
        raise Fatal("something was lost, done twice or changed")


def _say(line: str) -> None:
    click.echo(line, err=True)
