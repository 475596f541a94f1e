"""`bnpl-shadow lag`: how far score and sink are behind."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from consumer import logs
from consumer.cli.signals import interrupt_on_terminate
from consumer.clock import utc_now
from consumer.errors import BnplError, Fatal
from consumer.services.kafka import bootstrap_servers, require_topics
from consumer.settings import Settings, load_settings
from consumer.watch.lag import LagReader, PartitionLag, topics_by_group
from consumer.watch.lag_document import document
from consumer.watch.status import LagReport, LagWindow, Status

_APART_SECONDS = 1.0
_EVERY_SECONDS = 2.0
_PIPE_WIDTH = 200

Watched = list[tuple[LagReader, LagWindow]]


@click.command("lag")
@click.option("--group", help="score, sink, or a group's name.  [default: score and sink]")
@click.option("--topic", "topics", multiple=True, help="What the group reads; again for more.  [default: as set]")
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object, with --watch one a line.")
@click.option(
    "--watch",
    "every",
    type=click.FloatRange(0.5, 20),
    is_flag=False,
    flag_value=_EVERY_SECONDS,
    metavar="[SECONDS]",
    help=f"Look again and again until Ctrl-C, every {_EVERY_SECONDS:.0f} s if not told otherwise.",
)
def command(group: str | None, topics: tuple[str, ...], as_json: bool, every: float | None) -> None:
    """Show what score has yet to read of transactions, and sink of shadow scores and outcomes: in messages and seconds.

    Messages are what `kafka-consumer-groups --describe` prints as LAG; a last one may be a transaction's marker,
    which is no record. Seconds are how long the first unread record has waited.

    \b
    OK      nothing to read, or it moves on and does not fall behind
    WARN    it moves on and falls behind: add processes, up to the partitions
    STOP    the group has no member: start the service
    STALL   it has members and for 30 s did not move: look at their logs
    REWIND  the committed offset went back: records are read again
    EXPIRED retention deleted records that were yet to be read
    -       not known yet: WARN and STALL take half a minute, use --watch

    Without --watch it looks twice, a second apart. Exits 1 when a group does not exist, 75 when Kafka does not
    answer, else 0, however large the lag.
    """
    settings = load_settings()
    logs.configure("critical", "lag")  # what the client complains of, a report says
    asked = _asked(settings, group, topics)
    require_topics(settings, *{topic for names in asked.values() for topic in names})
    interrupt_on_terminate()
    with ExitStack() as stack:
        watched = [
            (stack.enter_context(LagReader(settings, name, names)), LagWindow(name)) for name, names in asked.items()
        ]
        for reader, window in watched:
            window.add(reader.look())
        missing = [report.group for report in _reports(watched) if report.look and not report.look.exists]
        if len(missing) < len(watched):
            if every is None:
                _show_once(watched, as_json)
            else:
                _keep_showing(watched, as_json, every)
    if (missing and every is None) or len(missing) == len(watched):
        raise Fatal(
            f"Kafka at {bootstrap_servers(settings)} has no consumer group {' and no '.join(missing)}: start the "
            "service (`bnpl-shadow score`, `bnpl-shadow sink`, both by `bnpl-shadow run`), or name another by --group"
        )


def _asked(settings: Settings, group: str | None, topics: Sequence[str]) -> dict[str, Sequence[str]]:
    """The topics by the group that reads them."""
    ours = {"score": settings.score_group, "sink": settings.sink_group}
    read = topics_by_group(settings)
    if group is None:
        if topics:
            raise click.UsageError("--topic needs --group: whose lag on it?")
        return read
    name = ours.get(group, group)
    if not topics and name not in read:
        raise click.UsageError(f"{name} is not a group of these settings: name what it reads by --topic")
    return {name: topics or read[name]}


def _show_once(watched: Watched, as_json: bool) -> None:
    time.sleep(_APART_SECONDS)
    for reader, window in watched:
        window.add(reader.look())
    if as_json:
        click.echo(json.dumps(document(_reports(watched), utc_now()), indent=2))
    else:
        console = Console()
        console.width = console.width if console.is_terminal else _PIPE_WIDTH
        console.print(_screen(_reports(watched), utc_now()))


def _keep_showing(watched: Watched, as_json: bool, every: float) -> None:
    """Until Ctrl-C, which is how this ends and no failure."""
    console = Console()
    try:
        if as_json or not console.is_terminal:
            for reports in _looks(watched, every):
                if as_json:
                    click.echo(json.dumps(document(reports, utc_now())))
                else:
                    click.echo("\n".join(_line(report, utc_now()) for report in reports))
            return
        with Live(console=console, auto_refresh=False) as live:
            for reports in _looks(watched, every):
                live.update(_screen(reports, utc_now()), refresh=True)
    except KeyboardInterrupt:
        pass


def _looks(watched: Watched, every: float) -> Iterator[list[LagReport]]:
    """The reports, from the look that was taken on; a look that fails leaves the last one, which says why."""
    while True:
        yield _reports(watched)
        time.sleep(every)
        for reader, window in watched:
            try:
                window.add(reader.look(patience=0))
            except BnplError as error:
                window.miss(str(error))


def _reports(watched: Watched) -> list[LagReport]:
    return [window.report for _, window in watched]


def _screen(reports: list[LagReport], now: datetime) -> Group:
    return Group(_table(reports, now), *(f"{each.group}: {outlook(each, now)}" for each in filter(_exists, reports)))


def _table(reports: list[LagReport], now: datetime) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("group", "topic", "partition", "committed", "end", "messages", "expired", "seconds"):
        table.add_column(name, justify="left" if name in ("group", "topic") else "right")
    table.add_column("status")
    for report in filter(_exists, reports):
        for each in report.partitions:
            table.add_row(report.group, each.topic, str(each.partition), *_columns(report, each, now))
        sums = (f"{report.messages:,}", f"{report.expired:,}", f"{report.seconds(now):,.1f}", status_name(report.worst))
        table.add_row(report.group, "total", "", "", "", *sums, style="bold")
    return table


def _columns(report: LagReport, lag: PartitionLag, now: datetime) -> tuple[str, ...]:
    return (
        "-" if lag.committed is None else f"{lag.committed:,}",
        f"{lag.end:,}",
        f"{lag.messages:,}",
        f"{lag.expired:,}",
        f"{lag.seconds(now):,.1f}",
        status_name(report.statuses[lag.key]),
    )


def _line(report: LagReport, now: datetime) -> str:
    expired = f" ({report.expired:,} of them expired)" if report.expired else ""
    return (
        f"{now:%H:%M:%S}Z {report.group}: {report.messages:,} messages{expired}, {report.seconds(now):,.1f} s behind, "
        f"{status_name(report.worst)}, {outlook(report, now)}"
    )


def outlook(report: LagReport, now: datetime) -> str:
    if report.failed:
        return f"as of {report.age(now):.0f} s ago: {report.failed}"
    if report.drain_seconds is None:
        drain = "drain time not known yet"
    elif math.isinf(report.drain_seconds):
        drain = "not draining"
    else:
        drain = f"drained in {report.drain_seconds:,.0f} s" if report.drain_seconds else "caught up"
    return f"{report.look.state}, {drain}" if report.look else drain


def status_name(status: Status | None) -> str:
    return "-" if status is None else status.name


def _exists(report: LagReport) -> bool:
    return report.look is not None and report.look.exists
