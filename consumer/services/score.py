"""The score service: transactions in, one shadow event each out, exactly once.

The commit protocol, by the numbers that code, tests and docs use:

1. read     a batch of records; rebalance callbacks run here
2. decode   bytes to columns; what cannot be used becomes a dead letter, its neighbours go on
3. score    the rules decide, then every model observes
4. encode   columns to shadow events
5. settle   wait for the previous batch's commit: one transaction is open at a time
6. publish  begin a transaction, hand it events and dead letters
7. offsets  put the next offsets to read into the same transaction
8. commit   all of 6 and 7 become visible at once, or none of it does

7 and 8 run in a thread of their own while 1 to 4 of the next batch go on. Up to 5 everything may be dropped and done
again; what 6 began is committed or aborted as a whole. After an abort the group reads again from what is committed.
"""

from __future__ import annotations

import threading
from typing import Any

from confluent_kafka import KafkaException
from threadpoolctl import threadpool_limits

from consumer.clock import Deadline, utc_now
from consumer.contracts.avro import Decoded
from consumer.contracts.events import EventReader, EventWriter
from consumer.contracts.registry import schema_registry
from consumer.contracts.schemas import WriterSchemas, writer_header
from consumer.contracts.transaction import FIELDS, Limits, refuse_impossible
from consumer.errors import Retryable
from consumer.logs import get_logger
from consumer.metrics import Metrics
from consumer.scoring.activation import Activation
from consumer.scoring.controller import Shadow, ShadowModeController
from consumer.scoring.shadow_event import Pseudonyms, ShadowEvents, Source
from consumer.services import loop
from consumer.services.background import Background
from consumer.services.control import ControlFollower, Ruler
from consumer.services.crash import CrashPoint
from consumer.services.dead_letters import DeadLetterMeter, send_dead_letters
from consumer.services.group import GroupMember
from consumer.services.kafka import as_error, require_topics
from consumer.services.loop import Batch, Reader
from consumer.services.observe import ScoreObserver
from consumer.services.pulse import Pulse
from consumer.services.transaction import Transaction
from consumer.settings import Settings

log = get_logger(__name__)

_GRACE_SECONDS = 5.0
"""After its timeout a commit is given up: the client may overstay it forever (confluentinc/librdkafka#5456)."""


