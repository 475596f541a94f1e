"""Topics, tables and client settings: what must be there before the services start, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType  # type: ignore[attr-defined]
from harness import Commands
from pydantic import SecretStr

from consumer.errors import TRY_AGAIN, ConfigurationError, Fatal
from consumer.services import topics
from consumer.services.kafka import OURS, common_config, consumer_config, producer_config
from consumer.services.migrate import migrate, read
from consumer.settings import Settings

# tables


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    folder = tmp_path / "migrations"
    folder.mkdir()
    for name in ("one", "two"):
        number = {"one": 1, "two": 2}[name]
        (folder / f"000{number}_{name}.sql").write_text(
            f"CREATE TABLE IF NOT EXISTS {name} (n Int64) ENGINE = MergeTree ORDER BY n"
        )
    return folder


def test_migrations_are_applied_once_and_in_order(clickhouse: Client, migrations: Path) -> None:
    now, before = migrate(clickhouse, migrations)
    assert ([each.name for each in now], before) == (["0001_one", "0002_two"], [])
    assert set(clickhouse.query("SHOW TABLES").result_columns[0]) >= {"one", "two"}
    now, before = migrate(clickhouse, migrations)
    assert (now, [each.number for each in before]) == ([], [1, 2])


def test_a_migration_changed_after_it_was_applied_is_refused_by_name(clickhouse: Client, migrations: Path) -> None:
    migrate(clickhouse, migrations)
    (migrations / "0001_one.sql").write_text("CREATE TABLE IF NOT EXISTS one (n String) ENGINE = MergeTree ORDER BY n")
    (migrations / "0003_three.sql").write_text("CREATE TABLE three (n Int64) ENGINE = MergeTree ORDER BY n")
    with pytest.raises(ConfigurationError, match="0001_one was changed after it was applied"):
        migrate(clickhouse, migrations)
    assert "three" not in clickhouse.query("SHOW TABLES").result_columns[0]


def test_a_run_that_failed_half_way_is_taken_up_where_it_stopped(clickhouse: Client, migrations: Path) -> None:
    good = (migrations / "0002_two.sql").read_text()
    (migrations / "0002_two.sql").write_text("CREATE TABLE two (n Nonsense) ENGINE = MergeTree ORDER BY n")
    with pytest.raises(Fatal, match="UNKNOWN_TYPE"):
        migrate(clickhouse, migrations)
    (migrations / "0002_two.sql").write_text(good)
    now, before = migrate(clickhouse, migrations)
    assert ([each.number for each in now], [each.number for each in before]) == ([2], [1])


def test_a_run_that_died_between_a_statement_and_its_record_is_run_again(clickhouse: Client, migrations: Path) -> None:
    migrate(clickhouse, migrations)
    clickhouse.command("DELETE FROM schema_migrations WHERE number = 2")
    now, _ = migrate(clickhouse, migrations)
    assert [each.number for each in now] == [2]


def test_the_shipped_migrations_may_all_be_repeated(clickhouse: Client) -> None:
    shipped = Settings().migrations_dir
    migrate(clickhouse, shipped)
    clickhouse.command("TRUNCATE TABLE schema_migrations")
    now, _ = migrate(clickhouse, shipped)
    assert now == read(shipped)


def test_stray_and_double_numbers_are_refused(migrations: Path) -> None:
    (migrations / "0002_again.sql").write_text("SELECT 1")
    with pytest.raises(ConfigurationError, match="same number"):
        read(migrations)
    (migrations / "0002_again.sql").rename(migrations / "later.sql")
    with pytest.raises(ConfigurationError, match=r"later\.sql: a migration is named NNNN_name\.sql"):
        read(migrations)


def test_an_empty_folder_of_migrations_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no migrations"):
        read(tmp_path / "nowhere")


# topics


def test_topics_are_created_kept_and_changed_only_when_asked(settings: Settings) -> None:
    assert {each.outcome for each in topics.apply(settings)} == {"kept"}
    drifted = settings.model_copy(update={"topic_outcomes": f"{settings.topic_outcomes}-old"})
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    made = NewTopic(drifted.topic_outcomes, 1, 1, config={"retention.ms": "1000"})
    admin.create_topics([made])[drifted.topic_outcomes].result(20)
    outcomes = {each.topic.name: each.outcome for each in topics.apply(drifted)}
    wanted = str(30 * 86_400_000)
    assert outcomes[drifted.topic_outcomes] == f"kept; has 1 partitions, not 3; has retention.ms 1000, not {wanted}"
    outcomes = {each.topic.name: each.outcome for each in topics.apply(drifted, alter=True)}
    assert outcomes[drifted.topic_outcomes] == "changed: retention.ms; has 1 partitions, not 3"
    resource = ConfigResource(ResourceType.TOPIC, drifted.topic_outcomes)
    found = admin.describe_configs([resource])[resource].result(20)
    assert found["retention.ms"].value == wanted
    assert topics.apply(drifted)[3].outcome == "kept; has 1 partitions, not 3"


def test_the_control_topic_is_compacted_and_dead_letters_may_be_larger_than_records(settings: Settings) -> None:
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    control = ConfigResource(ResourceType.TOPIC, settings.topic_control)
    letters = ConfigResource(ResourceType.TOPIC, settings.topic_dead_letters)
    found = {each: future.result(20) for each, future in admin.describe_configs([control, letters]).items()}
    assert found[control]["cleanup.policy"].value == "compact"
    assert int(found[letters]["max.message.bytes"].value) == 2 * 1024 * 1024


def test_the_commands_say_what_they_did(settings: Settings, commands: Commands) -> None:
    applied = commands.run(settings, "topics", "apply", "--json")
    assert applied.process.returncode == 0
    told = json.loads(applied.output)
    assert {each["topic"]: each["outcome"] for each in told["topics"]}[settings.topic_control] == "kept"
    groups = {each["group"]: each["outcome"] for each in told["groups"]}
    said = "a member that died is missed after 6 s"
    assert groups == {settings.score_group: said, settings.sink_group: said}
    migrated = commands.run(settings, "migrate")
    assert migrated.process.returncode == 0
    assert f"0 applied now, {len(read(settings.migrations_dir))} before" in migrated.output
    assert "recorded" not in migrated.output
    dearer = commands.run(settings.model_copy(update={"margin": 0.1}), "migrate")
    assert "recorded what decisions are worth: margin 0.1, loss given default 0.6" in dearer.output


# client.properties


def test_unsafe_keys_are_refused_all_at_once_and_by_name(tmp_path: Path) -> None:
    file = tmp_path / "client.properties"
    file.write_text("".join(f"{key}=x\n" for key in OURS) + "linger.ms=7\n")
    with pytest.raises(ConfigurationError) as refused:
        common_config(Settings(kafka_config_file=file, kafka_bootstrap_servers="localhost:1"))
    assert str(file) in str(refused.value)
    for key, why in OURS.items():
        assert f"  {key}: {why}" in str(refused.value)
    assert "linger.ms" not in str(refused.value)


def test_sasl_and_tls_settings_pass_through_and_reach_every_client(tmp_path: Path) -> None:
    file = tmp_path / "client.properties"
    file.write_text(
        "# comment\n\n security.protocol = SASL_SSL\nsasl.mechanism=PLAIN\n! another\nsasl.password=a=b#c\n"
    )
    settings = Settings(kafka_config_file=file, kafka_bootstrap_servers="broker:9092")
    expected = {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "sasl.password": "a=b#c"}
    for config in (common_config(settings), producer_config(settings), consumer_config(settings, "g", "consumer")):
        assert expected.items() <= config.items()
        assert config["bootstrap.servers"] == "broker:9092"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere.properties"
    with pytest.raises(ConfigurationError, match=r"BNPL_KAFKA_CONFIG_FILE .*nowhere\.properties: No such file"):
        common_config(Settings(kafka_config_file=missing, kafka_bootstrap_servers="localhost:1"))


def test_no_secret_is_ever_printed(settings: Settings, commands: Commands, tmp_path: Path) -> None:
    file = tmp_path / "client.properties"
    file.write_text("security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.username=u\nsasl.password=Secret-1\n")
    secrets = {
        "BNPL_CLICKHOUSE_URL": "http://default:Secret-2@127.0.0.1:9/x",
        "BNPL_SCHEMA_REGISTRY_URL": "http://user:Secret-3@127.0.0.1:9",
        "BNPL_PSEUDONYM_KEY": "Secret-4",
    }
    printed = repr(
        Settings(clickhouse_url=SecretStr(secrets["BNPL_CLICKHOUSE_URL"]), pseudonym_key=SecretStr("Secret-4"))
    )
    runs = [
        commands.start(settings, "score", **secrets, BNPL_KAFKA_CONFIG_FILE=os.fspath(file)),
        commands.start(settings, "migrate", BNPL_CLICKHOUSE_URL=secrets["BNPL_CLICKHOUSE_URL"]),
        commands.start(settings, "schemas", "register", **secrets),
    ]
    for run in runs:
        assert run.ended(60) == TRY_AGAIN
        assert "error: " in run.output
        printed += run.output
    assert "Secret-" not in printed
