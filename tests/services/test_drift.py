"""Drift on a real Kafka and ClickHouse: counts equal a count by hand of the topic, whatever happened meanwhile."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import clickhouse_connect
import numpy as np
import pytest
from clickhouse_connect.driver.client import Client
from harness import (
    Commands,
    Event,
    asked,
    decoded,
    encoded,
    eventually,
    forget_dead_members_soon,
    read_topic,
    running,
    send,
    send_events,
    shadow_events,
    wait_scored,
    wait_stored,
)
from prometheus_client import generate_latest
from pydantic import SecretStr

from consumer.clock import utc_now
from consumer.contracts.transaction import columns_from_dicts
from consumer.errors import KafkaUnavailable
from consumer.evaluation.drift.reference import Bins, Share
from consumer.research.simulate import SimulationConfig, rows, simulate
from consumer.scoring.controller import ShadowModeController
from consumer.services.drift import counts
from consumer.services.drift.export import Export, load_export
from consumer.services.drift.look import look
from consumer.services.drift.scores import scored_by_day, vintages
from consumer.services.drift.service import DriftService, group_of
from consumer.services.drift.store import newest_result
from consumer.services.group import GroupMember
from consumer.services.score import ScoreService
from consumer.services.sink import SinkService
from consumer.settings import Settings
from consumer.stack.clickhouse import ClickHouse
from consumer.system.run import prepare
from consumer.watch.lag import LagReader

EPOCH = date(1970, 1, 1)


@pytest.fixture(scope="session")
def export() -> Export:
    return load_export(Settings())


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with connected(settings) as client:
        yield client


def connected(settings: Settings) -> Client:
    assert settings.clickhouse_url
    return clickhouse_connect.get_client(dsn=settings.clickhouse_url.get_secret_value())


def events(count: int, seed: int, **changes: Any) -> list[Event]:
    """Transactions of the eight full days before today."""
    start = utc_now().date() - timedelta(days=8)
    batches = simulate(SimulationConfig(count, seed, start, days=8, outcomes=False))
    return [event | changes for batch in batches for event in rows(batch)]


def by_hand(settings: Settings, export: Export) -> dict[tuple[date, str], list[int]]:
    """The topic read to its end, each usable record's features put into bins one by one: counts by day and feature."""
    usable = []
    for message in read_topic(settings, settings.topic_transactions):
        if (value := message.value()) and value.startswith(b"\xc3\x01"):
            event = decoded(value, "transaction")
            if event["amount"] >= 0:
                usable.append(event | {"transaction_timestamp": event["transaction_timestamp"].isoformat()})
    days = [date.fromisoformat(event["transaction_timestamp"][:10]) for event in usable]
    matrix = export.model_set.engineer.engineer(columns_from_dicts(usable)).matrix
    found: dict[tuple[date, str], list[int]] = {}
    for feature in export.reference.features:
        edges = feature.bins.edges.tolist()
        known = export.reference.known.get(feature.column or "", frozenset())
        column = matrix[:, export.model_set.feature_names.index(feature.name)].tolist()
        for day, value, event in zip(days, column, usable, strict=True):
            cells = found.setdefault((day, feature.name), [0] * feature.bins.cells)
            if feature.column and event[feature.column] not in known:
                cells[-1] += 1
            elif value < edges[0]:
                cells[0] += 1
            elif value > edges[-1]:
                cells[-3] += 1
            else:
                cells[1 + max(at for at, low in enumerate(edges[:-1]) if value >= low)] += 1
    return found


def stored(client: Client) -> dict[tuple[date, str], list[int]]:
    query = "SELECT day, name, sumForEach(counts) FROM drift_counts FINAL WHERE value = '' GROUP BY day, name"
    return {(day, name): list(cells) for day, name, cells in client.query(query).result_rows}


def counted(client: Client) -> int:
    return sum(sum(cells) for (_, name), cells in stored(client).items() if name == "amount")


