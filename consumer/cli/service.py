"""`bnpl-shadow score | sink`: the two services, each one process of its group."""

from __future__ import annotations

import signal
import threading

import click

from consumer import logs
from consumer.services.assemble import controller
from consumer.services.score import ScoreService
from consumer.services.sink import SinkService
from consumer.settings import load_settings


@click.command()
@click.option(
    "--instance",
    help="Name of this process among its replicas; stable across restarts.  [default: BNPL_INSTANCE, or 0]",
)
@click.option(
    "--artifact",
    help="Version of the models, a folder of artifacts/.  [default: BNPL_ARTIFACT_VERSION, or v1]",
)
def score(instance: str | None, artifact: str | None) -> None:
    """Score transactions until stopped: rules decide, all models observe, each transaction once.

    Reads bnpl.transactions in group bnpl-score and writes bnpl.shadow-scores; what cannot be used goes to
    bnpl.transactions.dlq. Run as many as there are partitions, each with its own --instance. SIGTERM or
    Ctrl-C finishes what is under way and leaves the group; a second one ends at once.
    """
    settings = load_settings(instance=instance, artifact_version=artifact)
    logs.configure(settings.log_level, "score")
    ScoreService(settings, controller(settings)).run(stop_on_signals())


@click.command()
@click.option("--instance", help="Name of this process among its replicas.  [default: BNPL_INSTANCE, or 0]")
def sink(instance: str | None) -> None:
    """Copy shadow scores into ClickHouse until stopped: one row a prediction.

    Reads bnpl.shadow-scores in group bnpl-sink and fills table shadow_scores (see `bnpl-shadow migrate`).
    While ClickHouse is away it waits, and scoring goes on. SIGTERM or Ctrl-C finishes what is under way; a
    second one ends at once.
    """
    settings = load_settings(instance=instance)
    logs.configure(settings.log_level, "sink")
    SinkService(settings).run(stop_on_signals())


def stop_on_signals() -> threading.Event:
    """An event that the first SIGTERM or SIGINT sets; the second ends the process as it would have by default."""
    stop = threading.Event()

    def ask(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    return stop
