"""`bnpl-shadow run | demo`: the whole system on this machine."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table

from consumer import logs
from consumer.cli.signals import interrupt_on_terminate
from consumer.cli.stack import PORT, state_dir_option
from consumer.errors import Fatal
from consumer.settings import load_settings
from consumer.stack.local import CLICKHOUSE_PORT, KAFKA_PORT, LocalStack
from consumer.system.demo import Demo, Progress
from consumer.system.run import running_system
from consumer.watch.reconcile.reconcile import Reconciliation

_LOOK_EVERY_SECONDS = 1.0


@click.command()
@state_dir_option
@click.option("--kafka-port", type=PORT, default=KAFKA_PORT, show_default=True, help="0 takes any free port.")
@click.option("--clickhouse-port", type=PORT, default=CLICKHOUSE_PORT, show_default=True, help="0 takes any free port.")
def run(state_dir: Path | None, kafka_port: int, clickhouse_port: int) -> None:
    """Keep Kafka, ClickHouse, score and sink running until stopped with Ctrl-C.

    Data is kept from one run to the next. A service that is killed is started again; one that ends by itself
    has a reason, which is shown, and then everything stops. To run only Kafka and ClickHouse use
    `bnpl-shadow up`.
    """
    settings = load_settings(state_dir=state_dir)
    logs.configure("error", "run")
    interrupt_on_terminate()
    stack = LocalStack(settings.state_dir, kafka_port, clickhouse_port)
    try:
        with running_system(settings, stack, _say) as system:
            click.echo(
                f"kafka       {system.settings.kafka_bootstrap_servers}\n"
                f"clickhouse  {stack.clickhouse.address}\n"
                f"metrics     http://{settings.metrics_host}:{settings.score_metrics_port}/metrics (score), "
                f"http://{settings.metrics_host}:{settings.sink_metrics_port}/metrics (sink)\n"
                f"logs        {settings.state_dir / 'logs'}\n"
                "running; send events with `bnpl-shadow produce FILE`, stop with Ctrl-C"
            )
            while True:
                time.sleep(_LOOK_EVERY_SECONDS)
                system.check()
    except KeyboardInterrupt:
        click.echo("stopped; the data stays")


@click.command()
@click.option("--events", type=click.IntRange(1), default=300_000, show_default=True, help="Transactions to send.")
@click.option("--rate", type=click.FloatRange(min=1), default=10_000, show_default=True, help="Transactions a second.")
@state_dir_option
@click.option("--json", "as_json", is_flag=True, help="For programs: the reconciled summary as one JSON object.")
def demo(events: int, rate: float, state_dir: Path | None, as_json: bool) -> None:
    """Run everything once: a real Kafka, ClickHouse, simulated checkouts, scoring, storing, and a proof.

    Works in a folder `demo` of its own under the state folder, on free ports, and leaves nothing running. One
    transaction in two thousand is rubbish and must end as a dead letter. Exits 0 only when every transaction
    sent was scored or dead-lettered exactly once and every score is stored.
    """
    folder = load_settings(state_dir=state_dir).state_dir / "demo"
    settings = load_settings(state_dir=folder, score_metrics_port=0, sink_metrics_port=0)
    logs.configure("error", "demo")
    interrupt_on_terminate()
    stack = LocalStack(folder, 0, 0)
    if stack.kafka.process is None and stack.clickhouse.process is None:
        shutil.rmtree(folder, ignore_errors=True)
    with running_system(settings, stack, _say) as system:
        _say(f"sending {events:,} transactions at {rate:,.0f} a second")
        result = _watch(Demo(system, events, rate))
    click.echo(json.dumps(asdict(result) | {"holds": result.holds}) if as_json else _summary(result, folder))
    if not result.holds:
        raise Fatal(f"the demo does not reconcile; logs are in {folder / 'logs'}")


def _watch(demo: Demo) -> Reconciliation:
    console = Console(stderr=True)
    if not console.is_terminal:
        return demo.run(_plain_lines())
    with Live(console=console, refresh_per_second=4) as live:
        return demo.run(lambda progress: live.update(_table(progress)))


def _plain_lines() -> Callable[[Progress], None]:
    """A line every few seconds, for logs and pipes."""
    last = 0.0

    def show(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= 3 or progress.caught_up:
            last = time.monotonic()
            means = "  ".join(f"{model} {mean:.4f}" for model, mean in progress.mean_scores.items())
            _say(
                f"sent {progress.sent:>9,}  stored {progress.stored:>9,} ({progress.stored_per_second:>7,.0f}/s)  "
                f"lag {progress.score_lag:,}+{progress.sink_lag:,}  declined {progress.declined:,}  {means}"
            )

    return show


def _table(progress: Progress) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_row("sent", f"{progress.sent:,} of {progress.to_send:,}")
    table.add_row("stored", f"{progress.stored:,}", f"{progress.stored_per_second:,.0f} a second")
    table.add_row("lag", f"score {progress.score_lag:,}", f"sink {progress.sink_lag:,}")
    approved = progress.stored - progress.declined
    table.add_row(
        "decisions",
        f"approve {approved:,}",
        f"decline {progress.declined:,}",
        f"high risk {progress.flagged_high:,}",
    )
    table.add_row("mean score", *(f"{model} {mean:.4f}" for model, mean in progress.mean_scores.items()))
    return table


def _summary(result: Reconciliation, folder: Path) -> str:
    verdict = "reconciled" if result.holds else "DOES NOT RECONCILE"
    return (
        f"{verdict}: produced {result.produced:,} = scored {result.scored:,} + dead-lettered {result.dead_lettered:,}; "
        f"stored {result.stored:,} = scored {result.scored:,}\n"
        f"lost {result.lost}, twice {result.twice}, unknown {result.unknown}, not stored {result.not_stored}, "
        f"rows too many {result.rows_too_many}\n"
        + "".join(f"{fault.told(10)}\n" for fault in result.faults)
        + f"logs and data: {folder}"
    )


def _say(line: str) -> None:
    click.echo(line, err=True)
