"""`bnpl-shadow settings`: what can be set, and what is set."""

from __future__ import annotations

import json
from typing import Any

import click
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from consumer.settings import PROJECT, Settings, load_settings


@click.command("settings")
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object, variable to value.")
@click.option("--markdown", is_flag=True, help="The defaults as a Markdown table: what docs/settings.md holds.")
def command(as_json: bool, markdown: bool) -> None:
    """Show every BNPL_… variable, its value as the services would use it, and what it is for. Secrets are masked.

    Exits 1 and lists every fault at once when the environment cannot be used.
    """
    if markdown:
        click.echo(markdown_table())
        return
    settings = load_settings()
    values = {variable(name): _shown(getattr(settings, name)) for name in Settings.model_fields}
    if as_json:
        click.echo(json.dumps(values, indent=2))
        return
    table = Table("variable", "value", "what it is for", box=None, pad_edge=False)
    for name, field in Settings.model_fields.items():
        table.add_row(variable(name), str(values[variable(name)]), field.description)
    Console().print(table)


def variable(name: str) -> str:
    """The environment variable of a field."""
    return f"BNPL_{name.upper()}"


def markdown_table() -> str:
    """All settings with their defaults; paths inside the project are relative to it."""
    rows = ["| variable | default | what it is for |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "unset" if field.default is None else f"`{str(field.default).replace(f'{PROJECT}/', '')}`"
        rows.append(f"| `{variable(name)}` | {default} | {field.description} |")
    return "\n".join(rows)


def _shown(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return "**********"
    return value if isinstance(value, int | float | None) else str(value)
