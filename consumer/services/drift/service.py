"""The drift service: transactions counted by day and bin, and measured whenever that may have changed something.

A group of its own reads bnpl.transactions beside score, so that scoring never waits for it:

1. read     a batch of transactions
2. decode   bytes to columns; what cannot be used is score's to refuse
3. count    features, by the code that scoring uses, into training's bins
4. store    what was counted, as one block of rows, every so often
5. commit   the offsets to read next, once ClickHouse has acknowledged the rows
6. measure  drift, where the days of the windows have changed

Delivery is at least once and counting makes it exactly once (`services.drift.counts`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from datetime import date, timedelta

from confluent_kafka import KafkaException, TopicCollection, TopicPartition

from consumer.clock import Deadline, utc_now
from consumer.contracts.events import EventReader
from consumer.contracts.registry import schema_registry
from consumer.contracts.schemas import WriterSchemas
from consumer.contracts.transaction import FIELDS, Limits, refuse_impossible
from consumer.errors import Retryable
from consumer.logs import get_logger
from consumer.metrics import Labels, Metrics, total
from consumer.services import loop
from consumer.services.clickhouse import connect
from consumer.services.drift.counts import Counts, Partition
from consumer.services.drift.export import Export
from consumer.services.drift.look import WINDOW_DAYS, Drift, look, results
from consumer.services.drift.store import DriftStore, save_results
from consumer.services.group import GroupMember
from consumer.services.kafka import NETWORK_TIMEOUT_MS, admin, as_error, require_topics
from consumer.services.loop import Batch
from consumer.services.pulse import Pulse
from consumer.services.tally import Tally
from consumer.settings import Settings

log = get_logger(__name__)

JOB = "drift"
_STORE_SECONDS = 15.0
"""The longest that counts wait to be stored; the group's lag is as old."""
_ANYHOW_SECONDS = 3600.0
"""Scores may have been stored late: measured again after this long, whatever was counted."""


def group_of(settings: Settings, export: Export) -> str:
    """The group that counts for an export: another one has other bins, and begins with all that the topic holds."""
    return f"{settings.drift_group}-{export.reference.digest[:8]}"


