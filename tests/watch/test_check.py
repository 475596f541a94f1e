"""`check` on real parts: every fault it knows is made, and all that are made stand in one report."""

from __future__ import annotations

import json
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)
from harness import Commands, encoded, eventually, send, simulated
from pydantic import SecretStr

from consumer.clock import utc_now
from consumer.errors import TRY_AGAIN, Fatal, Retryable
from consumer.services import sink, topics
from consumer.services.clickhouse import connect
from consumer.settings import Settings
from consumer.stack.kafka import Kafka
from consumer.stack.part import free_port
from consumer.system import supervisor
from consumer.watch.check import timeouts
from consumer.watch.check.check import check
from consumer.watch.check.clickhouse import check_clickhouse
from consumer.watch.check.finding import Finding
from consumer.watch.check.start import refuse_faults


def not_ok(findings: list[Finding]) -> list[tuple[str, str, str]]:
    return [(each.part, each.level, each.what) for each in findings if each.level != "ok"]


def with_(settings: Settings, **changes: object) -> Settings:
    return settings.model_copy(update=changes)


def alter(settings: Settings, topic: str, **values: str) -> None:
    """Set a topic's configuration, underscores for dots, and wait until the broker says so."""
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    resource = ConfigResource(ResourceType.TOPIC, topic)
    wanted = {key.replace("_", "."): value for key, value in values.items()}
    for key, value in wanted.items():
        resource.add_incremental_config(ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET))
    admin.incremental_alter_configs([resource])[resource].result(20)
    asked = ConfigResource(ResourceType.TOPIC, topic)

    def told() -> bool:
        found = admin.describe_configs([asked])[asked].result(20)
        return all(found[key].value == value for key, value in wanted.items())

    eventually(told, 20, f"{topic} did not take {wanted}")


@pytest.fixture
def tables(settings: Settings) -> Iterator[Client]:
    """A client of the database that `settings` leads to."""
    with connect(settings) as client:
        yield client


# all well


def test_a_healthy_system_has_nothing_but_good_findings(settings: Settings, commands: Commands) -> None:
    send(settings, settings.topic_transactions, [{"value": encoded(each)} for each in simulated(50)])
    findings = check(settings)
    assert not_ok(findings) == []
    parts = {each.part for each in findings}
    assert parts == {
        "kafka", "topics", "contents", "schemas", "clickhouse", "rules", "horizons", "artifacts", "timeouts", "clocks"
    }  # fmt: skip
    done = commands.run(settings, "check", "--json")
    assert done.process.returncode == 0
    told = json.loads(done.output)
    assert told["ok"]
    assert {each["level"] for each in told["findings"]} == {"ok"}


@pytest.mark.parametrize("service", ["score", "sink"])
def test_a_service_starts_on_a_healthy_system(settings: Settings, service: timeouts.Service) -> None:
    refuse_faults(settings, service)


# faults


