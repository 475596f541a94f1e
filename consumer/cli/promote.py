"""`bnpl-shadow promote` and `bnpl-shadow kill`: who decides from now on."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import get_args

import click

from consumer import logs
from consumer.champion.promotion import Signature, configured, grounds, killed, promoted, rolled_back
from consumer.cli.control import told
from consumer.clock import Deadline, utc_now
from consumer.contracts.control import Control, Mode
from consumer.errors import ConfigurationError, Outrun
from consumer.services.control import amend, read, write
from consumer.settings import load_settings

_KILL_SECONDS = 30.0

_reason = click.option("--reason", required=True, help="Why, in a sentence; it is kept for ever.")
_by = click.option("--by", "who", help="Who does it.  [default: this system's user]")
_json = click.option("--json", "as_json", is_flag=True, help="For programs: the record that was written.")


@click.command("promote")
@click.argument("model", required=False)
@_reason
@click.option(
    "--mode",
    type=click.Choice(get_args(Mode)),
    help="shadow: it decides nothing; canary: for --share of customers; champion: for all.  [default: shadow]",
)
@click.option("--share", type=click.FloatRange(0, 100, True, True), help="Percent of customers in mode canary.")
@click.option(
    "--dossier",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The dossier (JSON) whose verdict supports it.",
)
@click.option("--override", is_flag=True, help="Promote although no verdict supports it; recorded for ever.")
@click.option("--rollback", is_flag=True, help="Restore what ruled before the newest change; again, what before that.")
@_by
@click.option("--yes", is_flag=True, help="Do not ask.")
@_json
def promote(
    model: str | None,
    reason: str,
    mode: Mode | None,
    share: float | None,
    dossier: Path | None,
    override: bool,
    rollback: bool,
    who: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Make MODEL champion, or go back by --rollback. Every running score process takes it over between two batches.

    A champion in shadow decides nothing. In canary and champion it decides among those whom the rules approve: it
    declines whom it flags. What the rules decline stays declined, and where it gives no usable score in time the rules
    decide. `bnpl-shadow kill` ends it.

    A promotion needs a dossier that recommends the model, or --override. The record names the configured artifact
    (BNPL_ARTIFACT_VERSION): processes with other models do not take it over. Of two promotions at once one is written,
    the other is told.

    Exits 1 when it is refused, 75 when Kafka does not answer.

    \b
    Examples:
      bnpl-shadow promote logistic --dossier dossier.json --reason "better for six weeks"
      bnpl-shadow promote logistic --mode canary --share 5 --dossier dossier.json --reason "first step"
      bnpl-shadow promote --rollback --reason "declines too many in week 49"
    """
    if rollback == (model is not None):
        raise click.UsageError("name a MODEL, or say --rollback: one of the two")
    if rollback and (mode or share is not None or dossier or override):
        raise click.UsageError("--rollback restores what was: it takes no --mode, --share, --dossier or --override")
    if (mode == "canary") != (share is not None):
        raise click.UsageError("--share belongs to --mode canary, and that needs one")
    settings = load_settings()
    logs.configure("critical", "promote")  # what the client complains of, an error says
    signed = _signature(who, reason)
    artifact = configured(settings)
    topic = read(settings)
    if model is None:
        control = rolled_back(topic.log, artifact, signed)
    else:
        artifact.require(model, mode or "shadow")
        stands_on = grounds(artifact, model, _content(dossier), override=override)
        control = promoted(topic.log.state, artifact, model, mode or "shadow", share, stands_on, signed)
    if not yes:
        _ask(topic.log.state, control)
    write(settings, control)
    _tell(control, as_json)


@click.command("kill")
@_reason
@_by
@_json
def kill(reason: str, who: str | None, as_json: bool) -> None:
    """The kill switch: every score process returns to shadow within seconds, and the rules decide everything.

    Never asks. The champion keeps its name, so that its scores go on being told apart; `bnpl-shadow promote --rollback`
    lets it decide again. Needs Kafka, and neither ClickHouse nor a dossier. A promotion under way at the same moment is
    overtaken.

    Exits 75 when Kafka does not answer: then nothing has changed yet, and stopping the score processes is what is left.
    """
    settings = load_settings()
    logs.configure("critical", "kill")  # what the client complains of, an error says
    signed = _signature(who, reason)
    deadline = Deadline.after(_KILL_SECONDS)
    while True:
        try:
            control = amend(settings, lambda state: killed(state, None if state else configured(settings), signed))
            return _tell(control, as_json)
        except Outrun:
            if deadline.passed:
                raise


def _signature(who: str | None, reason: str) -> Signature:
    if who is None:
        try:
            who = getpass.getuser()
        except (KeyError, OSError):  # as in a container: that must not hold up a kill
            who = f"uid {os.getuid()}"
    return Signature(who, utc_now(), reason)


def _content(dossier: Path | None) -> bytes | None:
    try:
        return dossier.read_bytes() if dossier else None
    except OSError as error:
        raise ConfigurationError(f"the dossier {dossier} cannot be read: {error.strerror}") from error


def _ask(state: Control | None, control: Control) -> None:
    if not _can_be_asked():
        raise click.UsageError("nobody can be asked here: say --yes")
    click.echo(f"now      {told(state) if state else 'no promotion: the rules decide everything'}", err=True)
    click.echo(f"then     {told(control)}", err=True)
    click.echo(f"models   {control.artifact_version} ({control.artifact_sha256[:12]})", err=True)
    if control.override:
        click.echo(f"OVERRIDE no verdict supports it: {control.unsupported}", err=True)
    click.confirm("do it?", abort=True, err=True)


def _can_be_asked() -> bool:
    return sys.stdin.isatty()


def _tell(control: Control, as_json: bool) -> None:
    if as_json:
        click.echo(control.model_dump_json(indent=2))
        return
    click.echo(f"revision {control.revision}: {told(control)}")
    if control.override:
        click.echo(f"OVERRIDE, recorded for ever: no verdict supports it: {control.unsupported}")
    click.echo(
        f"each score process takes it over between two batches: its /metrics then says bnpl_control_revision "
        f"{control.revision}"
    )
