"""`bnpl-shadow run | demo`: the whole system on this machine."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table

from consumer import logs
from consumer.cli.signals import interrupt_on_terminate
from consumer.cli.stack import PORT, state_dir_option
from consumer.errors import Fatal
from consumer.settings import Settings, load_settings
from consumer.stack.local import CLICKHOUSE_PORT, ENV_FILE, KAFKA_PORT, LocalStack
from consumer.system.demo import Demo, Progress
from consumer.system.run import System, running_system
from consumer.system.season import kept
from consumer.system.services import SERVICES, Service, with_ports
from consumer.watch.reconcile.reconcile import Reconciliation

_LOOK_EVERY_SECONDS = 1.0
NAMES = [each.name for each in SERVICES]
NAME = click.Choice(NAMES)


@click.command()
@state_dir_option
@click.option("--kafka-port", type=PORT, default=KAFKA_PORT, show_default=True, help="0 takes any free port.")
@click.option("--clickhouse-port", type=PORT, default=CLICKHOUSE_PORT, show_default=True, help="0 takes any free port.")
@click.option("--only", type=NAME, multiple=True, help="Run this service and no other; repeat it for more.")
@click.option("--without", type=NAME, multiple=True, help="Leave this service out; repeat it for more.")
@click.option(
    "--season/--own",
    default=None,
    help="Show the last season, or data of your own, from now on.  [default: what was played or chosen last]",
)
def run(
    state_dir: Path | None,
    kafka_port: int,
    clickhouse_port: int,
    only: tuple[str, ...],
    without: tuple[str, ...],
    season: bool | None,
) -> None:
    """Keep Kafka, ClickHouse and all services running until stopped with Ctrl-C.

    Each is told with its address once it answers. Data is kept from one run to the next. A service that is killed is
    started again; one that ends by itself has a reason, which is shown, and then everything stops: --without leaves it
    out. To run only Kafka and ClickHouse use `bnpl-shadow up`.

    After `bnpl-shadow season` it shows what was played, which lies in a folder of its own. --own shows data of your own
    again; neither touches the other.
    """
    home = load_settings(state_dir=state_dir).state_dir
    services = tuple(each for each in SERVICES if each.name in (only or NAMES) and each.name not in without)
    if not services:
        raise click.UsageError("no service is left to run; Kafka and ClickHouse alone are run by `bnpl-shadow up`")
    settings = with_ports(_shown(home, season), services)
    logs.configure("warning", "run")
    interrupt_on_terminate()
    stack = LocalStack(settings.state_dir, kafka_port, clickhouse_port)
    try:
        with running_system(settings, stack, _say, [each.arguments for each in services]) as system:
            _row("kafka", "the events", str(system.settings.kafka_bootstrap_servers))
            _row("clickhouse", "what is made of them", stack.clickhouse.address)
            _keep(system, services)
    except KeyboardInterrupt:
        click.echo("stopped; the data stays")


def _shown(home: Path, season: bool | None) -> Settings:
    """Settings of the data that are chosen."""
    if season is not None:
        kept.show(home, season=season)
    if not kept.shows_season(home):
        click.echo(f"data of your own, in {home}")
        return load_settings(state_dir=home)
    settings = load_settings(**kept.settings_of(home))
    click.echo(
        f"the last season, in {settings.state_dir}: the next one deletes it, and what you send there\n"
        "data of your own are shown by `bnpl-shadow run --own`\n"
        f"in another terminal, before other commands: . {settings.state_dir / ENV_FILE}"
    )
    return settings


def _keep(system: System, services: tuple[Service, ...]) -> NoReturn:
    """Until Ctrl-C: tell each service when it answers first, and start those again that were killed."""
    waiting = list(services)
    while True:
        for each in [each for each in waiting if each.answers(system.settings)]:
            waiting.remove(each)
            _row(each.name, each.does, each.address(system.settings))
            if not waiting:
                _row("logs", "what each of them says", str(system.settings.state_dir / "logs"))
                click.echo("running; send events with `bnpl-shadow produce FILE`, stop with Ctrl-C")
        time.sleep(_LOOK_EVERY_SECONDS)
        system.check()


def _row(name: str, what: str, address: str) -> None:
    click.echo(f"{name:<11} {what:<32} {address}")


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