def test_every_fault_stands_in_one_report_with_its_remedy(
    settings: Settings, tables: Client, tmp_path: Path, commands: Commands
) -> None:
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    admin.delete_topics([settings.topic_outcomes])[settings.topic_outcomes].result(20)
    few = f"{settings.topic_control}-few"
    admin.create_topics([NewTopic(few, 1, 1)])[few].result(20)
    alter(settings, settings.topic_transactions, cleanup_policy="compact", retention_ms="3600000")
    alter(settings, settings.topic_shadow_scores, retention_bytes="1000000", max_message_bytes="200000")
    alter(settings, settings.topic_dead_letters, max_message_bytes="1048588", min_insync_replicas="2")
    tables.command("ALTER TABLE shadow_scores DROP COLUMN approval_propensity")
    tables.command("ALTER TABLE shadow_scores MODIFY COLUMN amount String")
    tables.command("ALTER TABLE shadow_scores ADD COLUMN invented String")
    migrations = shutil.copytree(settings.migrations_dir, tmp_path / "migrations")
    with (migrations / "0001_shadow_scores.sql").open("a") as file:
        file.write("-- changed\n")
    (migrations / "0099_more.sql").write_text("SELECT 1")
    artifacts = shutil.copytree(settings.artifacts_dir, tmp_path / "artifacts")
    with (artifacts / "v1" / "training_stats.json").open("a") as file:
        file.write(" ")
    (artifacts / "rules" / "rules_v1.json").write_text("{}")
    broken = with_(
        settings,
        topic_outcomes_dead_letters=few,
        migrations_dir=migrations,
        artifacts_dir=artifacts,
        rules_file=artifacts / "rules" / "rules_v1.json",
        batch_max_wait_ms=50_000,
        sink_max_wait_ms=8000,
    )

    def gone() -> bool:
        return settings.topic_outcomes not in admin.list_topics(timeout=10).topics

    eventually(gone, 20, "the topic was not deleted")
    done = commands.run(broken, "check", "--json")
    assert done.process.returncode == 1
    findings = [each for each in json.loads(done.output)["findings"] if each["level"] != "ok"]
    assert all(each["remedy"] for each in findings if each["part"] != "rules" or each["level"] == "fault")
    told = [f"{each['part']} {each['level']}: {each['what']}" for each in findings]
    expected = [
        f"topics fault: Kafka has no topic {settings.topic_outcomes}",
        f"topics warning: {few} has 1 partitions, 3 are wanted",
        f"topics fault: {settings.topic_transactions} has cleanup.policy compact, not delete",
        f"topics warning: {settings.topic_transactions} keeps records 1 h, 2160 h are wanted",
        f"topics warning: {settings.topic_shadow_scores} keeps 1000000 bytes a partition",
        f"topics fault: {settings.topic_shadow_scores} takes 200000 bytes at a time",
        f"topics fault: {settings.topic_dead_letters} takes 1048588 bytes at a time",
        f"topics fault: {settings.topic_dead_letters} takes no record: it wants 2 replicas in sync and has 1",
        "clickhouse fault: migration 0001_shadow_scores was changed after it was applied",
        "clickhouse fault: not applied: 0099_more",
        "clickhouse fault: shadow_scores has no column approval_propensity (Nullable(Float64))",
        "clickhouse fault: shadow_scores.amount is String, the sink inserts Float64",
        "clickhouse warning: shadow_scores has columns that the sink does not fill: invented",
        "clickhouse fault: the view shadow_predictions is missing or cannot be read",
        "rules fault: ",
        "artifacts fault: ",
        "timeouts fault: score: ",
        "timeouts warning: score: ",
        "timeouts warning: sink: ",
    ]
    assert [wanted for wanted in expected if not any(each.startswith(wanted) for each in told)] == []
    assert "training_stats.json was changed after the export" in done.output
    few_size = f"topics fault: {few} takes 1048588 bytes at a time"  # made without our configuration
    retention = f"topics warning: {few} keeps records 168 h, 336 h are wanted"
    assert [each for each in told if not each.startswith((*expected, few_size, retention))] == []


def test_a_table_that_would_keep_rows_twice_is_a_fault(settings: Settings, tables: Client) -> None:
    tables.command("CREATE TABLE other AS shadow_scores ENGINE = MergeTree ORDER BY transaction_id")
    tables.command("DROP TABLE shadow_scores")
    tables.command("RENAME TABLE other TO shadow_scores")
    (found,) = [each for each in check(settings, "sink") if each.level == "fault" and "MergeTree" in each.what]
    assert "a row inserted again would stay twice" in found.what


def test_a_table_ordered_by_something_else_is_a_fault(settings: Settings, tables: Client) -> None:
    tables.command("CREATE TABLE o AS shadow_scores ENGINE = ReplacingMergeTree(shadow_offset) ORDER BY transaction_id")
    tables.command("DROP TABLE shadow_scores")
    tables.command("RENAME TABLE o TO shadow_scores")
    with pytest.raises(Fatal, match=r"ordered by \(transaction_id\), not \(transaction_id, prediction_id\)"):
        refuse_faults(settings, "sink")


