"""`bnpl-shadow bench`: measure the score path."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import click

from consumer import logs
from consumer.settings import load_settings
from consumer.stack.local import LocalStack
from consumer.system.bench import bench_score


@click.command("bench")
@click.option("--events", type=click.IntRange(200_000), default=1_200_000, show_default=True, help="Events a round.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Rounds; medians are shown.")
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object.")
def command(events: int, rounds: int, as_json: bool) -> None:
    """Measure the score service against a pass-through that only copies bytes, exactly once, in the same run.

    Starts a Kafka of its own in a temporary folder, fills a topic of 4 partitions with simulated events and lets
    one process of each empty it in turn. On a busy machine only the ratio means something.
    """
    logs.configure("error", "bench")
    events -= events % 50_000
    with tempfile.TemporaryDirectory(prefix="bnpl-bench-") as folder, LocalStack(Path(folder), 0, 0) as stack:
        addresses = stack.start(_say)
        settings = load_settings(kafka_bootstrap_servers=addresses.kafka, state_dir=folder)
        result = bench_score(settings, events, rounds, _say)
    if as_json:
        click.echo(json.dumps({"score": asdict(result)}))
        return
    click.echo(f"score         {result.events_per_s:>10,.0f} events/s  {result.cpu_us_per_event:.1f} µs CPU an event")
    click.echo(
        f"pass-through  {result.ceiling_events_per_s:>10,.0f} events/s  "
        f"{result.ceiling_cpu_us_per_event:.1f} µs CPU an event"
    )
    click.echo(f"ratio         {result.ratio:>10.2f}  (median of {result.rounds} rounds of {result.events:,} events)")
    click.echo(f"memory        {result.rss_mb:>10.0f} MB resident, score process")


def _say(line: str) -> None:
    click.echo(line, err=True)
