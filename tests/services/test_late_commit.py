"""One transaction after the other on a real broker, when a commit ends later than anybody waits for it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from harness import eventually, read_topic

from consumer.services.transaction import Transaction
from consumer.settings import Settings


class Overstaying:
    """A producer whose commit is done, and does not return before it is told to."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self.committed, self.return_ = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def commit_transaction(self, seconds: float) -> None:
        self._producer.commit_transaction(seconds)
        self.committed.set()
        assert self.return_.wait(60)


def test_a_commit_that_was_given_up_and_ends_late_does_not_touch_the_next_transaction(settings: Settings) -> None:
    topic = settings.topic_shadow_scores
    member = Consumer({"bootstrap.servers": settings.kafka_bootstrap_servers, "group.id": settings.score_group})
    nothing = [TopicPartition(settings.topic_transactions, 0, 0)]
    transaction = Transaction(settings, settings.score_group)
    late = Overstaying(transaction.producer)
    transaction.producer = late  # type: ignore[assignment]
    try:
        with ThreadPoolExecutor(1) as pool:
            transaction.begin()
            transaction.produce_batch(topic, [{"key": b"1", "value": b"committed"}])
            commit = pool.submit(transaction.commit, nothing, member.consumer_group_metadata())
            assert late.committed.wait(30)
            transaction.abandon()
            transaction.begin()
            transaction.produce_batch(topic, [{"key": b"2", "value": b"of the next one"}])
            late.return_.set()
            commit.result(30)
        transaction.abort()
        transaction.begin()  # the client refuses it while another one is open
        transaction.produce_batch(topic, [{"key": b"3", "value": b"of the one after it"}])
        transaction.commit(nothing, member.consumer_group_metadata())
        eventually(lambda: len(read_topic(settings, topic)) == 2, 20, "both commits are seen")
        assert {each.key() for each in read_topic(settings, topic)} == {b"1", b"3"}
    finally:
        late.return_.set()
        member.close()
