"""`bnpl-shadow up | down | status | fetch`: the local stack from the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from consumer.settings import load_settings
from consumer.stack.kafka import KAFKA_VERSION, fetch_kafka_jars, train_kafka_start_up
from consumer.stack.local import CLICKHOUSE_PORT, KAFKA_PORT, Addresses, LocalStack

PORT = click.IntRange(0, 65535)
NOT_ALL_UP = 3

state_dir_option = click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of its data, logs and addresses.  [default: BNPL_STATE_DIR, or .bnpl in the project]",
)


@click.command()
@state_dir_option
@click.option("--kafka-port", type=PORT, default=KAFKA_PORT, show_default=True, help="0 takes any free port.")
@click.option("--clickhouse-port", type=PORT, default=CLICKHOUSE_PORT, show_default=True, help="0 takes any free port.")
def up(state_dir: Path | None, kafka_port: int, clickhouse_port: int) -> None:
    """Start Kafka and ClickHouse in the background and return when both answer.

    Both listen on 127.0.0.1 only and keep their data from one `up` to the next. What runs already is left
    running, on the port it has. The first start fetches Kafka's jars (44 MB) from Maven Central.
    """
    folder = load_settings(state_dir=state_dir).state_dir
    stack = LocalStack(folder, kafka_port, clickhouse_port, owned=False)
    before = [part.name for part in stack.status() if part.state == "up"]
    addresses = _with_spinner(stack.start)
    if len(before) == len(stack.status()):
        click.echo(f"already running, in {folder}")
    click.echo(f"kafka       {addresses.kafka}\nclickhouse  {addresses.clickhouse}\nlogs        {folder / 'logs'}")
    click.echo("next: `bnpl-shadow status` shows it, `bnpl-shadow down` stops it and keeps the data")


@click.command()
@state_dir_option
def down(state_dir: Path | None) -> None:
    """Stop the local stack; its data stays. Exits 0 also when nothing runs.

    Each part gets 15 seconds to end before it is killed; what was acknowledged is kept either way.
    """
    folder = load_settings(state_dir=state_dir).state_dir
    stopped = LocalStack(folder, owned=False).stop()
    click.echo(f"stopped {' and '.join(stopped)}" if stopped else f"nothing was running in {folder}")


@click.command()
@state_dir_option
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object.")
def status(state_dir: Path | None, as_json: bool) -> None:
    """Show what runs and whether it answers. Exits 0 when all parts are up, 3 when not."""
    folder = load_settings(state_dir=state_dir).state_dir
    parts = LocalStack(folder, owned=False).status()
    if as_json:
        click.echo(json.dumps({"state_dir": str(folder), "parts": [asdict(part) for part in parts]}, indent=2))
    else:
        table = Table("part", "state", "address", "pid", "memory", box=None, pad_edge=False)
        for part in parts:
            memory = f"{part.memory_bytes / 2**20:.0f} MiB" if part.memory_bytes else ""
            pid = str(part.pid or "")
            table.add_row(part.name, part.state, part.address or "", pid, memory)
        Console().print(table)
        click.echo(f"data and logs in {folder}")
    if any(part.state != "up" for part in parts):
        sys.exit(NOT_ALL_UP)


@click.command()
def fetch() -> None:
    """Fetch Kafka's jars (44 MB) from Maven Central, once; later starts need no network."""
    jars = fetch_kafka_jars(click.echo)
    train_kafka_start_up(click.echo)
    click.echo(f"Kafka {KAFKA_VERSION} is ready: {len(jars)} jars in {jars[0].parent.parent}")


def _with_spinner(start: Callable[[Callable[[str], None]], Addresses]) -> Addresses:
    """A spinner that says the current step on a terminal; plain lines elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        return start(lambda line: click.echo(line, err=True))
    with console.status("starting the local stack") as spinner:
        return start(spinner.update)
