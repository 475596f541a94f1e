"""The bench's ceiling: the score service with everything taken out but Kafka.

Same client, same settings, same batches, same transactions; the keys and values read are the ones written, nothing is
computed. What the score service loses against this is what decoding, deciding, scoring and encoding cost.
"""

from __future__ import annotations

import threading

from confluent_kafka import Message

from consumer.metrics import Metrics
from consumer.services import loop
from consumer.services.background import Background
from consumer.services.group import GroupMember
from consumer.services.loop import Batch
from consumer.services.pulse import Pulse
from consumer.services.transaction import Transaction
from consumer.settings import Settings


class PassThrough:
    """Copies transactions to the shadow topic, exactly once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.metrics = Metrics("shadow")
        self.pulse = Pulse(self.metrics)
        self._committing = Background()
        self._transaction = Transaction(settings, "passthrough")
        self._group = GroupMember(
            settings, settings.score_group, [settings.topic_transactions], self._committing.settle, self.metrics
        )

    def run(self, stop: threading.Event) -> None:
        """Copy until told to stop."""
        try:
            loop.run(stop, self._run_once, self._group.rewind, self._group, self.pulse)
        finally:
            loop.leave(self._committing.settle, self._transaction.abort, self._group)

    def _run_once(self) -> None:
        settings, lap = self._settings, self.pulse.stages.lap
        messages = self._group.read(settings.batch_max_records, settings.batch_max_wait_ms / 1000)
        if not messages:
            lap("idle")
            return
        batch = Batch.of(messages)
        lap("poll")
        keys = map(Message.key, messages)
        events = [{"key": key, "value": value} for key, value in zip(keys, batch.values, strict=True)]
        lap("encode")
        self._committing.settle()
        lap("commit")
        self._transaction.begin()
        self._transaction.produce_batch(settings.topic_shadow_scores, events)
        member = self._group.consumer.consumer_group_metadata()
        self._committing.start(lambda: self._transaction.commit(batch.next_offsets, member))
        lap("produce")
        self.metrics.records.labels("shadow", settings.topic_transactions).inc(len(messages))
