"""The bench's ceiling: the score service with everything taken out but Kafka.

Same client, same settings, same batches, same transactions; the bytes read are the bytes written, nothing is computed.
What the score service loses against this is what decoding, deciding, scoring and encoding cost.
"""

from __future__ import annotations

import threading

from consumer.services import loop
from consumer.services.background import Background
from consumer.services.group import GroupMember
from consumer.services.loop import Batch
from consumer.services.transaction import Transaction
from consumer.settings import Settings


class PassThrough:
    """Copies transactions to the shadow topic, exactly once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._committing = Background()
        self._transaction = Transaction(settings, "passthrough")
        self._group = GroupMember(
            settings, settings.score_group, [settings.topic_transactions], self._committing.settle
        )
        self.records = 0

    def run(self, stop: threading.Event) -> None:
        """Copy until told to stop."""
        try:
            loop.run(stop, self._run_once, self._group.rewind)
        finally:
            loop.leave(self._committing.settle, self._transaction.abort, self._group)

    def _run_once(self) -> None:
        settings = self._settings
        messages = self._group.read(settings.batch_max_records, settings.batch_max_wait_ms / 1000)
        if not messages:
            return
        batch = Batch.of(messages)
        events = [{"value": value} for value in batch.values]
        self._committing.settle()
        self._transaction.begin()
        self._transaction.produce_batch(settings.topic_shadow_scores, events)
        member = self._group.consumer.consumer_group_metadata()
        self._committing.start(lambda: self._transaction.commit(batch.next_offsets, member))
        self.records += len(messages)