def wait_counted(settings: Settings, export: Export, seconds: float = 60) -> None:
    """Until the drift group has committed everything that is in its topic."""
    with LagReader(settings, group_of(settings, export), [settings.topic_transactions]) as lag:
        eventually(lambda: not lag.look().unread, seconds, lambda: f"lag {lag.look()}")


def test_counts_equal_a_count_by_hand_and_reading_again_changes_nothing(
    settings: Settings, export: Export, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "BLOCK", 100)
    sent = events(2_000, seed=1)
    for at, device in enumerate(["hologram"] * 5 + ["bad\nname"] * 2):
        sent[at]["device_type"] = device
    send_events(settings, sent)
    send(settings, settings.topic_transactions, [{"value": b"rubbish"}, {"value": encoded(sent[0], amount=-1.0)}])
    with running(DriftService(settings, export, every=1)):
        wait_counted(settings, export)
    expected = by_hand(settings, export)
    assert stored(client) == expected
    assert counted(client) == 2_000
    query = (
        "SELECT name, value, sum(counts[1]), min(day) FROM drift_counts FINAL WHERE value != '' GROUP BY name, value"
    )
    unseen = {(name, value): (count, day) for name, value, count, day in client.query(query).result_rows}
    first = date.fromisoformat(sent[0]["transaction_timestamp"][:10])
    assert unseen == {("device_type", "hologram"): (5, first), ("device_type", "unprintable"): (2, first)}
    again = settings.model_copy(update={"drift_group": f"{settings.drift_group}-again"})
    with running(DriftService(again, export, every=1)):
        wait_counted(again, export)
        send_events(settings, events(300, seed=2))
        wait_counted(again, export)
    assert stored(client) == by_hand(settings, export)
    assert counted(client) == 2_300


def test_a_commit_that_fails_and_members_that_come_and_go_count_nothing_twice(
    settings: Settings, export: Export, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "BLOCK", 100)
    commit, failures = GroupMember.commit, iter([True, False, True])

    def failing(self: GroupMember, *arguments: Any) -> None:
        if next(failures, False):
            raise KafkaUnavailable("planted: the offsets were not committed")
        commit(self, *arguments)

    monkeypatch.setattr(GroupMember, "commit", failing)
    with running(DriftService(settings, export, every=1)):
        for seed in range(3):
            send_events(settings, events(400, seed=10 + seed))
            eventually(lambda wanted=400 * (seed + 1): counted(client) == wanted, 60, lambda: counted(client))
        with running(DriftService(settings, export, every=1)) as other:
            send_events(settings, events(400, seed=20))
            eventually(lambda: counted(client) >= 1_600, 60, lambda: counted(client))
            assert not other.done()
        send_events(settings, events(400, seed=21))
        wait_counted(settings, export)
    assert next(failures, None) is None, "all three were met"
    assert stored(client) == by_hand(settings, export)
    assert counted(client) == 2_000


def test_a_service_that_is_killed_goes_on_where_it_was_and_waits_for_clickhouse(
    settings: Settings, export: Export, commands: Commands, tmp_path: Path
) -> None:
    server = ClickHouse(tmp_path / "clickhouse", 0, owned=True)
    server.start()
    try:
        own = settings.model_copy(update={"clickhouse_url": SecretStr(server.address), "clickhouse_timeout_seconds": 2})
        prepare(own)
        forget_dead_members_soon(own, group_of(own, export))
        drift = commands.start(own, "drift", "--every", "1")
        send_events(own, events(3_000, seed=3))
        with connected(own) as client:
            eventually(lambda: counted(client) > 0, 60, lambda: drift.output)
        drift.kill()
        send_events(own, events(500, seed=4))
        drift = commands.start(own, "drift", "--every", "1")
        wait_counted(own, export)
        eventually(lambda: asked(drift, "readyz")[0] == 200, 20, lambda: asked(drift, "readyz"))
        server.kill()
        send_events(own, events(500, seed=5))
        eventually(lambda: drift.says("waiting"), 60, lambda: drift.output)
        status, body = asked(drift, "readyz")
        assert status == 503
        assert "ClickHouse does not answer" in json.loads(body)["reasons"]
        assert asked(drift, "livez")[0] == 200, "a new start would not help"
        once = commands.run(own, "drift")
        assert once.ended(60) == 75
        assert "ClickHouse does not answer" in once.output
        server.start()
        wait_counted(own, export)
        drift.terminate()
        assert drift.ended(25) == 0
        with connected(own) as client:
            assert stored(client) == by_hand(own, export)
            assert counted(client) == 4_000
    finally:
        server.kill()


