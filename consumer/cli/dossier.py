"""`bnpl-shadow dossier`: what a promotion rests on, written down, and computed again."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import click

from consumer import logs
from consumer.champion import dossier
from consumer.champion.report.markdown import markdown
from consumer.cli.evaluate import evaluated_scope, scope_options
from consumer.cli.signals import interrupt_on_terminate
from consumer.settings import load_settings

_SHOWN = 20


@click.group("dossier")
def command() -> None:
    """Write down what a promotion rests on, so that anybody can compute it again.

    \b
    Examples:
      bnpl-shadow dossier make -o ridge-2026-11
      bnpl-shadow dossier verify ridge-2026-11.json
    """


@command.command("make")
@scope_options
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="Name without ending: .json and .md are written. Existing ones are replaced.",
)
def make(output: Path, **scope: Any) -> None:
    """Evaluate as `bnpl-shadow evaluate` does, and write the dossier: JSON for programs, Markdown for people.

    It holds the question, the exact rows (by the last offsets of the tables, with a digest), the SQL, the terms,
    every figure, the verdict, the limits, and the features that rest on a protected basis. `promote --dossier` takes
    the JSON.
    """
    settings = load_settings()
    logs.configure("critical", "dossier")
    interrupt_on_terminate()
    told = dossier.document(evaluated_scope(settings, **scope))
    content = dossier.to_bytes(told)
    try:
        output.with_suffix(".json").write_bytes(content)
        output.with_suffix(".md").write_text(markdown(told))
    except OSError as error:
        raise click.ClickException(f"{output} cannot be written: {error.strerror}") from error
    click.echo(
        f"{output.with_suffix('.json')}, {output.with_suffix('.md')}\n"
        f"sha256 {hashlib.sha256(content).hexdigest()}\n{told['recommendation']['sentences'][0]}"
    )


@command.command("verify")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object.")
def verify(file: Path, as_json: bool) -> None:
    """Read the rows of a dossier again and compute every number of it.

    Exits 0 when all come out as they stand there, 1 when any does not, 75 when ClickHouse does not answer.
    """
    settings = load_settings()
    logs.configure("critical", "dossier")
    interrupt_on_terminate()
    loaded = dossier.load(file)
    found = dossier.verify(settings, loaded.told)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "sha256": loaded.sha256,
                    "holds": not found.differences,
                    "numbers": found.numbers,
                    "differences": found.differences,
                }
            )
        )
    elif not found.differences:
        click.echo(
            f"{file}: all {found.numbers:,} numbers were computed again and are the same\nsha256 {loaded.sha256}"
        )
    else:
        more = len(found.differences) - _SHOWN
        click.echo(f"{file}: {len(found.differences):,} of {found.numbers:,} numbers come out otherwise")
        click.echo("\n".join(found.differences[:_SHOWN] + ([f"and {more:,} more"] if more > 0 else [])))
    sys.exit(bool(found.differences))
