"""What services count: the closed list, its page, and the numbers of a small run against what was sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from harness import encoded, eventually, running, send, send_events, simulated, wait_scored, wait_stored
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from consumer.metrics import ColumnHistogram, Metrics, StageClock, declared, markdown_table
from consumer.scoring.controller import ShadowModeController
from consumer.services.score import ScoreService
from consumer.services.sink import SinkService
from consumer.settings import PROJECT, Settings
from consumer.watch.lag import LagReader


def series(metrics: Metrics) -> Callable[..., float]:
    """Reads one number as a scrape shows it."""

    def read(name: str, **labels: str) -> float:
        value = metrics.registry.get_sample_value(name, labels)
        return 0.0 if value is None else value

    return read


def test_the_page_repeats_the_list() -> None:
    assert markdown_table() in (PROJECT / "docs" / "metrics.md").read_text()


@pytest.mark.parametrize("lane", ["shadow", "sink"])
def test_a_scrape_has_the_whole_list_and_nothing_else(lane: Any) -> None:
    scraped = generate_latest(Metrics(lane).registry).decode()
    found = {line.split()[2]: line.split()[3] for line in scraped.splitlines() if line.startswith("# TYPE")}
    ours = {name: kind for name, kind in found.items() if name.startswith("bnpl_")}
    assert ours == {name: kind for name, kind, _, _ in declared()}


def test_no_label_is_made_for_an_id() -> None:
    labels = {label for _, _, names, _ in declared() for label in names}
    assert not {label for label in labels if label.endswith("id") or "customer" in label}


NUMBERS = st.one_of(st.floats(-1e9, 1e9), st.sampled_from([0.1, 0.5, 10.0, float("nan"), float("inf"), -float("inf")]))


@given(st.lists(NUMBERS, max_size=60), st.integers(1, 5))
def test_a_column_is_counted_as_its_numbers_one_by_one(values: list[float], parts: int) -> None:
    bounds = (0.1, 0.5, 1.0, 10.0)
    registry, one_by_one = CollectorRegistry(), CollectorRegistry()
    by_column = ColumnHistogram("h", "help", bounds, "model")
    registry.register(by_column)
    reference = Histogram("h", "help", ["model"], buckets=bounds, registry=one_by_one)
    for part in np.array_split(np.array(values), parts):
        by_column.observe("ridge", part)
    reference.labels("ridge")
    for value in values:
        if np.isfinite(value):
            reference.labels("ridge").observe(value)

    def read(registry: CollectorRegistry) -> dict[Any, float]:
        (family,) = text_string_to_metric_families(generate_latest(registry).decode())
        return {(each.name, *sorted(each.labels.items())): each.value for each in family.samples}

    expected, found = read(one_by_one), read(registry)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value)


def test_the_stages_of_a_loop_add_up_to_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([10.0, 10.5, 12.0, 12.25])
    monkeypatch.setattr("consumer.metrics.perf_counter", lambda: next(now))
    metrics = Metrics("shadow")
    clock = StageClock(metrics)
    for stage in ("poll", "decode", "poll"):
        clock.lap(stage)
    read = series(metrics)
    assert read("bnpl_stage_seconds_total", lane="shadow", stage="poll") == 0.75
    assert read("bnpl_stage_seconds_total", lane="shadow", stage="decode") == 1.5


def test_services_count_what_was_sent(settings: Settings, controller: ShadowModeController) -> None:
    events = simulated(400)
    events[3]["device_type"] = "hologram"
    topic, out = settings.topic_transactions, settings.topic_shadow_scores
    score, sink = ScoreService(settings, controller), SinkService(settings)
    with running(score), running(sink):
        send_events(settings, events)
        send(settings, topic, [{"value": b"rubbish"}, {"value": encoded(events[0], amount=-1.0)}])
        wait_scored(settings)
        wait_stored(settings, 400)
        seen, stored = series(score.metrics), series(sink.metrics)
        eventually(lambda: stored("bnpl_event_age_seconds_count", point="stored") == 400, 10, "ages are counted")
        with LagReader(settings, settings.sink_group, [out]) as lag:
            eventually(lambda: not sum(each.messages for each in lag.look().partitions), 20, "markers are passed")
        assert seen("bnpl_consumer_assigned_partitions", group=settings.score_group, topic=topic) == 3
    assert seen("bnpl_consumer_records_total", lane="shadow", topic=topic) == 402
    assert seen("bnpl_publish_total", topic=out, result="ok") == 400
    assert seen("bnpl_publish_total", topic=out, result="failed") == 0
    assert seen("bnpl_dlq_records_total", topic=topic, stage="decode", error="unknown_framing") == 1
    assert seen("bnpl_dlq_records_total", topic=topic, stage="validate", error="negative") == 1
    assert seen("bnpl_feature_unknown_total", feature="device_type") == 1
    assert seen("bnpl_event_age_seconds_count", point="published") == 400
    assert seen("bnpl_predict_batch_rows_sum") == 400
    decided = [seen("bnpl_decisions_total", decision=each, rule_set="rules_v1") for each in ("approve", "decline")]
    assert sum(decided) == 400
    for entry in controller.predictor.model_set.models:
        assert seen("bnpl_model_score_count", model=entry.name) == 400
        agreeing = [seen("bnpl_model_rules_agreement_total", model=entry.name, agree=each) for each in ("yes", "no")]
        assert sum(agreeing) == 400
    commits = seen("bnpl_consumer_commits_total", group=settings.score_group, result="ok")
    assert commits >= 1
    assert seen("bnpl_publish_duration_seconds_count") >= 1
    assert seen("bnpl_stage_seconds_total", lane="shadow", stage="decode") > 0
    assert stored("bnpl_consumer_records_total", lane="sink", topic=out) == 400
    assert stored("bnpl_sink_rows_total", table="shadow_scores", result="ok") == 400
    assert stored("bnpl_sink_buffer_rows", table="shadow_scores") == 0
    assert stored("bnpl_sink_last_success_timestamp_seconds", table="shadow_scores") > 0
    assert stored("bnpl_sink_insert_duration_seconds_count", table="shadow_scores") >= 1