class DriftService:
    """One member of the drift group. `run` returns after `stop` is set and what was counted is stored and committed."""

    def __init__(self, settings: Settings, export: Export, every: float) -> None:
        """`every`: the fewest seconds between two measurements. Raises Fatal when topic or tables are missing."""
        self._settings, self._export, self._every = settings, export, every
        self.metrics = Metrics("drift")
        self.pulse = Pulse(self.metrics)
        self._lap = self.pulse.stages.lap
        self._reader = EventReader(WriterSchemas("transaction", schema_registry(settings)), FIELDS)
        self._limits = Limits.of(settings)
        require_topics(settings, settings.topic_transactions)
        self._topic_id = _topic_id(settings)
        self._connect()
        self._store.newest_day()  # so that tables that are missing are told now
        self._counts = Counts(export.model_set.engineer, export.counter, self._load)
        self._read: dict[int, int] = {}
        """By partition the offset after the last record that was read and is not committed."""
        self._next_store = Deadline.after(min(every, _STORE_SECONDS))
        self._next_look = self._look_anyhow = Deadline.after(0)
        self._looked_at: date | None = None
        self._touched: set[date] = set()
        """Days of which something was stored since drift was measured."""
        self._found: Drift | None = None
        self.metrics.drift.read_from(lambda: drift_series(self._found))
        counted = {"records": lambda: total(self.metrics.records), "counted": lambda: total(self.metrics.drift_rows)}
        self._tally = Tally(log, "counted", counted)
        topics = [settings.topic_transactions]
        self._group = GroupMember(
            settings, group_of(settings, export), topics, self._settle, self.metrics, self._forget
        )

    def run(self, stop: threading.Event) -> None:
        """Count until told to stop. Raises a Fatal error when going on would do harm."""
        reference = self._export.reference
        log.info(
            "counting", topic=self._settings.topic_transactions, artifact=reference.version, against=reference.source
        )
        try:
            loop.run(stop, self._run_once, self._recover, self._group, self.pulse)
        finally:
            self.pulse.stopping = True
            loop.leave(self._settle, lambda: None, self._group)
            self._client.close()
            self._tally.tell(final=True)
            log.info("stopped")

    def _run_once(self) -> None:
        settings = self._settings
        messages = self._group.read(settings.batch_max_records, settings.sink_max_wait_ms / 1000)  # 1 read
        if messages:
            batch = Batch.of(messages)
            self._lap("poll")
            self._count(batch)
        else:
            self._lap("idle")
            if self._group.caught_up:
                self.pulse.progress()
        if self._next_store.passed or self._counts.full:
            self._settle()
            self._next_store = Deadline.after(min(self._every, _STORE_SECONDS))
            self._lap("commit")
        if not self._read:
            self._group.pass_markers()
            self._measure()
            self._lap("observe")
        self._tally.tell()

    def _count(self, batch: Batch) -> None:
        self.metrics.records.labels(self.metrics.lane, self._settings.topic_transactions).inc(len(batch.messages))
        decoded = refuse_impossible(self._reader.read(batch.values), self._limits)  # 2 decode
        self._lap("decode")
        rows = decoded.positions
        counted = self._counts.add(decoded.batch, batch.partitions[rows], batch.offsets[rows])  # 3 count
        self.metrics.drift_rows.inc(counted)
        for each in batch.next_offsets:
            self._counts.pass_to(each.partition, each.offset)
            self._read[each.partition] = each.offset
        self.pulse.progress()
        self._lap("features")

    def _settle(self, deadline: Deadline | None = None) -> None:
        """Store what was counted, then commit what was read."""
        changed = list(self._counts.changed())
        self._store.save(self._topic_id, changed)  # 4 store
        self._counts.stored()
        self._touched |= {date(1970, 1, 1) + timedelta(days=day) for _, _, (_, day), _ in changed}
        topic = self._settings.topic_transactions
        self._group.commit([TopicPartition(topic, *each) for each in self._read.items()], deadline)  # 5 commit
        self._read.clear()

    def _measure(self) -> None:
        """Step 6, if it may find anything new. ClickHouse may fail here and counting goes on: the last result stays
        until the next time.
        """
        today = utc_now().date()
        if not self._next_look.passed or not (self._outdated(today) or self._look_anyhow.passed):
            return
        self._next_look = Deadline.after(self._every)
        try:
            found = look(self._client, self._export, today)
            if found.judged:  # of days without traffic there is nothing to keep
                save_results(self._client, results(found))
        except Retryable as error:
            self.metrics.drift_failures.inc()
            log.warning("drift was not measured", reason=str(error))
            return
        self._tell(found)
        self._found, self._looked_at = found, today
        self._touched.clear()
        self._look_anyhow = Deadline.after(_ANYHOW_SECONDS)
        self.metrics.job_success.labels(JOB).set_to_current_time()

    def _outdated(self, today: date) -> bool:
        """Whether another day has begun, or days that are looked at have changed."""
        days = {today - timedelta(days=back) for back in range(1, WINDOW_DAYS + 2)}
        return today != self._looked_at or bool(self._touched & days)

    def _tell(self, found: Drift) -> None:
        """Log what has another state than when last measured."""
        before = self._found.states if self._found else {}
        for (kind, name), state in found.states.items():
            if (state or 0) != (before.get((kind, name)) or 0):
                log.warning("drift", kind=kind, name=name, state=state, as_of=str(found.as_of))

    def _recover(self) -> None:
        """Count again from what is committed. Raises Fatal when the topic is gone."""
        require_topics(self._settings, self._settings.topic_transactions)
        self._counts.forget()
        self._read.clear()
        self._connect()  # the old client may still be in the middle of an insert
        self._group.rewind()

    def _connect(self) -> None:
        self._client = connect(self._settings)
        self._store = DriftStore(self._client, self._export.reference.digest, self._export.counter)

    def _load(self, partition: int) -> Partition:
        return self._store.load(self._topic_id, partition)

    def _forget(self, gone: set[tuple[str, int]]) -> None:
        partitions = {partition for _, partition in gone}
        self._counts.forget(partitions)
        for each in partitions:
            self._read.pop(each, None)


def drift_series(found: Drift | None) -> Mapping[str, Iterable[tuple[Labels, float]]]:
    """A result as the series of `Metrics.drift`."""
    if found is None:
        return {}
    shifts = [*found.features, *found.scores]
    return {
        "bnpl_drift_psi": [((each.kind, each.name), each.psi) for each in shifts if each.psi is not None],
        "bnpl_drift_state": [(key, state) for key, state in found.states.items() if state is not None],
        "bnpl_feature_out_of_range_ratio": [
            ((each.name,), each.out_of_range) for each in found.features if each.out_of_range is not None
        ],
        "bnpl_drift_window_rows": [((), found.rows)],
    }


def _topic_id(settings: Settings) -> str:
    """What tells a topic from another of the same name that was made after it was deleted.

    Raises KafkaUnavailable when the broker does not answer.
    """
    name = settings.topic_transactions
    client = admin(settings)  # held until the answer is there: it takes its calls with it
    answers = client.describe_topics(TopicCollection([name]), request_timeout=NETWORK_TIMEOUT_MS / 1000)
    try:
        return str(answers[name].result(NETWORK_TIMEOUT_MS / 1000).topic_id)
    except KafkaException as error:
        raise as_error(error) from error