class ScoreService:
    """One member of the score group. `run` returns after `stop` is set and what was published is committed."""

    def __init__(self, settings: Settings, controller: ShadowModeController) -> None:
        self._settings = settings
        self._controller = controller
        self.metrics = Metrics("shadow")
        self.pulse = Pulse(self.metrics)
        self._lap = self.pulse.stages.lap
        self._done = CrashPoint(settings, "score").after
        registry = schema_registry(settings)
        self._reader = EventReader(WriterSchemas("transaction", registry), FIELDS)
        self._writer = EventWriter(
            "shadow_event", writer_header("shadow_event", settings.topic_shadow_scores, registry)
        )
        key = settings.pseudonym_key.get_secret_value() if settings.pseudonym_key else None
        self._events = ShadowEvents(controller, self._writer.arrow_schema, Pseudonyms(key))
        self._limits = Limits.of(settings)
        self._meter = DeadLetterMeter(settings, settings.topic_transactions)
        self._observer = ScoreObserver(self.metrics, settings, controller)
        self._wanted = settings.batch_max_records
        self._committing = Background(settings.transaction_timeout_ms / 1000 + _GRACE_SECONDS)
        self._transaction = Transaction(settings, settings.score_group, self._done)
        self.metrics.publish_queue.set_function(lambda: len(self._transaction.producer))
        self._control = self._follow()
        self._activation: Activation | None = None
        self._group = self._join()

    def _follow(self) -> Ruler:
        return ControlFollower(self._settings, self._controller.predictor.model_set, self.metrics)

    def _join(self) -> Reader:
        settings = self._settings
        return GroupMember(settings, settings.score_group, [settings.topic_transactions], self._settle, self.metrics)

    def run(self, stop: threading.Event) -> None:
        """Score until told to stop. Raises a Fatal error when going on would do harm."""
        log.info("scoring", topic=self._settings.topic_transactions, **self._provenance())
        try:
            # one thread of BLAS: the products are small, and threads would only wait for each other
            with threadpool_limits(1, "blas"), self._control.following():
                loop.run(stop, self._run_once, self._recover, self._group, self.pulse)
        finally:
            self.pulse.stopping = True
            loop.leave(self._settle, self._transaction.abort, self._group)
            self._observer.tally.tell(final=True)
            log.info("stopped")

    def _run_once(self) -> None:
        activation = self._who_decides()
        messages = self._group.read(self._wanted, self._settings.batch_max_wait_ms / 1000)  # 1 read
        if not messages:
            self._rest()
            return
        batch = Batch.of(messages)
        self._lap("poll")
        self._done(1)
        decoded = self._decode(batch)  # 2 decode
        self._lap("decode")
        self._done(2)
        shadow = self._controller.score_batch(decoded.batch, self._lap, activation)  # 3 score
        self._done(3)
        events = self._encode(batch, decoded, shadow)  # 4 encode
        self._lap("encode")
        self._done(4)
        self._settle()  # 5 settle
        self._lap("commit")
        self._done(5)
        self._publish(batch, decoded, events)  # 6 publish
        self._done(6)
        membership = self._group.membership
        self._committing.start(lambda: self._commit(batch, decoded, membership))  # 7 offsets, 8 commit
        self._lap("produce")
        self._observer.read(batch, decoded, self._reader.labels_stripped)
        self._observer.scored(shadow)
        self._lap("observe")

    def _who_decides(self) -> Activation:
        """The newest good state of the control topic: between two batches is where it is taken over."""
        newest = self._control.newest()
        if newest != self._activation:
            self._activation = newest
            self._observer.ruled(newest)
        return newest

    def _rest(self) -> None:
        """Nothing came: let the commit under way end, and show that there is nothing left to do."""
        self._lap("idle")
        if self._committing.done:
            self._settle()
        if not self._committing.busy:
            self._group.pass_markers()
            if self._group.caught_up:
                self.pulse.progress()
        self._observer.tally.tell()

    def _decode(self, batch: Batch) -> Decoded:
        decoded = self._columns(batch)
        self._meter.count_rejected(batch.partitions, batch.offsets, decoded.rejected)
        return decoded

    def _columns(self, batch: Batch) -> Decoded:
        values = batch.values
        self._bound_bytes(values)
        return refuse_impossible(self._reader.read(values), self._limits)

    def _bound_bytes(self, values: list[bytes | None]) -> None:
        """Ask for as many records next time as will fit into `batch_max_bytes` if they are as large as these."""
        size = sum(map(len, filter(None, values))) / len(values) or 1
        self._wanted = max(1, min(self._settings.batch_max_records, int(self._settings.batch_max_bytes / size)))

    def _encode(self, batch: Batch, decoded: Decoded, shadow: Shadow) -> list[dict[str, Any]]:
        rows = decoded.positions
        source = Source(self._settings.topic_transactions, batch.partitions[rows], batch.offsets[rows])
        columns = self._events.build(decoded.batch, shadow, source, utc_now())
        keys = decoded.batch.column("transaction_id").to_pylist()
        return [{"key": key, "value": value} for key, value in zip(keys, self._writer.write(columns), strict=True)]

    def _publish(self, batch: Batch, decoded: Decoded, events: list[dict[str, Any]]) -> None:
        settings, transaction = self._settings, self._transaction
        try:
            transaction.begin()
            transaction.produce_batch(settings.topic_shadow_scores, events)
        except KafkaException as error:
            raise as_error(error) from error
        send_dead_letters(transaction.producer, settings.topic_dead_letters, batch.messages, decoded.rejected)

    def _commit(self, batch: Batch, decoded: Decoded, membership: object) -> None:
        """Steps 7 and 8, in a thread of their own."""
        with self._observer.publishing(decoded.batch.column("transaction_timestamp")):
            self._transaction.commit(batch.next_offsets, membership)
        self._group.note_committed(batch.next_offsets)

    def _settle(self, deadline: Deadline | None = None) -> None:
        """Step 5: learn how the commit under way ended."""
        if self._committing.busy:
            self._committing.settle(deadline)
            self.pulse.progress()

    def _recover(self) -> None:
        """Abandon what was begun and read again from what is committed. Raises Fatal when there is nowhere to write: to
        the client a topic that is gone looks like a broker that is slow.
        """
        try:
            self._settle()
        except Retryable as error:
            log.warning("not committed", reason=str(error))
        require_topics(self._settings, self._settings.topic_shadow_scores, self._settings.topic_dead_letters)
        self._transaction.abandon()
        self._meter.forget()
        self._group.rewind()

    def _provenance(self) -> dict[str, Any]:
        model_set, rules = self._controller.predictor.model_set, self._controller.rules
        return {
            "artifact": model_set.version,
            "artifact_sha256": model_set.digest,
            "models": [entry.name for entry in model_set.models],
            "champion": model_set.champion,
            "rules": rules.version,
            "rules_sha256": rules.sha256,
            "fused": list(self._controller.predictor.fused_models),
        }
