"""Steps 6 to 8 of the commit protocol on one transactional producer (see services/score.py)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from consumer.clock import Deadline, utc_now
from consumer.errors import BnplError, Fenced, KafkaUnavailable
from consumer.services.kafka import (
    NETWORK_TIMEOUT_MS,
    TAKEN_OVER,
    as_error,
    consumer_config,
    made,
    transactional_producer,
)
from consumer.settings import Settings

_ABORT_SECONDS = 5.0


class Transaction:
    """One Kafka transaction after the other: begun, filled through `producer`, committed with its offsets.

    `group` and BNPL_INSTANCE make the transactional id: a second process under the same id fences this one.
    """

    def __init__(self, settings: Settings, group: str, done: Callable[[int], None] = lambda _: None) -> None:
        """`done` is told the number of a step of `commit` when it is over."""
        self._settings = settings
        self._group = group
        self._id = f"{group}-{settings.instance}"
        self._done = done
        self.producer: Producer = transactional_producer(settings, self._id)
        self._begun_by: Producer | None = None
        self._begun_at = 0.0
        self._started_ms = int(utc_now().timestamp() * 1000)
        self._offsets: list[TopicPartition] = []

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
        signature = f"{self._settings.instance}/{self._started_ms}"
        offsets = [TopicPartition(each.topic, each.partition, each.offset, signature) for each in next_offsets]
        self._offsets = offsets
        self._insist(lambda: producer.send_offsets_to_transaction(offsets, membership, deadline.remaining), deadline)
        self._done(7)
        self._insist(lambda: producer.commit_transaction(deadline.remaining), deadline)
        self._done(8)
        if self._begun_by is producer:
            self._begun_by = None

    def abandon(self) -> None:
        """Undo what was begun and not committed; nothing when there is none. Raises KafkaUnavailable, or Fenced when
        this process slept so long that another one of its name is at work.

        A new producer takes the place of the old one: the broker first finishes what it had decided about the old
        one's transaction, else aborts it, and lets the old one write nothing more.
        """
        if self._begun_by is not None:
            self._refuse_to_fence_a_successor()
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

    def _refuse_to_fence_a_successor(self) -> None:
        """A process that was replaced while it slept finds its transaction gone, as if it had merely been slow. But the
        offsets are signed by whoever committed them: a later start under the same name is a successor.
        """
        # read_committed readers are told nothing while a transaction that commits some is open
        config = consumer_config(self._settings, self._group, "classic") | {"isolation.level": "read_uncommitted"}
        reader = made(Consumer, config)
        try:
            committed = reader.committed(self._offsets, NETWORK_TIMEOUT_MS / 1000) if self._offsets else []
        except KafkaException as error:
            raise as_error(error) from error
        finally:
            reader.close()
        for each in committed:
            name, _, started = (each.metadata or "").rpartition("/")
            if name == self._settings.instance and started.isdecimal() and int(started) > self._started_ms:
                raise Fenced(TAKEN_OVER)

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
