"""The fault suite in short: each kind of fault once, on real processes. `make faults` does them for longer.

What the suite leaves out is in tests/services/test_exactly_once.py: members by both protocols, a lone broker.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import Message, Producer
from harness import encoded, read_topic, running, send, simulated, wait_scored, wait_stored

from consumer.errors import Fatal
from consumer.scoring.controller import ShadowModeController
from consumer.services import clickhouse as client
from consumer.services.score import ScoreService
from consumer.services.sink import SinkService
from consumer.settings import Settings
from consumer.stack.local import LocalStack
from consumer.system import soak as soaking
from consumer.system.faults.brokers import brokers
from consumer.system.faults.clock import clock, missing
from consumer.system.faults.extent import Extent
from consumer.system.faults.processes import kills, zombie
from consumer.system.faults.store import clickhouse
from consumer.system.faults.trial import Ground
from consumer.system.ledger import Ledger, prove
from consumer.system.soak import Samples, SoakReport, figures_of, soak
from consumer.watch.reconcile.reconcile import reconcile

SHORT = Extent(rate=300, rounds=1, calm_seconds=1, fault_seconds=1, outage_seconds=2, pause_seconds=7)


@pytest.fixture
def ground(stack: LocalStack, tmp_path: Path) -> Ground:
    return Ground(stack.kafka.address, stack.clickhouse.address, tmp_path, partitions=2)


def test_nothing_is_lost_or_done_twice_whatever_dies_or_misbehaves(ground: Ground, tmp_path: Path) -> None:
    """Side by side, because most of each is waiting: for a session to end, for a process to start."""
    parts = {"kills": kills, "zombie": zombie, "clickhouse": clickhouse} | ({} if missing() else {"clock": clock})
    with ThreadPoolExecutor(len(parts)) as pool:
        runs = {
            name: pool.submit(part, replace(ground, folder=tmp_path / name), SHORT, print)
            for name, part in parts.items()
        }
        outcomes = {name: run.result() for name, run in runs.items()}
    for outcome in outcomes.values():
        assert outcome.holds, outcome
        assert outcome.events > 1000
        assert outcome.proof.rubbish > 0
        assert all(0 < fault.recovery_seconds < 120 for fault in outcome.faults)
    assert {fault.kind for fault in outcomes["kills"].faults} == {"score killed", "sink killed"}
    assert {fault.kind for fault in outcomes["zombie"].faults} == {"zombie woke", "second of a name"}
    assert {fault.kind for fault in outcomes["clickhouse"].faults} == {
        "connections reset", "slow answers", "errors of the server", "errors of a load balancer",
        "answers after the client gave up", "disk full", "endpoint killed",
    }  # fmt: skip


def test_a_cluster_may_have_a_node_that_hangs_and_may_lose_all_of_them(ground: Ground) -> None:
    """Without the deaths of single nodes, which `make faults` has: each takes half a minute."""
    outcome = brokers(ground, replace(SHORT, rounds=0), print)
    assert outcome.holds, outcome
    assert [fault.kind for fault in outcome.faults] == ["broker hung", "all brokers killed"]
    assert outcome.events > 300


def test_a_soak_samples_both_services_and_proves_its_ledger(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soaking, "SAMPLE_SECONDS", 0.25)
    samples, outcome = soak(ground, 0.1, 300, print)
    assert outcome.holds, outcome
    figures = [figures_of(each) for each in samples]
    assert [each.name for each in figures] == ["score", "sink"]
    assert all(each.rss_mb > 50 and each.descriptors > 5 for each in figures)
    told = "\n".join(SoakReport({"cores": 2}, 0.5, 0.1, 300, figures, outcome).lines())
    assert f"The ledger holds: {outcome.events:,} acknowledged" in told
    assert "lost 0, twice 0" in told


def test_the_ledger_finds_whatever_was_lost_done_twice_or_changed(
    settings: Settings, controller: ShadowModeController
) -> None:
    ledger = Ledger()
    events = simulated(300)
    _send_acknowledged(settings, ledger, [(each, each["transaction_id"], encoded(each)) for each in events[:200]])
    _send_acknowledged(settings, ledger, [(events[0], None, b"rubbish"), (events[1], None, encoded(events[1])[:-3])])
    with running(ScoreService(settings, controller)), running(SinkService(settings)):
        wait_scored(settings)
        wait_stored(settings, 200)
    proof = prove(settings, ledger)
    assert proof.holds, proof
    assert (proof.acknowledged, proof.rubbish, proof.scored, proof.dead_lettered, proof.stored) == (202, 2, 200, 2, 200)

    # what the ledger knows and nobody else does; what it believes to be otherwise
    ledger.acknowledge(0, 10**6, "never-sent", b"")
    other = Ledger()
    for message in read_topic(settings, settings.topic_transactions):
        other.acknowledge(message.partition(), message.offset(), "another", message.value())
    found = prove(settings, ledger)
    assert (found.lost, found.gone, found.twice, found.altered, found.unknown) == (1, 1, 0, 0, 0), found
    assert found.examples == ("gone 0/1000000", "lost 0/1000000")
    found = prove(settings, other)
    assert (found.altered, found.refused, found.rows_too_many) == (200, 2, 200), found
    assert sum(found.refused_for.values()) == 2
    found = prove(settings, Ledger())
    assert (found.acknowledged, found.unknown) == (0, 202 + 200 + 2 + 200), found

    # an event again, a dead letter with other bytes, a row less
    event = read_topic(settings, settings.topic_shadow_scores)[0]
    letter = read_topic(settings, settings.topic_dead_letters)[0]
    send(settings, settings.topic_shadow_scores, [{"key": event.key(), "value": event.value()}])
    send(settings, settings.topic_dead_letters, [{"value": b"other", "headers": letter.headers()}])
    with client.connect(settings) as admin:
        admin.command("ALTER TABLE shadow_scores DELETE WHERE 1 SETTINGS mutations_sync = 2")
    found = prove(settings, ledger)
    assert (found.twice, found.altered, found.not_stored, found.stored) == (2, 1, 200, 0), found
    assert not found.holds
    assert reconcile(settings).twice == 2


def _send_acknowledged(
    settings: Settings, ledger: Ledger, records: list[tuple[dict[str, object], str | None, bytes]]
) -> None:
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers})
    for event, told, value in records:
        key = str(event["customer_id"])
        producer.produce(settings.topic_transactions, value, key, on_delivery=partial(_written, ledger, told, value))
    assert producer.flush(30) == 0
    assert len(ledger) >= len(records)


def _written(ledger: Ledger, told: str | None, value: bytes, error: object, message: Message) -> None:
    assert error is None
    ledger.acknowledge(message.partition(), message.offset(), told, value)


def _hour(rss: list[float], descriptors: int = 0, lag: int = 0) -> Samples:
    """Samples of an hour; `descriptors` and `lag` are what is added on the way."""
    count = len(rss)
    samples = Samples("score", at=np.linspace(0, 3600, count).tolist(), rss_mb=rss)
    samples.descriptors = [30 + descriptors * at // count for at in range(count)]
    samples.lag = [100 + at % 7 + lag * at // count for at in range(count)]
    samples.lag_seconds = [0.1] * count
    return samples


def test_a_soak_tells_growth_from_noise() -> None:
    noise = np.random.default_rng(0).normal(0, 5, 720)
    steady, leak = (400 + noise).tolist(), (400 + noise + np.linspace(0, 60, 720)).tolist()
    warming = np.where(np.arange(720) < 100, 250 + np.arange(720), 400).tolist()
    burst = (400 + noise + 150 * (np.arange(720) > 700)).tolist()
    assert figures_of(_hour(steady)).flat
    assert figures_of(_hour(leak)).rss_mb_per_hour == pytest.approx(60, abs=5)
    assert not figures_of(_hour(leak)).flat
    assert figures_of(_hour(warming)).flat, "what is taken in the warm-up does not count"
    assert figures_of(_hour(burst)).rss_most_mb > 540
    assert figures_of(_hour(burst)).flat, "one burst at the end tilts one slope, not both"
    assert not figures_of(_hour(steady, descriptors=12)).flat
    assert not figures_of(_hour(steady, lag=5000)).flat
    with pytest.raises(Fatal, match="say nothing"):
        figures_of(_hour(steady[:5]))
