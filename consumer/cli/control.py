"""`bnpl-shadow control`: who decides, and how it came to that."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from consumer import logs
from consumer.contracts.control import Control
from consumer.services.control import ControlTopic, read
from consumer.settings import load_settings

_PIPE_WIDTH = 200


@click.command("control")
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object with state and history.")
def command(as_json: bool) -> None:
    """Show which model is champion and what it decides, and every promotion, rollback and kill: who, when and why.

    Reads bnpl.control from the beginning, where the highest revision rules. Without any, the artifact's own champion is
    in shadow. Records that are passed over are listed with their reason; they never rule. What a process has taken over
    is on its /metrics: bnpl_control_revision, bnpl_control_info.

    Exits 75 when Kafka does not answer.
    """
    settings = load_settings()
    logs.configure("critical", "control")  # what the client complains of, an error says
    topic = read(settings)
    if as_json:
        click.echo(json.dumps(document(topic), indent=2))
    else:
        _show(topic)


def document(topic: ControlTopic) -> dict[str, Any]:
    """All of it, for programs; the newest last."""
    state = topic.log.state
    return {
        "state": state.model_dump(mode="json") if state else None,
        "history": [each.model_dump(mode="json") for each in topic.log.history.values()],
        "passed_over": [
            {"offset": offset, "error": reason.error, "reason": str(reason)}
            for offset, reason in topic.passed_over.items()
        ],
    }


def told(control: Control) -> str:
    """Who decides, in words."""
    match control.mode:
        case "canary":
            share = f"{control.canary_percent:g} %"
            return f"{control.champion} decides {share} of customers, among those whom the rules approve"
        case "champion":
            return f"{control.champion} decides, among those whom the rules approve"
    return f"{control.champion} is champion, and the rules decide everything"


def _show(topic: ControlTopic) -> None:
    state = topic.log.state
    if state is None:
        click.echo("no promotion yet: the artifact's own champion is in shadow, and the rules decide everything")
    else:
        click.echo(f"revision {state.revision}: {told(state)}")
        click.echo(f"for models {state.artifact_version} ({state.artifact_sha256}), no others")
        if state.override:
            click.echo(f"OVERRIDE: no verdict supported {state.champion}: {state.unsupported}")
        click.echo("")
        _show_history(topic)
    for offset, reason in topic.passed_over.items():
        click.echo(f"passed over: offset {offset}: {reason.error}: {reason}", err=True)


def _show_history(topic: ControlTopic) -> None:
    console = Console()
    console.width = console.width if console.is_terminal else _PIPE_WIDTH
    columns = ("revision", "when", "who", "what", "champion", "mode", "models", "stands on", "why")
    table = Table(*columns, box=None, pad_edge=False)
    for each in reversed(topic.log.history.values()):
        mode = f"{each.mode} {each.canary_percent:g} %" if each.canary_percent is not None else each.mode
        when = f"{each.made_at:%Y-%m-%d %H:%M:%S}"
        row = (str(each.revision), when, each.made_by, each.action, each.champion, mode, each.artifact_version)
        table.add_row(*row, _grounds(each), each.reason)
    console.print(table, markup=False)


def _grounds(control: Control) -> str:
    dossier = f"dossier {control.dossier_sha256[:12]}" if control.dossier_sha256 else ""
    if control.override:
        return "; ".join(filter(None, (f"OVERRIDE: {control.unsupported}", dossier)))
    return dossier or "-"
