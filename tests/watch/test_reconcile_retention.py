"""The proof where retention has deleted, or deletes, what it compares: that is no fault, and hides none."""

from __future__ import annotations

import pytest
from harness import running, send, send_events, simulated
from reconciling import execute, expanded, expire, score_and_store, told, wait_sunk

from consumer.scoring.controller import ShadowModeController
from consumer.services import clickhouse
from consumer.services.sink import SinkService
from consumer.settings import Settings
from consumer.watch.reconcile.reconcile import reconcile
from consumer.watch.records import TopicReader


def test_what_retention_deleted_is_no_fault_and_hides_none(
    settings: Settings, controller: ShadowModeController
) -> None:
    transactions, scores, letters = (
        settings.topic_transactions,
        settings.topic_shadow_scores,
        settings.topic_dead_letters,
    )
    events = simulated(60, seed=9)
    send_events(settings, [*events, *events[:10]])
    send(settings, transactions, [{"key": b"k", "value": b"rubbish"}] * 4)
    score_and_store(settings, controller)
    send(settings, scores, [{"key": b"k", "value": b"no shadow event"}])
    with running(SinkService(settings)):
        wait_sunk(settings)
    found = reconcile(settings)
    assert told(found) == []
    assert (found.expired, found.unreadable, found.dead_lettered) == (0, 1, 4)

    with TopicReader(settings) as reader:
        ends = {topic: {at: end for at, (_, end) in reader.held(topic).items()} for topic in (scores, letters)}
    expire(settings, letters, ends[letters])
    found = reconcile(settings)
    assert told(found) == []
    assert found.expired == 5, "four transactions and an event that are refused now as well"

    halves = {partition: end // 2 for partition, end in ends[scores].items()}
    expire(settings, scores, halves)
    found = reconcile(settings)
    assert told(found) == []
    assert sum(each.start for each in found.shadow_scores) == sum(halves.values())

    expire(settings, scores, ends[scores])
    found = reconcile(settings)
    assert told(found) == []
    assert (found.produced, found.scored, found.expired) == (74, 0, 14), "ten rows name the later sending"

    with clickhouse.connect(settings) as client:
        row = client.query("SELECT source_partition, source_offset, prediction_id FROM shadow_scores LIMIT 1")
        partition, offset, name = row.result_rows[0]
    execute(settings, f"ALTER TABLE shadow_scores DELETE WHERE prediction_id = '{name}'")
    found = reconcile(settings)
    assert f"lost {transactions}/{partition} offsets " in " ".join(told(found))
    assert offset in [each for fault in found.faults for each in expanded(fault)]

    with TopicReader(settings) as reader:
        held = reader.held(transactions)
    expire(settings, transactions, {at: end - 2 for at, (_, end) in held.items() if end > 2 and at != partition})
    expire(settings, transactions, {partition: held[partition][1]})
    found = reconcile(settings)
    assert told(found) == []
    assert found.produced < 74


@pytest.mark.parametrize("between", ["topic_transactions", "topic_shadow_scores"])
def test_what_retention_deletes_meanwhile_is_no_fault(
    settings: Settings, controller: ShadowModeController, between: str
) -> None:
    events = simulated(20, seed=12)
    send_events(settings, [*events, *events])
    score_and_store(settings, controller)
    with TopicReader(settings) as reader:
        ends = {
            topic: {at: end for at, (_, end) in reader.held(topic).items()}
            for topic in (settings.topic_transactions, settings.topic_shadow_scores)
        }
    moving = getattr(settings, between)
    if moving == settings.topic_transactions:  # the first sending of each has lost its event, and its row
        expire(settings, settings.topic_shadow_scores, ends[settings.topic_shadow_scores])

    def expire_meanwhile(topic: str, done: int, total: int) -> None:
        if topic == settings.topic_transactions and done == total:
            expire(settings, moving, ends[moving])

    found = reconcile(settings, progress=expire_meanwhile)
    assert told(found) == []
    assert (found.produced, found.waiting_for_score, found.waiting_for_sink) == (40, 0, 0)
