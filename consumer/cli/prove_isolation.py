"""`bnpl-shadow prove-isolation`: whatever the models do, the decisions are the same."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table

from consumer.cli.progress import progress
from consumer.settings import load_settings
from consumer.watch.isolation import Proof, Variant, prove_isolation

_PIPE_WIDTH = 160


@click.command("prove-isolation")
@click.option(
    "--last",
    type=click.IntRange(min=1),
    default=10_000,
    show_default=True,
    help="How many of the newest events to prove it on.",
)
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object with every variant.")
def command(last: int, as_json: bool) -> None:
    """Score the newest events with healthy models, then with each one raising, returning NaN and hanging, and with all
    failing at once, and compare byte by byte what was decided and what the other models said.

    This is proved of the mode that rules (`bnpl-shadow control`). In canary and champion the decision that stands does
    depend on the champion; what is proved then is said: the rules decide the same, no other model reaches what stands,
    and where the champion fails their decision stands.

    Reads bnpl.transactions and bnpl.control, takes part in no group and publishes nothing. Rules, models and budget are
    those of the settings; only the faults are made. Takes a few seconds, and BNPL_MODEL_BUDGET_MS for each model that
    hangs.

    Exits 1 when anything differs or there is no event to prove it on, 75 when Kafka does not answer.
    """
    settings = load_settings()
    logging.disable()  # what the client complains of, the error says
    with progress() as bars:
        task = bars.add_task("scoring", total=None)
        proof = prove_isolation(settings, last, lambda done, total: bars.update(task, completed=done, total=total))
    if as_json:
        click.echo(json.dumps({"isolated": proof.isolated, **asdict(proof)}, indent=2))
    else:
        _show(proof)
    if not proof.isolated:
        sys.exit(1)


def _show(proof: Proof) -> None:
    console = Console()
    console.width = console.width if console.is_terminal else _PIPE_WIDTH
    table = Table("variant", "decisions (sha256)", "missing scores say", "difference", box=None, pad_edge=False)
    for each in proof.variants:
        table.add_row(each.name, each.decisions[:16], _errors(each), "; ".join(each.differences) or "none")
    console.print(table)
    refused = f", {proof.refused:,} more cannot be used and are left out" if proof.refused else ""
    told = f"{proof.events:,} events in {len(proof.variants)} variants{refused}"
    mode, champion = proof.activation.mode, proof.activation.champion
    if proof.isolated and mode == "shadow":
        click.echo(f"isolated: {told}; all decided the same, every other model's score the same, byte by byte")
    elif proof.isolated:
        click.echo(f"{champion} DECIDES (mode {mode}, revision {proof.activation.revision}): what stands depends on it")
        click.echo(
            f"isolated but for that: {told}; the rules decided the same, no other model reached what stands, and with "
            f"{champion} failing every decision was the rules'"
        )
    else:
        click.echo(f"NOT isolated: {told}; see the differences")


def _errors(variant: Variant) -> str:
    return "; ".join(f"{model}: {', '.join(names)}" for model, names in variant.errors.items())
