"""Steps 6 to 8 of the commit protocol on one transactional producer (see services/score.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaException, Producer, TopicPartition

from consumer.clock import Deadline
from consumer.errors import Fenced
from consumer.services.kafka import as_error, transactional_producer
from consumer.settings import Settings


class Transaction:
    """One Kafka transaction after the other: begun, filled through `producer`, committed with its offsets.

    `group` and BNPL_INSTANCE make the transactional id: a second process under the same id fences this one.
    """

    def __init__(self, settings: Settings, group: str) -> None:
        self._settings = settings
        self._group = group
        self._begun = False
        self.producer: Producer = transactional_producer(settings, group)

    def begin(self) -> None:
        """Step 6 begins. Raises one of our errors."""
        self.producer.begin_transaction()
        self._begun = True

    def produce_batch(self, topic: str, messages: list[dict[str, Any]]) -> None:
        """Queue all of `messages` (dicts of key and value), or raise KafkaException."""
        if self.producer.produce_batch(topic, messages) != len(messages):
            raise KafkaException(next(message["_error"] for message in messages if "_error" in message))

    def commit(self, next_offsets: list[TopicPartition], member: object) -> None:
        """Steps 7 and 8. May run in another thread than `begin`, while nothing else is called.

        Raises Fenced, another Fatal error, or KafkaUnavailable: then `abandon` before beginning again.
        """
        producer = self.producer  # a commit that was given up must not touch the one that replaced it
        deadline = Deadline.after(self._settings.transaction_timeout_ms / 1000)
        self._insist(lambda: producer.send_offsets_to_transaction(next_offsets, member, deadline.remaining), deadline)
        self._insist(lambda: producer.commit_transaction(deadline.remaining), deadline)
        self._begun = False

    def abandon(self) -> None:
        """Undo what was begun and not committed; nothing when there is none.

        When the client cannot tell whether a commit went through, a new producer takes the place of the old one: the
        broker then finishes what it had decided before it lets the new one begin.
        """
        if not self._begun:
            return
        try:
            self.producer.abort_transaction(self._settings.transaction_timeout_ms / 1000)
        except KafkaException as error:
            failure = as_error(error)
            if isinstance(failure, Fenced):
                raise failure from error
            self.producer = transactional_producer(self._settings, self._group)
        self._begun = False

    @staticmethod
    def _insist(step: Callable[[], None], deadline: Deadline) -> None:
        """Do a step again while the client says that it may be repeated as it is."""
        while True:
            try:
                return step()
            except KafkaException as error:
                if not error.args[0].retriable() or deadline.passed:
                    raise as_error(error) from error
