"""Every transaction has exactly one shadow event or dead letter, and every prediction its row: shown by identity, on a
running system, without stopping or moving anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from clickhouse_connect.driver.client import Client

from consumer.contracts.registry import SchemaRegistry, schema_registry
from consumer.services.clickhouse import PATIENT_SECONDS, connect
from consumer.settings import Settings
from consumer.watch.check.start import refuse_unready_table
from consumer.watch.reconcile import compare
from consumer.watch.reconcile.again import SecondLook
from consumer.watch.reconcile.bounds import Bounds, Looked, kept, take
from consumer.watch.reconcile.places import Fault, Keys, below, contained, counts, faults, joined
from consumer.watch.reconcile.table import later_predictions, read_rows
from consumer.watch.reconcile.topics import Progress, read_events, read_letters, read_transactions
from consumer.watch.records import TopicReader

KINDS = ("lost", "twice", "unknown", "not_stored", "rows_too_many")
"""What can be wrong; `Reconciliation` says what each is."""


@dataclass(frozen=True)
class ScoredPartition:
    """One partition of transactions: records before `committed` are consumed, the others wait unless they have an event
    or a letter already. Offsets from `start` to `end` were looked at.
    """

    partition: int
    start: int
    committed: int
    end: int
    consumed: int
    events: int
    letters: int
    rows: int
    waiting: int


@dataclass(frozen=True)
class StoredPartition:
    """One partition of shadow scores, in the same way; `letters` are those of the sink."""

    partition: int
    start: int
    committed: int
    end: int
    events: int
    letters: int
    rows: int
    waiting: int


@dataclass(frozen=True)
class Reconciliation:
    """Counts, and what does not add up. Nothing was lost and nothing done twice when it `holds`.

    What is on its way is no fault: transactions that score, and events that sink, has not committed.
    """

    produced: int
    scored: int
    """Shadow events; a transaction that was scored again by another model set has one of each."""
    dead_lettered: int
    stored: int
    """Rows of the shadow events that were looked at, and rows too many."""
    predictions: int
    """Distinct prediction ids in the topic: a transaction sent twice is scored twice and stored once."""
    waiting_for_score: int
    waiting_for_sink: int

    lost: int
    """Transactions that score has passed, with neither shadow event nor dead letter."""
    twice: int
    """Transactions with the same prediction twice, two dead letters, or a prediction and a dead letter."""
    unknown: int
    """Shadow events and dead letters of transactions that are not in the topic."""
    not_stored: int
    """Predictions that sink has passed, without a row."""
    rows_too_many: int
    """Rows without a shadow event of their own."""
    faults: tuple[Fault, ...]
    """The same with their offsets, by KINDS and partition."""

    expired: int
    """Transactions and predictions that cannot be proved, because retention deleted what would show it."""
    unreadable: int
    """Records of the shadow topic that are no shadow events."""
    never_sent: int
    """Dead letters of lines that never came into a topic."""
    replay_markers: int
    strays: int
    """Records of the dead-letter topic that are neither of these nor of our topics."""

    transactions: tuple[ScoredPartition, ...]
    shadow_scores: tuple[StoredPartition, ...]

    @property
    def holds(self) -> bool:
        return not self.faults


def reconcile(
    settings: Settings, *, since: datetime | None = None, progress: Progress = lambda *_: None
) -> Reconciliation:
    """Read the three topics and the table and compare them by identity; `since` looks only at transactions that Kafka
    dates at or after it, and at what came of them.

    Moves no group. Raises Retryable when a part cannot be asked, and Fatal, before anything is read, when topics or
    migrations are missing.
    """
    refuse_unready_table(settings)
    registry = schema_registry(settings)
    try:
        with TopicReader(settings) as reader, connect(settings, PATIENT_SECONDS) as client:
            return _Reconciler(settings, reader, client, registry, take(settings, reader, since), progress).compare()
    finally:
        if registry is not None:
            registry.close()


class _Reconciler:
    def __init__(
        self,
        settings: Settings,
        reader: TopicReader,
        client: Client,
        registry: SchemaRegistry | None,
        bounds: Bounds,
        progress: Progress,
    ) -> None:
        self._settings, self._reader, self._client, self._bounds = settings, reader, client, bounds
        transactions, scores = bounds.transactions.topic, bounds.scores.topic
        self._events = read_events(reader, bounds.scores, transactions, registry, progress)
        self._letters = read_letters(reader, bounds.letters, transactions, scores, progress)
        self._transactions = read_transactions(reader, bounds.transactions, progress)
        kept_events, events_gone = kept(reader, bounds.scores)
        _, letters_gone = kept(reader, bounds.letters)
        self._rows = read_rows(client, bounds, self._events, kept_events)
        self._again = SecondLook(settings, reader, client, registry, events_gone=events_gone, letters_gone=letters_gone)

    def compare(self) -> Reconciliation:
        events, letters, rows, bounds = self._events, self._letters, self._rows, self._bounds
        scored, stored = self._scored(), self._stored()
        too_many = self._rows_too_many()
        found = (
            *faults("lost", bounds.transactions.topic, scored.missing),
            *faults("twice", bounds.transactions.topic, compare.twice(events, letters)),
            *self._unknown(),
            *faults("not_stored", bounds.scores.topic, stored.missing),
            *faults("rows_too_many", bounds.scores.topic, too_many),
        )
        return Reconciliation(
            **{kind: sum(fault.count for fault in found if fault.kind == kind) for kind in KINDS},
            produced=len(self._transactions),
            scored=len(events.places),
            dead_lettered=len(letters.places),
            stored=int(rows.stored.sum()) + len(too_many),
            predictions=len(np.unique(events.predictions)),
            waiting_for_score=len(scored.waiting),
            waiting_for_sink=len(stored.waiting),
            faults=found,
            expired=scored.believed + stored.believed,
            unreadable=len(events.unreadable),
            never_sent=letters.never_sent,
            replay_markers=letters.replay_markers,
            strays=letters.strays,
            transactions=self._scored_partitions(scored.waiting),
            shadow_scores=self._stored_partitions(stored.waiting),
        )

    def _scored(self) -> _Open:
        """Transactions without event and letter."""
        found = compare.unaccounted(self._transactions, self._events, self._letters, self._rows.expired)
        passed = below(found, self._bounds.scored)
        return _judged(found[passed], found[~passed], self._again.of_transactions)

    def _stored(self) -> _Open:
        """Shadow events without row and letter."""
        events, rows, unreadable = self._events, self._rows, self._events.unreadable
        open_ = ~rows.stored & ~contained(events.places, self._letters.of_events)
        passed = below(events.places, self._bounds.stored)
        missing = compare.without_row(events, rows.stored, open_ & passed)
        if len(missing):
            later = later_predictions(self._client, self._bounds)
            missing = missing[~contained(events.predictions[missing], later)]
        unreadable = unreadable[~contained(unreadable, self._letters.of_events)]
        unreadable_passed = below(unreadable, self._bounds.stored)
        return _judged(
            joined([events.places[missing], unreadable[unreadable_passed]]),
            joined([events.places[open_ & ~passed], unreadable[~unreadable_passed]]),
            self._again.of_events,
        )

    def _rows_too_many(self) -> Keys:
        """Those of later events, too, must be in the topic by now."""
        too_many, later = self._rows.too_many, self._rows.later
        if len(later):
            with TopicReader(self._settings, isolation="read_uncommitted") as ahead:
                held = ahead.held(self._bounds.scores.topic)
            later = later[~below(later, {partition: end for partition, (_, end) in held.items()})]
        return joined([too_many, later])

    def _unknown(self) -> list[Fault]:
        events, letters, topics = self._events, self._letters, self._bounds
        starts, _ = kept(self._reader, topics.transactions)
        of_events = compare.unknown(events.places, events.sources, self._transactions, starts)
        of_letters = compare.unknown(letters.places, letters.sources, self._transactions, starts)
        return [
            *faults("unknown", topics.scores.topic, of_events),
            *faults("unknown", topics.letters.topic, of_letters),
        ]

    def _scored_partitions(self, waiting: Keys) -> tuple[ScoredPartition, ...]:
        looked, events, rows = self._bounds.transactions, self._events, self._rows
        consumed = counts(self._transactions[below(self._transactions, self._bounds.scored)])
        columns = (
            consumed,
            counts(events.sources),
            counts(self._letters.sources),
            counts(joined([events.sources[rows.stored], rows.expired])),
            counts(waiting),
        )
        return tuple(
            ScoredPartition(each, *_offsets(looked, self._bounds.scored, each), *(one.get(each, 0) for one in columns))
            for each in sorted(looked.ends)
        )

    def _stored_partitions(self, waiting: Keys) -> tuple[StoredPartition, ...]:
        looked, events = self._bounds.scores, self._events
        columns = (
            counts(events.places),
            counts(self._letters.of_events),
            counts(events.places[self._rows.stored]),
            counts(waiting),
        )
        return tuple(
            StoredPartition(each, *_offsets(looked, self._bounds.stored, each), *(one.get(each, 0) for one in columns))
            for each in sorted(looked.ends)
        )


@dataclass(frozen=True)
class _Open:
    """What is not accounted for: missing, on its way, and how many are believed gone by retention."""

    missing: Keys
    waiting: Keys
    believed: int


def _judged(missing: Keys, waiting: Keys, look_again: Callable[[Keys], Keys]) -> _Open:
    missing = np.sort(missing)
    believed = look_again(missing)
    return _Open(missing[~contained(missing, believed)], waiting, len(believed))


def _offsets(looked: Looked, committed: Mapping[int, int], partition: int) -> tuple[int, int, int]:
    return looked.starts[partition], committed.get(partition, looked.starts[partition]), looked.ends[partition]