def test_a_broken_view_is_told_and_does_not_keep_the_sink_from_storing(settings: Settings, tables: Client) -> None:
    tables.command(
        "CREATE OR REPLACE VIEW shadow_predictions AS SELECT transaction_id, 1 AS timestamp FROM shadow_scores"
    )
    (found,) = [each for each in check(settings) if each.level != "ok"]
    assert found.level == "fault"
    assert "timestamp (DateTime64(3, 'UTC')), business_decision (String)" in found.what
    refuse_faults(settings, "sink")
    tables.command("DROP VIEW shadow_predictions")
    assert not_ok(check(settings)) == [
        ("clickhouse", "fault", "the view shadow_predictions is missing or cannot be read")
    ]


def test_migrations_of_a_newer_version_are_a_warning(settings: Settings, tables: Client) -> None:
    tables.insert("schema_migrations", [[98, "0098_later", "x"]], column_names=["number", "name", "sha256"])
    ((_, level, what),) = not_ok(check(settings, "sink"))
    assert (level, what) == ("warning", "a newer version applied migrations that are not here: 98")


def test_an_empty_cluster_that_allows_only_short_transactions(tmp_path: Path, settings: Settings) -> None:
    class Hasty(Kafka):
        def prepare(self) -> list[str]:
            command = super().prepare()
            with (self.data / "server.properties").open("a") as properties:
                properties.write("transaction.max.timeout.ms=5000\n")
            return command

    broker = Hasty(tmp_path, 0, owned=True)
    broker.start()
    try:
        empty = with_(settings, kafka_bootstrap_servers=broker.address)
        told = not_ok(check(empty))
        names = ", ".join(each.name for each in topics.wanted(empty))
        assert ("topics", "fault", f"Kafka has no topic {names}") in told
        (_, level, what), *_ = [each for each in told if each[0] == "timeouts"]
        assert level == "fault"
        assert "10000 ms here and 5000 ms at the brokers" in what
        assert len(told) == 2
    finally:
        broker.kill()


def test_names_that_two_things_share_are_faults(settings: Settings) -> None:
    shared = with_(settings, topic_dead_letters=settings.topic_transactions, sink_group=settings.score_group)
    told = [what for _, level, what in not_ok(check(shared)) if level == "fault"]
    assert f"two settings name the same topic: {settings.topic_transactions}" in told
    assert any(settings.score_group in what for what in told)


# contents and clocks


def test_a_topic_of_another_system_is_known_by_its_records(settings: Settings) -> None:
    send(settings, settings.topic_transactions, [{"value": b'{"order": 1}'}] * 9)
    send(settings, settings.topic_shadow_scores, [{"value": encoded(each)} for each in simulated(9)])
    told = [(part, what) for part, level, what in not_ok(check(settings)) if level == "fault"]
    assert [part for part, _ in told] == ["contents", "contents"]
    assert "is a shadow event" in told[0][1]
    assert f"none of the newest 9 records of {settings.topic_transactions} is a transaction" in told[1][1]


def test_producers_ahead_of_our_clock_are_seen_before_their_events_become_dead_letters(settings: Settings) -> None:
    late = utc_now() + timedelta(seconds=2 * settings.event_max_future_seconds)
    events = simulated(30)
    send(settings, settings.topic_transactions, [{"value": encoded(events[0], transaction_timestamp=late)}])
    send(settings, settings.topic_transactions, [{"value": encoded(each), "partition": 0} for each in events[1:4]])
    ((part, level, what),) = not_ok(check(settings, "score"))
    assert (part, level) == ("clocks", "warning")
    assert "1 of the newest 4 transactions" in what
    ahead = [{"value": encoded(each, transaction_timestamp=late), "partition": 1} for each in events[4:]]
    send(settings, settings.topic_transactions, ahead)
    ((part, level, what),) = not_ok(check(settings, "score"))
    assert (part, level) == ("clocks", "fault")
    assert "they become dead letters" in what


@pytest.mark.parametrize(("seconds", "level"), [(-30.0, "warning"), (30.0, "warning"), (1000.0, "fault")])
def test_a_machine_whose_clock_is_not_clickhouses(settings: Settings, seconds: float, level: str) -> None:
    findings = list(check_clickhouse(settings, now=lambda: time.time() + seconds))
    ((part, told, what),) = not_ok(findings)
    assert (part, told) == ("clocks", level)
    found = re.search(r"is (\d+\.\d) s (ahead of|behind) this machine's", what)
    assert found
    assert float(found[1]) == pytest.approx(abs(seconds), abs=5), "the answer's way takes a part of it"
    assert found[2] == ("ahead of" if seconds < 0 else "behind")


