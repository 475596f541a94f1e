"""Joining a group on brokers old and new, and finding nobody there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Commands, running, send_events, shadow_events, simulated, wait_scored

from consumer.errors import TRY_AGAIN
from consumer.scoring.controller import ShadowModeController
from consumer.services import topics
from consumer.services.score import ScoreService
from consumer.settings import Settings
from consumer.stack.kafka import Kafka
from consumer.stack.part import free_port


class KafkaOfClassicGroups(Kafka):
    """A broker that knows no KIP-848 groups, as those before 4.0."""

    def prepare(self) -> list[str]:
        command = super().prepare()
        with (self.data / "server.properties").open("a") as properties:
            properties.write("group.coordinator.rebalance.protocols=classic\n")
        return command


@pytest.fixture
def on_old_broker(tmp_path: Path) -> Iterator[Settings]:
    broker = KafkaOfClassicGroups(tmp_path, 0, owned=True)
    broker.start()
    try:
        given = {"kafka_bootstrap_servers": broker.address, "state_dir": tmp_path, "score_metrics_port": 0}
        settings = Settings(**given, topic_partitions=2)
        topics.apply(settings)
        yield settings
    finally:
        broker.kill()


def test_on_a_broker_without_new_groups_auto_takes_the_classic_ones_and_consumer_says_what_is_wrong(
    on_old_broker: Settings, controller: ShadowModeController, commands: Commands
) -> None:
    send_events(on_old_broker, simulated(100))
    with running(ScoreService(on_old_broker, controller)):
        wait_scored(on_old_broker)
    assert len(shadow_events(on_old_broker)) == 100

    strict = commands.start(on_old_broker, "score", BNPL_GROUP_PROTOCOL="consumer")
    assert strict.ended(40) == 1
    assert "BNPL_GROUP_PROTOCOL" in strict.output


def test_without_a_broker_every_command_ends_with_a_message_that_names_the_address(
    settings: Settings, commands: Commands, tmp_path: Path
) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"")
    nobody = f"127.0.0.1:{free_port()}"
    asked = [("score",), ("sink",), ("topics", "apply"), ("produce", str(file))]
    started = [commands.start(settings, *each, BNPL_KAFKA_BOOTSTRAP_SERVERS=nobody) for each in asked]
    for command in started:
        assert command.ended(60) == TRY_AGAIN
        assert command.output.splitlines()[-1].startswith(f"error: Kafka does not answer at {nobody}: ")


def test_missing_topics_end_a_service_and_it_names_the_command_that_makes_them(
    settings: Settings, commands: Commands
) -> None:
    missing = settings.model_copy(update={"topic_transactions": "never-made", "topic_dead_letters": "nor-this"})
    score = commands.run(missing, "score")
    assert score.process.returncode == 1
    assert "Kafka has no topic never-made, nor-this: run `bnpl-shadow topics apply`" in score.output
