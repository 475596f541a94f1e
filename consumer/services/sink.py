"""The sink service: shadow events in, one ClickHouse row a prediction.

Delivery is at least once and the table makes it idempotent (`deploy/clickhouse/0001_shadow_scores.sql`), so the steps
are fewer than score's:

1. read    a batch of committed shadow events
2. decode  bytes to columns; what cannot be used becomes a dead letter
3. settle  wait for the previous batch: one insert is under way at a time
4. insert  the rows, as one block
5. commit  the offsets to read next, once ClickHouse has acknowledged the rows

4 runs in a thread of its own while 1 and 2 of the next batch go on; 5 belongs to 3, because a member of a group must
not be used by two threads at once. Dying anywhere repeats rows, never loses one. While ClickHouse is away the group
keeps its place, and the topic keeps the events.
"""

from __future__ import annotations

import threading

import pyarrow as pa
from confluent_kafka import KafkaError, KafkaException, Producer

from consumer.clock import Deadline
from consumer.contracts.avro import Decoded
from consumer.contracts.events import EventReader
from consumer.contracts.registry import schema_registry
from consumer.contracts.schemas import WriterSchemas, latest
from consumer.errors import Fatal, KafkaUnavailable, Retryable
from consumer.logs import get_logger
from consumer.metrics import Metrics
from consumer.services import loop
from consumer.services.background import Background
from consumer.services.clickhouse import connect, errors_named
from consumer.services.crash import CrashPoint
from consumer.services.dead_letters import DeadLetterMeter, send_dead_letters
from consumer.services.group import GroupMember
from consumer.services.kafka import as_error, made, producer_config, require_topics
from consumer.services.loop import Batch
from consumer.services.observe import SinkObserver
from consumer.services.pulse import Pulse
from consumer.services.rows import TABLE, by_partition, rows
from consumer.settings import Settings

log = get_logger(__name__)

_FLUSH_SECONDS = 10.0
_INSERT_SETTINGS = {
    "async_insert": 0,  # the default of recent servers holds small inserts back
    "insert_deduplicate": 0,  # rows replace each other by key; see docs/decisions/0004
    "optimize_on_insert": 0,  # replacing rows within a block already on insert takes four times as long; FINAL does it
}


class SinkService:
    """One member of the sink group. `run` returns after `stop` is set and what was inserted is committed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        registry = schema_registry(settings)
        self._reader = EventReader(WriterSchemas("shadow_event", registry), latest("shadow_event").schema["fields"])
        self._meter = DeadLetterMeter(settings)
        self.metrics = Metrics("sink")
        self.pulse = Pulse(self.metrics)
        self._lap = self.pulse.stages.lap
        self._done = CrashPoint(settings, "sink").after
        self._observer = SinkObserver(self.metrics, settings, TABLE)
        self._clickhouse = connect(settings)
        self._dead_letters = made(Producer, producer_config(settings) | {"on_delivery": self._delivered})
        self._undelivered: list[KafkaError] = []
        self._insertion = Background()
        self._group = GroupMember(
            settings, settings.sink_group, [settings.topic_shadow_scores], self._settle, self.metrics
        )
        self._inserting: Batch | None = None

    def run(self, stop: threading.Event) -> None:
        """Store until told to stop. Raises a Fatal error when going on would do harm."""
        log.info("storing", topic=self._settings.topic_shadow_scores, table=TABLE)
        try:
            loop.run(stop, self._run_once, self._recover, self._group, self.pulse)
        finally:
            self.pulse.stopping = True
            loop.leave(self._settle, lambda: None, self._group)
            self._clickhouse.close()
            self._observer.tally.tell(final=True)
            log.info("stopped")

    def _run_once(self) -> None:
        wait = self._settings.sink_max_wait_ms / 1000
        messages = self._group.read(self._settings.sink_max_records, wait)  # 1 read
        if not messages:
            self._rest()
            return
        batch = Batch.of(messages)
        self._lap("poll")
        self._done(1)
        decoded = self._reader.read(batch.values)  # 2 decode
        self._meter.count_rejected(batch.partitions, batch.offsets, decoded.rejected)
        table = rows(decoded, batch.partitions, batch.offsets)
        self._lap("decode")
        self._done(2)
        self._settle()  # 3 settle
        self._lap("commit")
        self._done(3)
        self._inserting = batch
        self._insertion.start(lambda: self._insert(batch, decoded, table))  # 4 insert
        self._observer.read(batch, decoded)
        self._lap("observe")

    def _rest(self) -> None:
        """Nothing came: let the insert under way end, and show that there is nothing left to do."""
        self._lap("idle")
        if self._insertion.done:
            self._settle()
        if not self._insertion.busy:
            self._group.pass_markers()
            if self._group.caught_up:
                self.pulse.progress()
        self._observer.tally.tell()

    def _insert(self, batch: Batch, decoded: Decoded, table: pa.Table) -> None:
        client = self._clickhouse  # an insert that was given up must not touch the one that replaced it
        if table.num_rows:
            with self._observer.inserting(decoded.batch.column("event_time")), errors_named():
                for block in by_partition(table):
                    client.insert_arrow(TABLE, block, settings=_INSERT_SETTINGS)
        self._send_dead_letters(batch, decoded)
        self._done(4)

    def _settle(self, deadline: Deadline | None = None) -> None:
        """Wait for the insert under way, then commit it; raises what either failed with, and then never commits it."""
        inserted, self._inserting = self._inserting, None
        self._insertion.settle(deadline)
        if inserted is not None:
            self._group.commit(inserted.next_offsets, deadline)  # 5 commit
            self._done(5)
            self.pulse.progress()

    def _send_dead_letters(self, batch: Batch, decoded: Decoded) -> None:
        topic = self._settings.topic_dead_letters
        send_dead_letters(self._dead_letters, topic, batch.messages, decoded.rejected)
        waiting = self._dead_letters.flush(_FLUSH_SECONDS) if decoded.rejected else 0
        failed, self._undelivered = self._undelivered, []
        if not waiting and not failed:
            return
        self.metrics.dead_letter_failures.inc(waiting + len(failed))
        for error in map(as_error, map(KafkaException, failed)):
            if isinstance(error, Fatal):
                raise Fatal(f"dead letters cannot be written to {topic}: {error}")
        raise KafkaUnavailable(f"{waiting + len(failed)} dead letters were not acknowledged")

    def _delivered(self, error: KafkaError | None, _: object) -> None:
        if error is not None:
            self._undelivered.append(error)

    def _recover(self) -> None:
        """Read again from what is committed. Raises Fatal when there is no topic for dead letters any more."""
        try:
            self._settle()
        except Retryable as error:
            log.warning("not stored", reason=str(error))
        require_topics(self._settings, self._settings.topic_dead_letters)
        self._meter.forget()
        self._clickhouse = connect(self._settings)  # the old one may still be in the middle of an insert
        self._group.rewind()