# parts that are away or something else


def test_when_nobody_answers_all_of_it_is_told_and_may_pass(settings: Settings, commands: Commands) -> None:
    nobody = {
        "BNPL_KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}",
        "BNPL_CLICKHOUSE_URL": f"http://user:Secret-1@127.0.0.1:{free_port()}/x",
        "BNPL_SCHEMA_REGISTRY_URL": f"http://user:Secret-2@127.0.0.1:{free_port()}",
    }
    done = commands.run(settings, "check", **nobody)
    assert done.process.returncode == TRY_AGAIN
    assert done.output.count("fault ") == 3
    assert f"Kafka does not answer at {nobody['BNPL_KAFKA_BOOTSTRAP_SERVERS']}" in done.output
    assert "ClickHouse does not answer at 127.0.0.1" in done.output
    assert "the schema registry did not answer" in done.output
    assert "Secret-" not in done.output
    assert "ok       artifacts" in done.output


def test_clickhouse_is_looked_at_although_kafka_is_away_and_the_other_way_round(settings: Settings) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    kafka_away = check(with_(settings, kafka_bootstrap_servers=nobody), "sink")
    assert [part for part, *_ in not_ok(kafka_away)] == ["kafka"]
    assert any(each.part == "clickhouse" for each in kafka_away)
    clickhouse_away = check(with_(settings, clickhouse_url=SecretStr(f"http://{nobody}")), "sink")
    assert [part for part, *_ in not_ok(clickhouse_away)] == ["clickhouse"]
    assert any(each.part == "topics" for each in clickhouse_away)


