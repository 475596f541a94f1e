"""The sink service: shadow events and outcomes in, one ClickHouse row each (`services/feed.py`).

Delivery is at least once and the tables make it idempotent (`deploy/clickhouse/0001_shadow_scores.sql`,
`0004_outcomes.sql`), so the steps are fewer than score's:

1. read    a batch of committed records, of either topic
2. decode  bytes to columns; what cannot be used becomes a dead letter
3. settle  wait for the previous batch: one insert is under way at a time
4. insert  the rows, a block for each table and month
5. commit  the offsets to read next, once ClickHouse has acknowledged the rows

4 runs in a thread of its own while 1 and 2 of the next batch go on; 5 belongs to 3, because a member of a group must
not be used by two threads at once. Dying anywhere repeats rows, never loses one. While ClickHouse is away the group
keeps its place, and the topics keep the events.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from confluent_kafka import KafkaError, KafkaException, Producer

from consumer.clock import Deadline
from consumer.errors import Fatal, KafkaUnavailable, Retryable
from consumer.logs import get_logger
from consumer.metrics import Metrics
from consumer.services import loop
from consumer.services.background import Background
from consumer.services.clickhouse import connect, errors_named
from consumer.services.crash import CrashPoint
from consumer.services.dead_letters import send_dead_letters
from consumer.services.feed import Lot, feeds
from consumer.services.group import GroupMember
from consumer.services.kafka import as_error, made, producer_config, require_topics
from consumer.services.loop import Batch
from consumer.services.observe import SinkObserver
from consumer.services.pulse import Pulse
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
        self._feeds = feeds(settings)
        self.metrics = Metrics("sink")
        self.pulse = Pulse(self.metrics)
        self._lap = self.pulse.stages.lap
        self._done = CrashPoint(settings, "sink").after
        self._observer = SinkObserver(self.metrics, [feed.table.name for feed in self._feeds.values()])
        self._clickhouse = connect(settings)
        self._dead_letters = made(Producer, producer_config(settings) | {"on_delivery": self._delivered})
        self._undelivered: list[KafkaError] = []
        self._insertion = Background()
        self._group = GroupMember(settings, settings.sink_group, list(self._feeds), self._settle, self.metrics)
        self._inserting: Sequence[Lot] = ()

    def run(self, stop: threading.Event) -> None:
        """Store until told to stop. Raises a Fatal error when going on would do harm."""
        log.info("storing", **{feed.table.name: topic for topic, feed in self._feeds.items()})
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
        batches = Batch.by_topic(messages)
        self._lap("poll")
        self._done(1)
        lots = [self._feeds[topic].take(batch) for topic, batch in batches.items()]  # 2 decode
        self._lap("decode")
        self._done(2)
        self._settle()  # 3 settle
        self._lap("commit")
        self._done(3)
        self._inserting = lots
        self._insertion.start(lambda: self._insert(lots))  # 4 insert
        for lot in lots:
            self._observer.read(lot)
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

    def _insert(self, lots: Sequence[Lot]) -> None:
        client = self._clickhouse  # an insert that was given up must not touch the one that replaced it
        for lot in lots:
            if lot.rows.num_rows:
                table = lot.feed.table
                with self._observer.inserting(lot), errors_named():
                    for block in table.blocks(lot.rows):
                        client.insert_arrow(table.name, block, settings=_INSERT_SETTINGS)
        self._send_dead_letters(lots)
        self._done(4)

    def _settle(self, deadline: Deadline | None = None) -> None:
        """Wait for the insert under way, then commit it; raises what either failed with, and then never commits it."""
        inserted, self._inserting = self._inserting, ()
        self._insertion.settle(deadline)
        if inserted:
            self._group.commit([place for lot in inserted for place in lot.batch.next_offsets], deadline)  # 5 commit
            self._done(5)
            self.pulse.progress()

    def _send_dead_letters(self, lots: Sequence[Lot]) -> None:
        refused = [lot for lot in lots if lot.decoded.rejected]
        for lot in refused:
            send_dead_letters(self._dead_letters, lot.feed.letters, lot.batch.messages, lot.decoded.rejected)
        waiting = self._dead_letters.flush(_FLUSH_SECONDS) if refused else 0
        failed, self._undelivered = self._undelivered, []
        if not waiting and not failed:
            return
        self.metrics.dead_letter_failures.inc(waiting + len(failed))
        for error in map(as_error, map(KafkaException, failed)):
            if isinstance(error, Fatal):
                raise Fatal(f"dead letters cannot be written to {_letters(refused)}: {error}")
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
        require_topics(self._settings, *(feed.letters for feed in self._feeds.values()))
        for feed in self._feeds.values():
            feed.meter.forget()
        self._clickhouse = connect(self._settings)  # the old one may still be in the middle of an insert
        self._group.rewind()


def _letters(lots: Sequence[Lot]) -> str:
    return " or ".join(lot.feed.letters for lot in lots)
