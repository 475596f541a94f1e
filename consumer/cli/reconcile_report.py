"""A reconciliation as people and programs read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, astuple, fields
from typing import Any

from rich.console import Console
from rich.table import Table

from consumer.clock import utc_now
from consumer.errors import Retryable
from consumer.watch.reconcile.reconcile import KINDS, Reconciliation, ScoredPartition, StoredPartition

_WIDTH = 200
_MOST_RANGES = 20
"""Ranges that are printed of one fault; a program gets all."""
_REMARKS = {
    "expired": "cannot be proved: retention deleted their letters or events",
    "unreadable": "records of the shadow topic are no shadow events",
    "never_sent": "dead letters are of lines that never came into a topic",
    "replay_markers": "records of the dead-letter topic mark a replay",
    "strays": "records of the dead-letter topic are no dead letters of these topics",
}


def report(found: Reconciliation) -> str:
    """Partition by partition, then the totals, then every fault with its offsets."""
    console = Console(width=_WIDTH)
    with console.capture() as tables:
        console.print(_table("transactions", ScoredPartition, found.transactions))
        console.print()
        console.print(_table("shadow scores", StoredPartition, found.shadow_scores))
    remarks = [f"{getattr(found, name):,} {text}" for name, text in _REMARKS.items() if getattr(found, name)]
    lines = [tables.get(), *_totals(found), *remarks, *_faults(found)]
    return "\n".join(each.rstrip() for each in "\n".join(lines).splitlines())


def line(found: Reconciliation | Retryable) -> str:
    """One line, and one more a fault."""
    now = f"{utc_now():%H:%M:%S}Z"
    if isinstance(found, Retryable):
        return f"{now} could not be asked: {found}"
    return "\n".join([f"{now} {'; '.join(_totals(found))}", *(f"  {fault}" for fault in _faults(found))])


def document(found: Reconciliation | Retryable) -> dict[str, Any]:
    """What --json prints; `holds` is null when nothing could be asked."""
    at = {"at": utc_now().isoformat(timespec="seconds")}
    if isinstance(found, Retryable):
        return {**at, "holds": None, "not_asked": str(found)}
    return {**at, "holds": found.holds, **asdict(found)}


def _totals(found: Reconciliation) -> list[str]:
    verdict = "holds" if found.holds else "DOES NOT HOLD"
    wrong = ", ".join(f"{kind.replace('_', ' ')} {getattr(found, kind):,}" for kind in KINDS)
    return [
        f"{verdict}: {wrong}",
        f"{found.produced:,} transactions: {found.scored:,} shadow events, {found.dead_lettered:,} dead letters, "
        f"{found.waiting_for_score:,} waiting for score",
        f"{found.predictions:,} predictions: {found.stored:,} rows, {found.waiting_for_sink:,} events waiting for sink",
    ]


def _faults(found: Reconciliation) -> list[str]:
    return [fault.told(_MOST_RANGES) for fault in found.faults]


def _table(
    title: str, kind: type[ScoredPartition | StoredPartition], partitions: Sequence[ScoredPartition | StoredPartition]
) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in (title, *(each.name for each in fields(kind)[1:])):
        table.add_column(name, justify="right")
    for one in partitions:
        table.add_row(*(f"{number:,}" for number in astuple(one)))
    return table
