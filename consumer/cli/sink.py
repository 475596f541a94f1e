"""`bnpl-shadow sink`: one process of the sink service."""

from __future__ import annotations

import click

from consumer import logs
from consumer.cli.signals import stop_on_signals
from consumer.services.sink import SinkService
from consumer.settings import load_settings
from consumer.watch.check.start import refuse_faults
from consumer.watch.server import StatusServer, watched


@click.command("sink")
@click.option("--instance", help="Name of this process among its replicas.  [default: BNPL_INSTANCE, or 0]")
def command(instance: str | None) -> None:
    """Copy shadow scores and outcomes into ClickHouse until stopped: one row each.

    Reads bnpl.shadow-scores and bnpl.outcomes in group bnpl-sink and fills tables shadow_scores and outcomes
    (see `bnpl-shadow migrate`). Checks first what it needs. While ClickHouse is away it waits, and scoring goes on.
    /metrics, /livez and /readyz answer on port BNPL_SINK_METRICS_PORT. SIGTERM or Ctrl-C finishes what is under way; a
    second one ends at once.
    """
    settings = load_settings(instance=instance)
    logs.configure(settings.log_level, "sink")
    stop = stop_on_signals()
    with StatusServer(settings.metrics_host, settings.sink_metrics_port, "BNPL_SINK_METRICS_PORT") as server:
        refuse_faults(settings, "sink")
        service = SinkService(settings)
        topics = [settings.topic_shadow_scores, settings.topic_outcomes]
        with watched(service, server, settings, settings.sink_group, topics, stores=True):
            service.run(stop)
