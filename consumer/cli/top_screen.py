"""An overview as a screen, and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from consumer.cli.control import told
from consumer.cli.lag import outlook, status_name
from consumer.watch.lag_document import group_document
from consumer.watch.status import LagReport, Status
from consumer.watch.top.overview import Overview, Process
from consumer.watch.top.service import State

_COLOURS: dict[State, str] = {"ready": "green", "not ready": "yellow", "not alive": "red", "away": "red"}
_STATUS_COLOURS = {Status.OK: "green", Status.WARN: "yellow"}
_LEAST_SHARE = 0.01
_MOST_LETTERS = 5
_MOST_DRIFTED = 8


def screen(overview: Overview, every: float | None = None) -> Group:
    """For a terminal; `every` seconds it is drawn anew, None for once."""
    again = f"   every {every:g} s, q ends" if every else ""
    parts: list[RenderableType] = [
        Text(f"BNPL shadow scoring   {overview.at:%Y-%m-%d %H:%M:%S}Z{again}", style="bold"),
        Text(),
        _services(overview),
        Text(),
        Text(_flow(overview)),
        Text(),
        _lag(overview),
        Text(),
        *(Text(line) for line in _stages(overview)),
        Text(),
        *(Text(line) for line in _deciding(overview)),
        *_letters(overview),
        _drift(overview),
    ]
    return Group(*parts)


def _services(overview: Overview) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("service", "address", "state", "up", "cpu", "memory"):
        table.add_column(name, justify="right" if name in ("up", "cpu", "memory") else "left", no_wrap=True)
    table.add_column("because")
    for each in overview.processes:
        look = each.look
        where, state = Text(look.url.removeprefix("http://")), Text(look.state, style=_COLOURS[look.state])
        table.add_row(Text(look.name), where, state, *_figures(each, overview.at), Text("; ".join(look.reasons)))
    return table


def _figures(process: Process, now: datetime) -> tuple[str, str, str]:
    started, cpu = process.look.started, process.rate("process_cpu_seconds_total")
    if not started:
        return "", "", ""
    memory = process.look.series.total("process_resident_memory_bytes")
    return _duration(now.timestamp() - started), "-" if cpu is None else f"{cpu:.0%}", f"{memory / 1e6:,.0f} MB"


def _flow(overview: Overview) -> str:
    names = {"read": "checkouts in", "scored": "scored", "stored": "stored"}
    return "   ".join(f"{names[name]} {_per_second(rate)}" for name, rate in _rates(overview).items())


def _rates(overview: Overview) -> dict[str, float | None]:
    return {
        "read": overview.read,
        "scored": overview.rate("bnpl_publish_total", result="ok"),
        "stored": overview.rate("bnpl_sink_rows_total", result="ok", table="shadow_scores"),
    }


def _per_second(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:,.0f}/s"


def _lag(overview: Overview) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("group", "topic", "messages", "expired", "seconds", "status"):
        table.add_column(name, justify="right" if name in ("messages", "expired", "seconds") else "left", no_wrap=True)
    table.add_column("outlook")
    for report in overview.lag:
        if report.look is None:
            table.add_row(report.group, "", "", "", "", Text("-"), Text(report.failed or "not asked yet"))
        for row, topic in enumerate(dict.fromkeys(each.topic for each in report.partitions)):
            of_the_group = outlook(report, overview.at) if row == 0 else ""
            table.add_row(report.group, topic, *_topic(report, topic, overview.at), of_the_group)
    return table


def _topic(report: LagReport, topic: str, now: datetime) -> tuple[str, str, str, Text]:
    partitions = [each for each in report.partitions if each.topic == topic]
    statuses = [status for each in partitions if (status := report.statuses.get(each.key)) is not None]
    worst = max(statuses, default=None)
    return (
        f"{sum(each.messages for each in partitions):,}",
        f"{sum(each.expired for each in partitions):,}",
        f"{max(each.seconds(now) for each in partitions):,.1f}",
        Text(status_name(worst), style="" if worst is None else _STATUS_COLOURS.get(worst, "red")),
    )


def _stages(overview: Overview) -> Iterator[str]:
    for lane, shares in overview.stages.items():
        shown = "  ".join(f"{stage} {share:.0%}" for stage, share in shares.items() if share >= _LEAST_SHARE)
        yield f"time of {lane}: {shown}"


def _deciding(overview: Overview) -> Iterator[str]:
    control = overview.control
    if control:
        yield f"who decides: {told(control)}"
        when = f"{control.made_at:%Y-%m-%d %H:%M}Z"
        yield f"  revision {control.revision}: {control.action} by {control.made_by}, {when}: {control.reason}"
    elif overview.control_failed is None:
        champions = " and ".join(sorted({champion for champion, _ in overview.champions})) or "the artifact's champion"
        yield f"who decides: the rules decide everything, {champions} is in shadow; no promotion yet"
    if overview.control_failed:
        yield f"  bnpl.control is not known: {overview.control_failed}"
    newest = control.revision if control else 0
    for url, revision in overview.revisions.items():
        if overview.control_failed is None and revision != newest:
            yield f"  {url.removeprefix('http://')} is still ruled by revision {revision}"


def _letters(overview: Overview) -> Iterator[Text]:
    found = sorted(overview.letters.items(), key=lambda item: -item[1])
    rate = overview.rate("bnpl_dlq_records_total")
    yield Text(f"dead letters since the start: {sum(count for _, count in found):,.0f}, now {_per_second(rate)}")
    for (topic, stage, error), count in found[:_MOST_LETTERS]:
        yield Text(f"  {count:,.0f} of {topic} at {stage}: {error}", style="yellow")


def _drift(overview: Overview) -> Text:
    if not overview.drift_known:
        return Text("drift: not known; no drift service has measured enough yet")
    alarms, warnings = overview.drifted(2), overview.drifted(1)
    if not alarms and not warnings:
        return Text("drift: none")
    parts = [(alarms, "ALARM"), (warnings, "warning")]
    return Text(
        "drift: " + "; ".join(f"{word} {_named(found)}" for found, word in parts if found),
        "red" if alarms else "yellow",
    )


def _named(found: list[tuple[str, str]]) -> str:
    shown = ", ".join(f"{kind} {name}" for kind, name in found[:_MOST_DRIFTED])
    return shown + (f" and {len(found) - _MOST_DRIFTED} more" if len(found) > _MOST_DRIFTED else "")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "m"), (rest, "s"))
    return " ".join([f"{value} {unit}" for value, unit in parts if value][:2]) or "0 s"


def document(overview: Overview) -> dict[str, Any]:
    """For programs: what is not known is null, and nothing is ever NaN or infinite."""
    control = overview.control
    return {
        "at": overview.at.isoformat(),
        "services": [_service(each) for each in overview.processes],
        "lag": [group_document(report, overview.at) for report in overview.lag if report.look],
        "lag_failed": {report.group: report.failed for report in overview.lag if report.failed},
        "per_second": {name: _finite(rate) for name, rate in _rates(overview).items()},
        "stages": overview.stages,
        "control": {
            "state": control.model_dump(mode="json") if control else None,
            "failed": overview.control_failed,
            "ruling": [{"champion": champion, "mode": mode} for champion, mode in overview.champions],
            "revisions": overview.revisions,
        },
        "dead_letters": [
            {"topic": topic, "stage": stage, "error": error, "count": int(count)}
            for (topic, stage, error), count in overview.letters.items()
        ],
        "dead_letters_per_second": _finite(overview.rate("bnpl_dlq_records_total")),
        "drift": {
            "known": overview.drift_known,
            "alarms": [{"kind": kind, "name": name} for kind, name in overview.drifted(2)],
            "warnings": [{"kind": kind, "name": name} for kind, name in overview.drifted(1)],
        },
    }


def _service(process: Process) -> dict[str, Any]:
    look = process.look
    return {
        "name": look.name,
        "url": look.url,
        "state": look.state,
        "reasons": list(look.reasons),
        "started": look.started or None,
        "cpu": _finite(process.rate("process_cpu_seconds_total")),
        "memory_bytes": look.series.total("process_resident_memory_bytes") or None,
    }


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None
