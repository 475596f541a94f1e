"""A topic that is gone, or refuses what a service writes: the service stops and says so. Nothing is dropped to stay up,
and nothing is committed that was not written.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from confluent_kafka.admin import AdminClient
from harness import (
    Event,
    alter_topic,
    encoded,
    eventually,
    read_topic,
    running,
    score_lag,
    send,
    simulated,
    sink_lag,
    wait_scored,
)

from consumer.errors import Fatal
from consumer.metrics import total
from consumer.scoring.controller import ShadowModeController
from consumer.services import topics
from consumer.services.score import ScoreService
from consumer.services.sink import SinkService
from consumer.settings import Settings

Change = Callable[[Settings, str], None]


def delete(settings: Settings, topic: str) -> None:
    """Delete a topic, and wait until the broker does not know it any more."""
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    admin.delete_topics([topic])[topic].result(20)
    eventually(lambda: topic not in admin.list_topics(timeout=10).topics, 20, "the topic is gone")


def shrink(settings: Settings, topic: str) -> None:
    """Let a topic take nothing but tiny records."""
    alter_topic(settings, topic, "max.message.bytes", "500")


def rubbish(size: int) -> dict[str, object]:
    return {"key": b"k", "partition": 0, "value": b"rubbish".ljust(size)}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (delete, r"Kafka has no topic {topic}: run `bnpl-shadow topics apply`"),
        (shrink, r"{topic}.*Message size too large.*`bnpl-shadow check` tells"),
    ],
    ids=["gone", "refusing"],
)
def test_score_stops_when_dead_letters_cannot_be_written_and_goes_on_once_they_can(
    settings: Settings, controller: ShadowModeController, change: Change, told: str
) -> None:
    quick = settings.model_copy(update={"transaction_timeout_ms": 2000})
    letters = settings.topic_dead_letters
    with pytest.raises(Fatal, match=told.format(topic=letters)), running(ScoreService(quick, controller)) as service:
        send(settings, settings.topic_transactions, [rubbish(10)])
        eventually(lambda: len(read_topic(settings, letters)) == 1, 20, "the first letter")
        change(settings, letters)
        send(settings, settings.topic_transactions, [rubbish(2000)])
        eventually(service.done, 40, "score stops")
    with score_lag(settings) as lag:
        assert lag.look().unread == 1, "what was not written is not committed"
    topics.apply(settings, alter=True)
    with running(ScoreService(settings, controller)):
        wait_scored(settings)
    assert [each.value() for each in read_topic(settings, letters)][-1] == rubbish(2000)["value"]


def test_score_stops_when_its_events_cannot_be_written(settings: Settings, controller: ShadowModeController) -> None:
    quick = settings.model_copy(update={"transaction_timeout_ms": 2000})
    first, second = simulated(2)
    told = f"Kafka has no topic {settings.topic_shadow_scores}"
    with pytest.raises(Fatal, match=told), running(ScoreService(quick, controller)) as service:
        send_one(settings, first)
        wait_scored(settings)
        delete(settings, settings.topic_shadow_scores)
        send_one(settings, second)
        eventually(service.done, 40, "score stops")
    with score_lag(settings) as lag:
        assert lag.look().unread == 1


def send_one(settings: Settings, event: Event) -> None:
    send(settings, settings.topic_transactions, [{"key": b"k", "partition": 0, "value": encoded(event)}])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (delete, r"Kafka has no topic {topic}: run `bnpl-shadow topics apply`"),
        (shrink, r"dead letters cannot be written to {topic}: .*Message size too large"),
    ],
    ids=["gone", "refusing"],
)
def test_the_sink_stops_when_dead_letters_cannot_be_written_and_goes_on_once_they_can(
    settings: Settings, change: Change, told: str
) -> None:
    letters = settings.topic_dead_letters
    sink = SinkService(settings)
    with pytest.raises(Fatal, match=told.format(topic=letters)), running(sink) as service:
        send(settings, settings.topic_shadow_scores, [rubbish(10)])
        eventually(lambda: len(read_topic(settings, letters)) == 1, 20, "the first letter")
        change(settings, letters)
        send(settings, settings.topic_shadow_scores, [rubbish(2000)])
        eventually(service.done, 50, "the sink stops")
    assert total(sink.metrics.dead_letter_failures) == 1, "letters that were not acknowledged are counted"
    with sink_lag(settings) as lag:
        assert lag.look().unread == 1, "what was not written is not committed"
    topics.apply(settings, alter=True)
    with running(SinkService(settings)), sink_lag(settings) as lag:
        eventually(lambda: not lag.look().unread, 30, "it goes on")
    assert [each.value() for each in read_topic(settings, letters)][-1] == rubbish(2000)["value"]