def test_a_planted_drift_is_named_by_the_command_the_metrics_and_the_table(
    settings: Settings, export: Export, controller: ShadowModeController, client: Client, commands: Commands
) -> None:
    empty = commands.run(settings, "drift")
    assert empty.ended(60) == 1
    assert "nothing was counted by the bins of this export yet: `bnpl-shadow drift --every 60` counts" in empty.output
    assert "nothing could be judged" in empty.output
    assert "no outcome full_term of a transaction that is old enough yet" in empty.output
    sent = events(4_000, seed=6)
    for event in sent:
        event["amount"] *= 2
    sent[0]["device_type"] = "hologram"
    send_events(settings, sent)
    service = DriftService(settings, export, every=1)
    with running(ScoreService(settings, controller)), running(SinkService(settings)), running(service):
        wait_scored(settings)
        wait_stored(settings, 4_000)
        wait_counted(settings, export)

        def shown() -> dict[str, float]:
            scraped = generate_latest(service.metrics.registry).decode().splitlines()
            return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in scraped if line[:1] != "#"}

        amount = 'bnpl_drift_state{kind="feature",name="amount"}'
        eventually(lambda: shown().get(amount) == 2, 60, shown)
    found = shown()
    moved = {name for name, value in found.items() if name.startswith("bnpl_drift_state") and value}
    assert {name for name in moved if 'kind="feature"' in name} == {amount}
    assert found['bnpl_drift_psi{kind="feature",name="amount"}'] > 0.25
    assert found['bnpl_feature_out_of_range_ratio{feature="amount"}'] > 0
    assert found["bnpl_drift_window_rows"] > 3_000
    assert found['bnpl_job_last_success_timestamp_seconds{job="drift"}'] > 0

    done = commands.run(settings, "drift", "--json")
    assert done.ended(60) == 1, "an alarm"
    document = json.loads(done.output)
    first = document["features"][0]
    assert (first["name"], first["state"], document["worst"]) == ("amount", 2, 2)
    assert document["first_day"] == str(utc_now().date() - timedelta(days=7))
    assert [each["state"] for each in document["scores"]] != [None] * 4
    assert {each["name"] for each in document["flags"]} == {"rules", "ridge", "logistic", "elastic", "ensemble"}
    told = commands.run(settings, "drift")
    assert "alarm: amount" in told.output.splitlines()[-1]
    assert (
        f"unknown value hologram of device_type since {sent[0]['transaction_timestamp'][:10]}: 1 times" in told.output
    )
    assert "is_month_end" in told.output and "muted" in told.output
    query = "SELECT name, state, psi FROM drift_results FINAL WHERE kind = 'feature' AND state > 0"
    ((name, state, psi),) = client.query(query).result_rows
    assert (name, state) == ("amount", 2)
    assert psi == pytest.approx(first["psi"])
    today, digest = utc_now().date(), export.reference.digest
    assert newest_result(client, digest, today) == today
    assert newest_result(client, digest, today - timedelta(days=1)) is None
    later = commands.run(settings, "drift", "--as-of", "2020-01-01")
    newest = utc_now().date() - timedelta(days=1)
    assert f"the last counted day is {newest}: --as-of {newest + timedelta(days=1)}" in later.output
    assert commands.run(settings, "drift", "--every", "5", "--json").ended(60) == 2


