"""The `bnpl-shadow` command: one group whose commands are imported only when they are called."""

from __future__ import annotations

import signal
import sys
from importlib import import_module

import click

from consumer.errors import TRY_AGAIN, BnplError, Retryable

COMMANDS: dict[str, tuple[str, str]] = {
    # name: (module:attribute, one line of help)
    "demo": ("consumer.cli.system:demo", "Run everything on simulated checkouts and prove the result."),
    "season": ("consumer.cli.season:command", "Play six weeks to a verdict and a promotion."),
    "run": ("consumer.cli.system:run", "Keep stack and services running for events of your own."),
    "produce": ("consumer.cli.produce:command", "Send a file of transactions."),
    "outcomes": ("consumer.cli.outcomes:outcomes", "Send what became of transactions; see what was made of it."),
    "up": ("consumer.cli.stack:up", "Start the local Kafka and ClickHouse."),
    "down": ("consumer.cli.stack:down", "Stop them; their data stays."),
    "status": ("consumer.cli.stack:status", "Show what of them runs and answers."),
    "fetch": ("consumer.cli.stack:fetch", "Fetch Kafka's jars ahead of the first start."),
    "topics": ("consumer.cli.prepare:topics", "Create Kafka's topics."),
    "migrate": ("consumer.cli.prepare:migrate", "Bring ClickHouse's tables up to date."),
    "schemas": ("consumer.cli.prepare:schemas", "Register the event schemas with a registry."),
    "score": ("consumer.cli.score:command", "The score service: transactions to shadow events."),
    "sink": ("consumer.cli.sink:command", "The sink service: shadow events to ClickHouse."),
    "api": ("consumer.cli.api:api", "Serve predictions, scores and decisions over HTTP."),
    "check": ("consumer.cli.check:command", "Check all they need; print each fault with its remedy."),
    "trace": ("consumer.cli.trace:command", "Follow one transaction, or find where it got stuck."),
    "reconcile": ("consumer.cli.reconcile:command", "Prove that nothing was lost and nothing done twice."),
    "prove-isolation": (
        "consumer.cli.prove_isolation:command",
        "Prove on newest events that no model changes a decision.",
    ),
    "promote": ("consumer.cli.promote:promote", "Make a model champion, let it decide, or go back."),
    "kill": ("consumer.cli.promote:kill", "Stop models deciding, everywhere, at once."),
    "control": ("consumer.cli.control:command", "Show which model is champion, what it decides, and why."),
    "dlq": ("consumer.cli.dlq:command", "See dead letters; replay them once their cause is mended."),
    "lag": ("consumer.cli.lag:command", "Show how far behind score and sink are, and for how long."),
    "top": ("consumer.cli.top:command", "Health, lag, rates and who decides, live in a terminal."),
    "drift": ("consumer.cli.drift:command", "Compare a week of traffic with what training saw."),
    "rescore": ("consumer.cli.rescore:command", "Score history again with other models."),
    "policy": ("consumer.cli.policy:command", "Fix how models are judged, before the data."),
    "evaluate": ("consumer.cli.evaluate:command", "Compare models with the rules by real outcomes."),
    "dossier": ("consumer.cli.dossier:command", "Write down, or verify, what a promotion rests on."),
    "dashboard": ("consumer.cli.dashboard:command", "Pages in a browser: models, outcomes, drift, money."),
    "settings": ("consumer.cli.settings:command", "Show every setting, its value and what it is for."),
    "bench": ("consumer.cli.bench:command", "Measure speed, freshness and memory on a stack of its own."),
    "faults": ("consumer.cli.faults:command", "Break everything under traffic; prove nothing is lost."),
    "soak": ("consumer.cli.soak:command", "Run steadily for half an hour; see what grows."),
    "simulate": ("consumer.cli.simulate:command", "Write made-up transactions with their outcomes."),
    "train": ("consumer.cli.train:command", "Fit the models on labelled transactions and export them."),
    "artifacts": ("consumer.cli.artifacts:command", "List, prove and bring in exports of models."),
}
"""In the order a newcomer meets them; `--help` prints this table without importing a single command."""


class LazyGroup(click.Group):
    """A group that knows its commands' names and help lines, and imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name][0].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bnpl-shadow-scoring")
def cli() -> None:
    """Score live buy-now-pay-later transactions in shadow: rules decide, models are recorded, checkout never waits.

    Settings come from BNPL_… environment variables (docs/settings.md). Without any, commands use the local stack
    that `bnpl-shadow up` starts.
    """


def main() -> None:
    """Run the command. An error of ours is printed as one message and exits 1, or 75 when trying again may help; an
    interrupt exits 130.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are started to ignore it
    try:
        cli(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except BnplError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(TRY_AGAIN if isinstance(error, Retryable) else 1)
