"""`bnpl-shadow dlq ls | show | replay`: dead letters seen, and sent again once what refused them is mended."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from consumer import logs
from consumer.cli import dlq_report as report
from consumer.cli.progress import progress
from consumer.cli.signals import interrupt_on_terminate
from consumer.cli.when import Since
from consumer.contracts.dead_letter import Replay
from consumer.errors import BnplError, Fatal
from consumer.services.kafka import require_topics
from consumer.settings import Settings, load_settings
from consumer.system import replay as replays
from consumer.watch.letter_story import story, survey
from consumer.watch.letters import STATES, Filter, Progress

_LISTED = 20


_of = click.option(
    "--of",
    type=click.Choice(["transactions", "outcomes"]),
    default="transactions",
    show_default=True,
    help="Whose dead letters: bnpl.transactions.dlq (also those of shadow events) or bnpl.outcomes.dlq.",
)


class Place(click.ParamType[tuple[int, int]]):
    """A letter's place in its topic."""

    name = "partition/offset"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        partition, slash, offset = str(value).partition("/")
        if not (slash and partition.isdecimal() and offset.isdecimal()):
            self.fail(f"{value!r} is no PARTITION/OFFSET such as 0/17; `bnpl-shadow dlq ls` shows them", param, ctx)
        return int(partition), int(offset)


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    """The options that narrow what is meant; each further one narrows it more."""
    for option in (
        click.option("--until", type=Since(), help="Refused before then: the same forms."),
        click.option("--since", type=Since(), help="Refused since then: 30m, 6h, 2d ago, or an ISO time."),
        click.option("--stage", "stages", multiple=True, help="decode, validate or produce; again for more."),
        click.option("--class", "classes", multiple=True, help="Name of the fault, as ls shows it; again for more."),
    ):
        command = option(command)
    return command


@click.group()
def command() -> None:
    """Look at dead letters, and replay them once what refused them is mended.

    A dead letter is a record that score or the sink could not use: its own bytes, with the reason in its headers. It
    stays in bnpl.transactions.dlq, one of an outcome in bnpl.outcomes.dlq, until retention removes it, replayed or not.
    """


@command.command("ls")
@_of
@_filters
@click.option(
    "--state", "states", type=click.Choice(STATES), multiple=True, help="What became of them; again for more."
)
@click.option(
    "--max", "limit", type=click.IntRange(0), default=_LISTED, show_default=True, help="How many to list, the newest."
)
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object.")
def ls(
    of: str,
    classes: tuple[str, ...],
    stages: tuple[str, ...],
    since: datetime | None,
    until: datetime | None,
    states: tuple[str, ...],
    limit: int,
    as_json: bool,
) -> None:
    """Count dead letters by stage, class and state, and list the newest. No value of a record is shown.

    \b
    waiting   can be replayed
    replayed  was sent again; if it was refused again, that has a letter of its own
    parked    refused BNPL_DEAD_LETTER_MAX_ATTEMPTS times: only `replay --parked` takes it
    line      a line of `bnpl-shadow produce` or `outcomes load`: mend it and send it by that command
    withheld  its value was too large for a letter, and stays where it was read
    foreign   not a dead letter of score or sink

    \b
    Examples:
      bnpl-shadow dlq ls --since 2d --state waiting
      bnpl-shadow dlq ls --class oversized --class out_of_range --json
    """
    settings = _settings(of)
    require_topics(settings, settings.topic_dead_letters)
    with _searching() as search:
        found = survey(settings, Filter(classes, stages, states or STATES, since, until), limit, search)
    click.echo(json.dumps(report.survey_document(found), indent=2) if as_json else report.survey_text(found))


@command.command("show")
@_of
@click.argument("place", type=Place(), metavar="PARTITION/OFFSET")
@click.option(
    "--value",
    "target",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="Write the record's value there, byte by byte; - is this terminal, in hex. It may hold personal data.",
)
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object, never with the value.")
def show(of: str, place: tuple[int, int], target: Path | None, as_json: bool) -> None:
    """Show one dead letter: where it was read, why it was refused, its headers, and what became of it.

    Key and value are not shown: they may hold personal data, and the key is the customer's id. --value hands the value
    out, to whoever asks for it by name. The record's own headers are shown as its producer wrote them.
    """
    settings = _settings(of)
    require_topics(settings, settings.topic_dead_letters)
    with _searching() as search:
        found = story(settings, place, search)
    if target:
        _hand_out(found.letter.record.value(), target, found.letter.place)
    if not target or str(target) != "-":
        click.echo(json.dumps(report.story_document(found), indent=2) if as_json else report.story_text(found))


