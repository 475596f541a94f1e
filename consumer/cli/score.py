"""`bnpl-shadow score`: one process of the score service."""

from __future__ import annotations

import click

from consumer import logs
from consumer.cli.signals import stop_on_signals
from consumer.scoring.load import load_controller
from consumer.services.score import ScoreService
from consumer.settings import load_settings
from consumer.watch.check.start import refuse_faults
from consumer.watch.server import StatusServer, watched


@click.command("score")
@click.option(
    "--instance",
    help="Name of this process among its replicas; stable across restarts.  [default: BNPL_INSTANCE, or 0]",
)
@click.option(
    "--artifact",
    help="Version of the models, a folder of artifacts/.  [default: BNPL_ARTIFACT_VERSION, or v1]",
)
def command(instance: str | None, artifact: str | None) -> None:
    """Score transactions until stopped: rules decide, all models observe, each transaction once.

    Reads bnpl.transactions in group bnpl-score and writes bnpl.shadow-scores; what cannot be used goes to
    bnpl.transactions.dlq. Checks first what it needs. /metrics, /livez and /readyz answer on port
    BNPL_SCORE_METRICS_PORT. Run as many as there are partitions, each with its own --instance. SIGTERM or
    Ctrl-C finishes what is under way and leaves the group; a second one ends at once.
    """
    settings = load_settings(instance=instance, artifact_version=artifact)
    logs.configure(settings.log_level, "score")
    stop = stop_on_signals()
    with StatusServer(settings.metrics_host, settings.score_metrics_port, "BNPL_SCORE_METRICS_PORT") as server:
        controller = load_controller(settings)
        refuse_faults(settings, "score", controller.predictor.guarded_calls)
        service = ScoreService(settings, controller)
        with watched(service, server, settings, settings.score_group, [settings.topic_transactions]):
            service.run(stop)