def test_scores_flags_and_vintages_equal_a_count_by_hand_of_the_shadow_events(
    settings: Settings, export: Export, controller: ShadowModeController, client: Client
) -> None:
    send_events(settings, events(1_500, seed=7))
    with running(ScoreService(settings, controller)), running(SinkService(settings)):
        wait_stored(settings, 1_500)
    scored = shadow_events(settings)
    assert vintages(client, "v1", utc_now().date(), export.term) == []
    ridge = np.sort([model["score"] for event in scored for model in event["models"] if model["name"] == "ridge"])
    bins = {"ridge": Bins(np.unique(ridge[[100, 300, 301, 900, 1_400]]), None)}  # edges that scores stand on exactly
    today = utc_now().date()
    by_day = scored_by_day(client, "v1", bins, today - timedelta(days=8), today)
    cells: Counter[tuple[date, int]] = Counter()
    flags: Counter[tuple[date, str]] = Counter()
    days: Counter[date] = Counter()
    for event in scored:
        day = event["event_time"].date()
        days[day] += 1
        flags[day, "rules"] += event["business_risk_flag"] == "high"
        for model in event["models"]:
            flags[day, model["name"]] += model["flag"]
            if model["name"] == "ridge":
                edges = bins["ridge"].edges
                above = len(edges) if model["score"] > edges[-1] else None
                inside = min(int((edges <= model["score"]).sum()), len(edges) - 1)
                cells[day, inside if above is None else above] += 1
    assert set(by_day) == set(days)
    for day, found in by_day.items():
        assert set(found.cells) == {"ridge"}
        assert {at: n for at, n in enumerate(found.cells["ridge"].tolist()) if n} == {
            at: n for (when, at), n in cells.items() if when == day
        }
        names = ("rules", "ridge", "logistic", "elastic", "ensemble")
        assert found.flags == {name: Share(flags[day, name], days[day]) for name in names}
    assert not scored_by_day(client, "v2", bins, today - timedelta(days=8), today)

    known: list[list[Any]] = []
    for at, event in enumerate(scored[:1_200]):
        seen_at = event["event_time"] + timedelta(days=60)
        known.append([event["transaction_id"], "full_term", at % 15 == 0, seen_at, 1])
        if at < 100:
            known.append([event["transaction_id"], "full_term", True, seen_at, 2])  # corrected
        known.append([event["transaction_id"], "d28", True, seen_at, 9])
    columns = ["transaction_id", "label", "defaulted", "observed_at", "version"]
    client.insert("outcomes", known, column_names=columns)
    as_of = today + timedelta(days=100)
    expected: dict[tuple[str, str], list[float]] = {}
    for at, event in enumerate(scored[:1_200]):
        old_enough = event["event_time"] + timedelta(days=14 * event["installment_count"] + export.term.grace_days)
        if old_enough.date() < as_of:
            week = event["event_time"].date() - timedelta(days=event["event_time"].weekday())
            for model in event["models"]:
                total = expected.setdefault((str(week), model["name"]), [0, 0, 0.0])
                total[0] += 1
                total[1] += at < 100 or at % 15 == 0
                total[2] += model["score"]
    found_vintages = vintages(client, "v1", as_of, export.term)
    assert found_vintages
    assert {(each.week, each.model): (each.rows, each.observed) for each in found_vintages} == {
        key: (total[0], total[1]) for key, total in expected.items()
    }
    for each in found_vintages:
        assert each.expected == pytest.approx(expected[each.week, each.model][2])
        assert each.low < each.observed / each.expected < each.high
    drift = look(client, export, as_of)
    told = [(each.week, each.model, each.rows, each.observed) for each in found_vintages]
    assert [(each.week, each.model, each.rows, each.observed) for each in drift.vintages] == told
    assert not drift.judged


def test_missing_tables_and_topics_end_the_service_with_the_command_that_makes_them(
    settings: Settings, clickhouse_database: str, commands: Commands
) -> None:
    no_tables = commands.run(settings, "drift", "--every", "1", BNPL_CLICKHOUSE_URL=clickhouse_database)
    assert no_tables.ended(60) == 1
    assert "run `bnpl-shadow migrate`" in no_tables.output
    no_topic = commands.run(settings, "drift", "--every", "1", BNPL_TOPIC_TRANSACTIONS="nowhere")
    assert no_topic.ended(60) == 1
    assert "run `bnpl-shadow topics apply`" in no_topic.output