def _hand_out(value: bytes | None, target: Path, place: str) -> None:
    if value is None:
        raise Fatal(f"{place} has no value")
    if str(target) != "-":
        try:
            target.write_bytes(value)
        except OSError as error:
            raise Fatal(f"{target} cannot be written: {error.strerror}") from error
    elif sys.stdout.isatty():
        click.echo(report.hex_lines(value))
    else:
        click.echo(value, nl=False)


@command.command("replay")
@_of
@click.argument("places", type=Place(), nargs=-1, metavar="[PARTITION/OFFSET]...")
@_filters
@click.option("--all", "everything", is_flag=True, help="All that wait, without a filter.")
@click.option("--parked", is_flag=True, help="Also those that were refused too often.")
@click.option(
    "--max",
    "limit",
    type=click.IntRange(1),
    help="How many at the most, the oldest.  [default: half of BNPL_DEAD_LETTER_MAX_CONSECUTIVE, 50]",
)
@click.option("--dry-run", is_flag=True, help="Say what would be replayed; change nothing.")
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object.")
def replay(
    of: str,
    places: tuple[tuple[int, int], ...],
    classes: tuple[str, ...],
    stages: tuple[str, ...],
    since: datetime | None,
    until: datetime | None,
    everything: bool,
    parked: bool,
    limit: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Send dead letters again, to the topic they were read from: those that are named, or the oldest that fit.

    Mend first what refused them: a limit, a schema that was missing, our code. The record stays what it was (key,
    value, own headers), and carries how often it was refused. Record and marker of the replay are one transaction:
    however this command ends, starting it again replays nothing twice.

    Records that are still bad come back as new letters with one more attempt, and count for the services' dead-letter
    limit: BNPL_DEAD_LETTER_MAX_CONSECUTIVE of them in a row stop score. That is why --max is low unless told
    otherwise: replay a few, look with `dlq ls`, then replay the rest.

    Exits 0 also when nothing fits, 1 when a place that was named cannot be replayed (then nothing is), 75 when Kafka
    does not answer.

    \b
    Examples:
      bnpl-shadow dlq replay --class oversized --max 10 --dry-run
      bnpl-shadow dlq replay --class oversized --since 2d
      bnpl-shadow dlq replay 0/17 2/4 --parked
    """
    narrowed = bool(classes or stages or since or until)
    if places and (narrowed or everything or limit):
        raise click.UsageError("name places, or say by filters which: not both")
    if not (places or narrowed or everything):
        raise click.UsageError("say which: PARTITION/OFFSET …, a filter such as --class or --since, or --all")
    settings = _settings(of)
    wanted = replays.Wanted(
        places,
        Filter(classes, stages, since=since, until=until),
        limit or max(1, settings.dead_letter_max_consecutive // 2),
        parked,
    )
    interrupt_on_terminate()
    plan, done = replays.Plan(), list[Replay]()
    try:
        with _searching() as search:
            if dry_run:
                plan = replays.plan(settings, wanted, search)
            else:
                plan = replays.replay(settings, wanted, done.extend, search)
    except (BnplError, KeyboardInterrupt):
        if done:
            click.echo(f"{len(done)} were replayed before this; the same command goes on after them", err=True)
        raise
    if as_json:
        click.echo(json.dumps(report.plan_document(plan, done, dry_run), indent=2))
    else:
        click.echo(report.plan_text(plan, done, dry_run))


def _settings(of: str) -> Settings:
    """The settings, with the dead-letter topic that is meant as the one that all of this looks at."""
    settings = load_settings()
    logs.configure("critical", "dlq")  # what the clients complain of, an error says
    if of == "outcomes":
        return settings.model_copy(update={"topic_dead_letters": settings.topic_outcomes_dead_letters})
    return settings


@contextmanager
def _searching() -> Iterator[Progress]:
    """A bar for the search through the topic."""
    with progress() as bars:
        task = bars.add_task("searching", total=None)

        def show(topic: str, done: int, total: int) -> None:
            bars.update(task, description=f"searching {topic}", completed=done, total=total)

        yield show
