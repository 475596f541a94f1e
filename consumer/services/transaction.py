"""Steps 6 to 8 of the commit protocol on one transactional producer (see services/score.py)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaException, Producer, TopicPartition

from consumer.clock import Deadline
from consumer.errors import BnplError, Fenced, KafkaUnavailable
from consumer.services.kafka import as_error, transactional_producer
from consumer.settings import Settings

_ABORT_SECONDS = 5.0


class Transaction:
    """One Kafka transaction after the other: begun, filled through `producer`, committed with its offsets.

    `group` and BNPL_INSTANCE make the transactional id: a second process under the same id fences this one.
    """

    def __init__(self, settings: Settings, group: str, done: Callable[[int], None] = lambda _: None) -> None:
        """`done` is told the number of a step of `commit` when it is over."""
        self._settings = settings
        self._id = f"{group}-{settings.instance}"
        self._done = done
        self.producer: Producer = transactional_producer(settings, self._id)
        self._begun_by: Producer | None = None
        self._begun_at = 0.0

    def begin(self) -> None:
        """Step 6 begins. Raises KafkaException."""
        self.producer.begin_transaction()
        self._begun_by, self._begun_at = self.producer, time.monotonic()

    def produce_batch(self, topic: str, messages: list[dict[str, Any]]) -> None:
        """Queue all of `messages` (dicts of key and value), or raise KafkaException."""
        if self.producer.produce_batch(topic, messages) != len(messages):
            raise KafkaException(next(message["_error"] for message in messages if "_error" in message))

    def commit(self, next_offsets: list[TopicPartition], membership: object) -> None:
        """Steps 7 and 8. `membership` is what proves that the offsets are ours to commit (`GroupMember.membership`).

        May run in another thread than `begin`, while nothing else is called.

        Raises Fenced, another Fatal error, or KafkaUnavailable: then `abandon` before beginning again.
        """
        producer = self.producer  # a commit that was given up must not touch the one that replaced it
        deadline = Deadline.after(self._settings.transaction_timeout_ms / 1000)
        self._insist(
            lambda: producer.send_offsets_to_transaction(next_offsets, membership, deadline.remaining), deadline
        )
        self._done(7)
        self._insist(lambda: producer.commit_transaction(deadline.remaining), deadline)
        self._done(8)
        if self._begun_by is producer:
            self._begun_by = None

    def abandon(self) -> None:
        """Undo what was begun and not committed; nothing when there is none. Raises KafkaUnavailable.

        A new producer takes the place of the old one: the broker first finishes what it had decided about the old
        one's transaction, else aborts it, and lets the old one write nothing more.
        """
        if self._begun_by is not None:
            self.producer = transactional_producer(self._settings, self._id)
            self._begun_by = None

    def abort(self) -> None:
        """Tell the broker to drop what was begun and not committed, so that readers need not wait for it to time out.

        Raises Fenced, or KafkaUnavailable when that cannot be told.
        """
        if self._begun_by is None:
            return
        try:
            self.producer.abort_transaction(_ABORT_SECONDS)
        except KafkaException as error:
            failure = self._named(error)
            raise (failure if isinstance(failure, Fenced) else KafkaUnavailable(str(failure))) from error
        self._begun_by = None

    def _insist(self, step: Callable[[], None], deadline: Deadline) -> None:
        """Do a step again while the client says that it may be repeated as it is."""
        while True:
            try:
                return step()
            except KafkaException as error:
                if not error.args[0].retriable() or deadline.passed:
                    raise self._named(error) from error

    def _named(self, error: KafkaException) -> BnplError:
        """The error as one of ours. The broker that aborts an overdue transaction fences its producer just as another
        instance would; then a new producer may go on.
        """
        failure = as_error(error)
        overdue = time.monotonic() - self._begun_at > self._settings.transaction_timeout_ms / 1000
        if isinstance(failure, Fenced) and overdue:
            return KafkaUnavailable("the broker aborted a transaction that took too long")
        return failure