@contextmanager
def listening() -> Iterator[str]:
    """Something that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


class NotFound(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def do_POST(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None: ...


@contextmanager
def web_server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), NotFound) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_something_else_on_a_port_is_called_that(settings: Settings) -> None:
    with listening() as silent, web_server() as web:
        kafka = with_(settings, kafka_bootstrap_servers=silent)
        ((_, _, what),) = not_ok(check(kafka, "sink"))
        assert f"something listens at {silent}" in what
        ((_, _, what),) = not_ok(check(with_(settings, clickhouse_url=SecretStr(f"http://{web}")), "sink"))
        assert what == f"what answers at {web} is not ClickHouse: its /ping says 404"
        ((_, _, what),) = not_ok(check(with_(settings, clickhouse_url=SecretStr(f"http://{silent}")), "sink"))
        assert what == f"ClickHouse does not answer at {silent}"
    address = settings.kafka_bootstrap_servers
    ((_, _, what),) = not_ok(check(with_(settings, clickhouse_url=SecretStr(f"http://{address}")), "sink"))
    assert what == f"what answers at {address} is not ClickHouse: it does not speak HTTP"


@pytest.mark.parametrize("url", ["clickhouse:8123", "http://user:Secret-1@host:port/x", "ftp://Secret-1@host"])
def test_an_address_that_is_none_is_refused_without_being_quoted(settings: Settings, url: str) -> None:
    with pytest.raises(Fatal) as refused:
        refuse_faults(with_(settings, clickhouse_url=SecretStr(url)), "sink")
    assert "BNPL_CLICKHOUSE_URL is not an http(s)://" in str(refused.value)
    assert "Secret" not in str(refused.value)


def test_a_database_that_is_not_there_is_named(settings: Settings) -> None:
    assert settings.clickhouse_url
    url = settings.clickhouse_url.get_secret_value() + "nowhere"
    ((_, _, what),) = not_ok(check(with_(settings, clickhouse_url=SecretStr(url)), "sink"))
    assert what.startswith("ClickHouse at 127.0.0.1:")
    assert what.endswith("nowhere has no such database")


# a service's start


def test_a_start_is_refused_with_every_fault_and_may_be_tried_again_only_when_all_may_pass(settings: Settings) -> None:
    away = with_(settings, clickhouse_url=SecretStr(f"http://127.0.0.1:{free_port()}"))
    with pytest.raises(Retryable, match="ClickHouse does not answer"):
        refuse_faults(away, "sink")
    refuse_faults(away, "score")
    missing = with_(away, topic_shadow_scores="never-made", topic_dead_letters="nor-this")
    with pytest.raises(Fatal) as refused:
        refuse_faults(missing, "sink")
    told = str(refused.value)
    assert told.startswith("sink cannot start:\n")
    assert "Kafka has no topic never-made, nor-this: run `bnpl-shadow topics apply`" in told
    assert "ClickHouse does not answer" in told


def test_a_start_looks_only_at_what_the_service_needs(settings: Settings, tables: Client, tmp_path: Path) -> None:
    tables.command("DROP TABLE shadow_scores")
    elsewhere = with_(settings, topic_outcomes="never-made", artifacts_dir=tmp_path, sink_max_wait_ms=100_000)
    refuse_faults(elsewhere, "score")
    with pytest.raises(Fatal, match="there is no table shadow_scores"):
        refuse_faults(elsewhere, "sink")


def test_a_warning_refuses_no_start(settings: Settings) -> None:
    alter(settings, settings.topic_transactions, retention_ms="3600000")
    assert [level for _, level, _ in not_ok(check(settings, "score"))] == ["warning"]
    refuse_faults(settings, "score")


# timeouts


def test_the_figures_of_the_rules_are_those_that_the_services_go_by() -> None:
    from consumer.services import group, score

    assert timeouts.STOP_SECONDS == supervisor.STOP_SECONDS
    assert timeouts.BACKLOG_SECONDS == group._BACKLOG_SECONDS
    assert timeouts.COMMIT_GRACE_SECONDS == score._GRACE_SECONDS
    assert timeouts.COMMIT_SECONDS == group._COMMIT_SECONDS
    assert timeouts.FLUSH_SECONDS == sink._FLUSH_SECONDS


def test_the_default_timeouts_hold_and_the_longest_allowed_ones_only_cut_a_stop_short() -> None:
    assert not_ok(list(timeouts.check_timeouts(Settings(), ("score", "sink")))) == []
    longest = Settings(transaction_timeout_ms=20_000, clickhouse_timeout_seconds=20)
    told = not_ok(list(timeouts.check_timeouts(longest, ("score", "sink"))))
    assert [level for _, level, _ in told] == ["warning", "warning"]
    hasty = Settings(max_poll_interval_ms=30_000, clickhouse_timeout_seconds=20)
    faults = [what for _, level, what in not_ok(list(timeouts.check_timeouts(hasty, ("sink",)))) if level == "fault"]
    assert len(faults) == 1
    assert "36 s against 30 s" in faults[0]
    soon = Settings(stuck_after_seconds=10)
    told = not_ok(list(timeouts.check_timeouts(soon, ("score", "sink"))))
    assert [level for _, level, _ in told] == ["warning", "warning"]
    assert all("counts as stuck does not hold" in what for _, _, what in told)


def test_the_budgets_of_models_that_run_by_themselves_must_fit_into_a_turn() -> None:
    def told(guarded_calls: int, **changes: Any) -> list[tuple[str, str, str]]:
        return not_ok(list(timeouts.check_model_budgets(Settings(**changes), guarded_calls)))

    assert list(timeouts.check_model_budgets(Settings(), 0)) == []
    assert told(5) == []
    ((_, level, what),) = told(10)
    assert level == "warning"
    assert "score: 10 model budgets, a batch's wait, a transaction and its grace < a stop's grace period" in what
    assert "25.5 s against 25 s" in what
    assert {level for _, level, _ in told(5, model_budget_ms=9000)} == {"fault", "warning"}
    assert told(1, transaction_timeout_ms=20_000) == [], "what does not hold without models is told once"


def test_a_service_whose_models_may_take_too_long_does_not_start(settings: Settings) -> None:
    refuse_faults(settings, "score", guarded_calls=5)
    with pytest.raises(Fatal, match="BNPL_MODEL_BUDGET_MS"):
        refuse_faults(with_(settings, model_budget_ms=20_000), "score", guarded_calls=5)
