"""Drift as people and programs read it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from consumer.contracts.horizons import FULL_TERM
from consumer.evaluation.drift.counting import VALUES_KEPT
from consumer.evaluation.drift.judge import FlagShift, Shift, Vintage
from consumer.services.drift.look import UNSEEN_SHOWN, Drift

_WIDTH = 200
_STATES = ("ok", "warning", "ALARM")
_VINTAGES_SHOWN = 8


def report(found: Drift) -> str:
    """What was found, the most important first."""
    parts = [
        f"{found.rows:,} transactions of {found.first_day} to before {found.as_of}",
        f"against {found.version}: {found.source}",
        *found.notes,
    ]
    if found.rows:
        parts += ["", _shifts("features", found.features)]
    if found.flags or found.rows:
        parts += ["", _shifts("scores", found.scores), "", _flags(found.flags)]
    parts += ["", *_outcomes(found.vintages), *_unseen(found), "", _verdict(found)]
    return "\n".join(parts)


def _verdict(found: Drift) -> str:
    all_states = [
        *((each.name, each.state) for each in (*found.features, *found.scores)),
        *((f"flags of {each.name}", each.state) for each in found.flags),
    ]
    told = [
        f"{word.lower()}: {', '.join(names)}"
        for level, word in ((2, "ALARM"), (1, "warning"))
        if (names := [name for name, state in all_states if state == level])
    ]
    if told:
        return "; ".join(told)
    return "no drift" if found.judged else "nothing could be judged"


def _shifts(title: str, shifts: Sequence[Shift]) -> str:
    table = _table(
        title, "state", "PSI", "by chance", "Wasserstein", "JS", "outside", "unseen", "missing", "shift", "note"
    )
    for each in shifts:
        table.add_row(
            each.name,
            _state(each.state, each.window_state, each.muted),
            *map(_number, (each.psi, each.critical, each.wasserstein, each.jensen_shannon)),
            *map(_percent, (each.out_of_range, each.unseen, each.missing)),
            "" if each.mean_shift is None else f"{each.mean_shift:+.2f}",
            "; ".join(filter(None, (each.muted, each.not_measured))),
        )
    return _drawn(table)


def _flags(shifts: Sequence[FlagShift]) -> str:
    table = _table("flagged by", "state", "now", "before", "difference", "before is of", "note")
    for each in shifts:
        interval = "" if each.low is None or each.high is None else f"{100 * each.low:+.2f} to {100 * each.high:+.2f}"
        table.add_row(
            each.name,
            _state(each.state, each.window_state, None),
            _percent(each.now.value),
            _percent(each.base.value if each.base else None),
            interval,
            each.against or "",
            each.not_measured or "",
        )
    return _drawn(table)


def _outcomes(vintages: Sequence[Vintage]) -> list[str]:
    if not vintages:
        return [f"observed against expected: no outcome {FULL_TERM} of a transaction that is old enough yet"]
    weeks = sorted({each.week for each in vintages})[-_VINTAGES_SHOWN:]
    table = _table("week of", "model", "rows", "defaults", "expected", "observed / expected", "note")
    for each in (each for each in vintages if each.week in weeks):
        away = "" if each.low <= 1 <= each.high else "1 lies outside"
        ratio = f"{each.ratio:.2f} ({each.low:.2f} to {each.high:.2f})"
        table.add_row(
            each.week, each.model, f"{each.rows:,}", f"{each.observed:,}", f"{each.expected:,.1f}", ratio, away
        )
    return [_drawn(table)]


def _unseen(found: Drift) -> Iterable[str]:
    for each in found.unseen:
        times = f"{each.count:,} times, last on {each.last_day}"
        yield f"unknown value {each.value} of {each.column} since {each.first_day}: {times}"
    if len(found.unseen) == UNSEEN_SHOWN:
        yield f"these are the {UNSEEN_SHOWN} most frequent"
    if any(each.value.startswith("(") for each in found.unseen):
        yield f"of each column {VALUES_KEPT} values a block of offsets are counted by name"


def _state(state: int | None, window_state: int | None, muted: str | None) -> str:
    if window_state is None:
        return "-"
    if muted:
        return "muted"
    if state != window_state:
        return f"{_STATES[state or 0]} ({_STATES[window_state].lower()} once)"
    return _STATES[window_state]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}%"


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(first)
    for name in others:
        left = name in ("state", "note", "model", "before is of")
        table.add_column(name, justify="left" if left else "right")
    return table


def _drawn(table: Table) -> str:
    console = Console(width=_WIDTH)
    with console.capture() as drawn:
        console.print(table)
    return "\n".join(line.rstrip() for line in drawn.get().splitlines())
