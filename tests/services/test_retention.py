"""A group's place that the broker does not have: told, counted, never a crash loop and never a silent jump."""

from __future__ import annotations

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from harness import (
    encoded,
    eventually,
    running,
    score_lag,
    send,
    shadow_events,
    simulated,
    wait_scored,
)

from consumer.errors import OffsetsLost
from consumer.metrics import total
from consumer.scoring.controller import ShadowModeController
from consumer.services.score import ScoreService
from consumer.settings import Settings
from consumer.watch.status import LagWindow, Status


def send_to_first(settings: Settings, count: int, seed: int) -> None:
    """All into partition 0."""
    values = [encoded(each) for each in simulated(count, seed)]
    send(settings, settings.topic_transactions, [{"key": b"k", "partition": 0, "value": each} for each in values])


def delete_before(settings: Settings, offset: int) -> None:
    """What retention does to partition 0, at once."""
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    place = TopicPartition(settings.topic_transactions, 0, offset)
    admin.delete_records([place])[place].result(20)


@pytest.mark.parametrize("protocol", ["consumer", "classic"])
def test_records_that_retention_took_are_told_and_counted_once_and_the_rest_is_scored(
    settings: Settings, controller: ShadowModeController, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    settings = settings.model_copy(update={"group_protocol": protocol})
    send_to_first(settings, 100, seed=1)
    with running(ScoreService(settings, controller)):
        wait_scored(settings)
    send_to_first(settings, 100, seed=2)
    delete_before(settings, 130)
    with score_lag(settings) as lag:
        window = LagWindow(settings.score_group)
        window.add(lag.look())
        assert (window.report.worst, window.report.expired) == (Status.EXPIRED, 30)

    caplog.clear()
    service = ScoreService(settings, controller)
    with running(service):
        wait_scored(settings)
    told = [each.getMessage() for each in caplog.records if "lost to retention" in each.getMessage()]
    assert len(told) == 1
    assert f"30 of {settings.topic_transactions}/0, offsets 100 to 129" in told[0]
    assert total(service.metrics.lost_records) == 30
    assert sorted(each["source_offset"] for each in shadow_events(settings)) == [*range(100), *range(130, 200)]

    caplog.clear()
    again = ScoreService(settings, controller)
    with running(again):
        send_to_first(settings, 10, seed=3)
        wait_scored(settings)
        eventually(lambda: len(shadow_events(settings)) == 180, 20, "the group goes on")
    assert total(again.metrics.lost_records) == 0
    assert "lost to retention" not in caplog.text


def test_a_loss_is_committed_even_when_nothing_is_left_to_read(
    settings: Settings, controller: ShadowModeController
) -> None:
    """Else the next start would count it again."""
    send_to_first(settings, 10, seed=1)
    with running(ScoreService(settings, controller)):
        wait_scored(settings)
    send_to_first(settings, 10, seed=2)
    delete_before(settings, 20)
    for lost in (10, 0):
        service = ScoreService(settings, controller)
        with running(service), score_lag(settings) as lag:
            eventually(lambda lag=lag: lag.look().partitions[0].committed == 20, 30, "the gap is passed")
        assert total(service.metrics.lost_records) == lost


def test_a_new_group_starts_at_the_first_record_there_is_and_has_lost_nothing(
    settings: Settings, controller: ShadowModeController, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    send_to_first(settings, 50, seed=1)
    delete_before(settings, 20)
    service = ScoreService(settings, controller)
    with running(service):
        wait_scored(settings)
    assert sorted(each["source_offset"] for each in shadow_events(settings)) == [*range(20, 50)]
    assert total(service.metrics.lost_records) == 0
    assert "lost to retention" not in caplog.text


def test_a_place_beyond_the_end_stops_the_service_and_names_the_way_out(
    settings: Settings, controller: ShadowModeController
) -> None:
    """What a restored topic, or one that lost its newest records, looks like to the group."""
    send_to_first(settings, 20, seed=1)
    group = Consumer({"bootstrap.servers": settings.kafka_bootstrap_servers, "group.id": settings.score_group})
    group.commit(offsets=[TopicPartition(settings.topic_transactions, 0, 50)], asynchronous=False)
    group.close()
    told = (
        f"{settings.topic_transactions}/0: group {settings.score_group} is at offset 50 and the topic ends at 20: "
        r"it was made anew, or lost records.*--reset-offsets --to-earliest --execute .*--to-latest"
    )
    with pytest.raises(OffsetsLost, match=told), running(ScoreService(settings, controller)) as service:
        eventually(service.done, 30, "the service stops")
    assert shadow_events(settings) == []
