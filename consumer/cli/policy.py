"""`bnpl-shadow policy`: what a model must show, fixed before the data."""

from __future__ import annotations

import json
from pathlib import Path

import click

from consumer import logs
from consumer.champion.policies import all_registered, register
from consumer.clock import utc_now
from consumer.services.clickhouse import connect
from consumer.settings import load_settings


@click.group("policy")
def command() -> None:
    """Fix by which rules models will be judged, before the first transaction that they are judged on.

    A policy is a file (BNPL_POLICY_FILE): label horizon, looks, margin, minimum counts, economics. Its SHA-256 is
    registered with the time; an evaluation of older transactions, or by a policy that was changed since, supports no
    promotion.
    """


@command.command("register")
@click.option(
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The policy.  [default: BNPL_POLICY_FILE, or artifacts/policy/promotion_v1.json]",
)
def register_command(file: Path | None) -> None:
    """Write a policy's SHA-256 down with the time. Again, it changes nothing."""
    settings = load_settings()
    logs.configure("critical", "policy")
    with connect(settings) as client:
        found = register(client, file or settings.policy_file, utc_now())
    click.echo(f"{found.sha256} is registered since {found.at:%Y-%m-%d %H:%M:%S} UTC")


@command.command("show")
@click.option("--json", "as_json", is_flag=True, help="For programs: a JSON list.")
def show(as_json: bool) -> None:
    """List the registered policies, oldest first."""
    settings = load_settings()
    logs.configure("critical", "policy")
    with connect(settings) as client:
        found = all_registered(client)
    if as_json:
        told = [
            {"sha256": each.sha256, "registered_at": each.at.isoformat(), "policy": json.loads(each.content)}
            for each in found
        ]
        click.echo(json.dumps(told, indent=2))
        return
    if not found:
        click.echo("none is registered; `bnpl-shadow policy register` fixes the one in use")
    for each in found:
        version = json.loads(each.content).get("version", "?")
        click.echo(f"{each.at:%Y-%m-%d %H:%M:%S}  {each.sha256}  {version}")
