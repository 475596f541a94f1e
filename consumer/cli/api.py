"""`bnpl-shadow api`: the HTTP API, and the tokens that it knows."""

from __future__ import annotations

import click

from consumer import logs
from consumer.api.app import make_app, served
from consumer.api.auth import SCOPES, Callers, Scope, new_token
from consumer.api.parts import make_parts
from consumer.api.serve import address, listen, serve
from consumer.cli.signals import stop_on_signals
from consumer.services.kafka import bootstrap_servers
from consumer.settings import load_settings
from consumer.watch.check.clickhouse import place


@click.group("api", invoke_without_command=True)
@click.option("--host", help="Where to listen.  [default: BNPL_API_HOST, or 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65_535), help="0 takes a free one.  [default: BNPL_API_PORT, or 9660]")
@click.pass_context
def api(ctx: click.Context, host: str | None, port: int | None) -> None:
    """Answer over HTTP until stopped: predictions, scores, decisions, outcomes, evaluations, drift and lag.

    /docs shows all of it; /livez, /readyz and /metrics answer on the same port. Who may ask is in the file
    BNPL_API_TOKENS_FILE, without which only this machine is let in. A part that is away is told as 503 and found
    again by itself. One process uses one core: run several behind a load balancer for more. SIGTERM or Ctrl-C ends
    what is under way; a second one ends at once.

    \b
    Examples:
      bnpl-shadow api
      bnpl-shadow api token checkout --scope score
      BNPL_API_TOKENS_FILE=/run/secrets/tokens.json bnpl-shadow api --host 0.0.0.0
    """
    if ctx.invoked_subcommand is not None:
        return
    settings = load_settings(api_host=host, api_port=port)
    logs.configure(settings.log_level, "api")
    log = logs.get_logger("consumer.api")
    callers = Callers.of(settings)
    stop = stop_on_signals()
    with listen(settings.api_host, settings.api_port) as listening:
        parts = make_parts(settings)
        model_set = parts.controller.predictor.model_set
        log.info(
            "serving",
            url=address(listening),
            tokens="asked for" if callers.known else "none: this machine only",
            kafka=bootstrap_servers(settings),
            clickhouse=place(settings),
            artifact=model_set.version,
            artifact_sha256=model_set.digest,
            rules=parts.controller.rules.version,
        )
        serve(served(make_app(parts, callers)), listening, stop)
        log.info("stopped")


@api.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    required=True,
    help="What it allows; again for more. admin allows all.",
)
def token(name: str, scopes: tuple[Scope, ...]) -> None:
    """Make a token for NAME: print it once, and what the file of tokens keeps of it.

    BNPL_API_TOKENS_FILE is JSON: {"tokens": [ENTRY, …]} with an entry for each token, which holds its SHA-256 and not
    the token. It is read at the start. To change a token, add the new one, hand it out, then remove the old one.
    """
    secret, kept = new_token(name, list(scopes))
    click.echo(f"token (not shown again): {secret}", err=True)
    click.echo(kept.model_dump_json())
