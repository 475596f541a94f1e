"""The control topic on a real Kafka: who decides changes between two batches, everywhere, and by nothing but a good
record.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from harness import (
    Event,
    eventually,
    read_topic,
    running,
    send,
    send_events,
    shadow_events,
    simulated,
    wait_scored,
)

from consumer.champion.promotion import Grounds, Signature, configured, killed, promoted, rolled_back
from consumer.clock import utc_now
from consumer.contracts.control import STATE_KEY, Control, Mode, encode
from consumer.errors import Fatal, KafkaUnavailable, Outrun
from consumer.metrics import Metrics, total
from consumer.scoring.activation import Activation
from consumer.scoring.controller import ShadowModeController
from consumer.services import control, topics
from consumer.services.control import ControlFollower
from consumer.services.rescore import rescore
from consumer.services.score import ScoreService
from consumer.settings import Settings
from consumer.stack.kafka import Kafka
from consumer.watch.check.start import refuse_faults
from consumer.watch.records import TopicReader

GROUNDS = Grounds("d" * 64)
KILLED_WITHIN_SECONDS = 5.0


def signed(reason: str = "a test") -> Signature:
    return Signature("anna", utc_now(), reason)


def promote(
    settings: Settings, model: str, mode: Mode = "shadow", share: float | None = None, **changes: Any
) -> Control:
    """Make it the newest, as the command does."""
    state = control.read(settings).log.state
    made = promoted(state, configured(settings), model, mode, share, GROUNDS, signed())
    made = made.model_copy(update=changes)
    control.write(settings, made)
    return made


def kill(settings: Settings) -> Control:
    return control.amend(settings, lambda state: killed(state, configured(settings), signed("an incident")))


def rules(service: ScoreService) -> tuple[float, str, str, float]:
    """Revision, champion, mode and share, as the service's metrics say."""
    sample = service.metrics.registry.get_sample_value
    (info,) = service.metrics.control_info.collect()
    ((champion, mode),) = [(each.labels["champion"], each.labels["mode"]) for each in info.samples]
    return sample("bnpl_control_revision") or 0.0, champion, mode, sample("bnpl_champion_decides_percent") or 0.0


def skipped(service: ScoreService) -> dict[str, int]:
    (family,) = service.metrics.control_skipped.collect()
    return {each.labels["error"]: int(each.value) for each in family.samples if each.name.endswith("_total")}


def at_work(service: ScoreService) -> bool:
    (info,) = service.metrics.control_info.collect()
    return bool(info.samples)


@contextmanager
def at_work_together(*services: ScoreService) -> Iterator[None]:
    with ExitStack() as stack:
        for service in services:
            stack.enter_context(running(service))
        eventually(lambda: all(map(at_work, services)), 60, "they know who decides")
        yield


def decided(event: Event) -> tuple[str, str]:
    return event["champion"], event["mode"]


def test_two_services_switch_between_two_batches_without_a_restart_and_a_kill_reaches_both_in_seconds(
    settings: Settings, controller: ShadowModeController
) -> None:
    """Under traffic all the while; each partition's events must show the same order of champions and modes."""
    own = settings.model_copy(update={"batch_max_records": 100})
    services = [
        ScoreService(own.model_copy(update={"instance": f"{own.instance}-{name}"}), controller) for name in "ab"
    ]
    stop = threading.Event()

    def traffic() -> int:
        sent = 0
        while not stop.is_set():
            send_events(own, simulated(40, seed=500 + sent))
            sent += 1
            stop.wait(0.05)
        return sent * 40

    def both(*expected: Any) -> bool:
        return all(rules(service) == expected for service in services)

    def shared() -> bool:
        assigned = [service.metrics.registry.get_sample_value for service in services]
        labels = {"group": own.score_group, "topic": own.topic_transactions}
        return all((sample("bnpl_consumer_assigned_partitions", labels) or 0) > 0 for sample in assigned)

    with ThreadPoolExecutor(1) as pool, at_work_together(*services):
        try:
            sending = pool.submit(traffic)
            eventually(shared, 60, "both have partitions")
            assert both(0.0, "ridge", "shadow", 0.0)
            promote(own, "logistic")
            eventually(lambda: both(1.0, "logistic", "shadow", 0.0), 20, "a champion in shadow")
            promote(own, "logistic", "canary", 40.0)
            eventually(lambda: both(2.0, "logistic", "canary", 40.0), 20, "a canary")
            promote(own, "elastic", "champion")
            eventually(lambda: both(3.0, "elastic", "champion", 100.0), 20, "a champion")
            scored = sum(total(service.metrics.published, result="ok") for service in services)
            eventually(
                lambda: sum(total(each.metrics.published, result="ok") for each in services) > scored + 200,
                60,
                "traffic",
            )
            kill(own)
            began = time.monotonic()
            eventually(lambda: both(4.0, "elastic", "shadow", 0.0), KILLED_WITHIN_SECONDS, "killed")
            assert time.monotonic() - began < KILLED_WITHIN_SECONDS
        finally:
            stop.set()
        sent = sending.result(60)
        wait_scored(own, 60)
        after = simulated(100, seed=499)
        send_events(own, after)
        wait_scored(own, 60)
    found = shadow_events(own)
    assert len(found) == sent + 100
    order = [
        ("ridge", "shadow"),
        ("logistic", "shadow"),
        ("logistic", "canary"),
        ("elastic", "champion"),
        ("elastic", "shadow"),
    ]
    by_partition = defaultdict(list)
    for event in sorted(found, key=lambda each: each["source_offset"]):
        by_partition[event["source_partition"]].append(order.index(decided(event)))
    assert all(ranks == sorted(ranks) for ranks in by_partition.values())
    assert {decided(event) for event in found} >= {order[0], order[3], order[4]}
    last = {each["transaction_id"] for each in after}
    for event in found:
        models = {each["name"]: each for each in event["models"]}
        assert [each["name"] for each in event["models"] if each["role"] == "champion"] == [event["champion"]]
        assert event["champion_score"] == models[event["champion"]]["score"]
        if event["mode"] == "shadow":
            assert (event["decision"], event["decided_by"]) == (event["business_decision"], "rules")
        elif event["mode"] == "champion" and event["business_decision"] == "approve":
            flag = models["elastic"]["flag"]
            assert (event["decision"], event["decided_by"]) == ("decline" if flag else "approve", "champion")
        if event["transaction_id"] in last:
            assert decided(event) == order[4]


def test_the_state_is_known_before_the_first_batch_and_outlives_restarts_and_rubbish(
    settings: Settings, controller: ShadowModeController
) -> None:
    promote(settings, "ensemble", "champion")
    ruling = promote(settings, "logistic", "champion")
    good = ruling.model_copy(update={"revision": 3, "previous_revision": 2})
    rubbish: list[dict[str, Any]] = [
        {"key": STATE_KEY, "value": b"rubbish"},
        {"key": STATE_KEY, "value": None},
        {"key": b"somebody", "value": b"{}"},
        {"key": STATE_KEY, "value": encode(ruling)[:-4]},
        {"key": STATE_KEY, "value": encode(ruling.model_copy(update={"revision": 1, "previous_revision": 0}))},
        {"key": b"promotion/9", "value": encode(good)},
        {"key": STATE_KEY, "value": encode(good.model_copy(update={"champion": "unheard"}))},
    ]
    errors = {
        "unknown_framing": 2,
        "tombstone": 1,
        "truncated": 1,
        "revision_not_newer": 1,
        "foreign_key": 1,
        "not_loaded": 1,
    }
    send(settings, settings.topic_control, rubbish)
    send_events(settings, simulated(300, seed=41))
    first = ScoreService(settings, controller)
    with running(first):
        wait_scored(settings)
        assert rules(first) == (2.0, "logistic", "champion", 100.0)
        eventually(lambda: skipped(first) == errors, 20, lambda: skipped(first))
    assert {decided(each) for each in shadow_events(settings)} == {("logistic", "champion")}
    again = ScoreService(settings, controller)
    with at_work_together(again):
        assert rules(again) == (2.0, "logistic", "champion", 100.0)
        send(settings, settings.topic_control, rubbish[:3])
        eventually(lambda: skipped(again).get("tombstone") == 2, 20, lambda: skipped(again))
        assert rules(again) == (2.0, "logistic", "champion", 100.0)
        assert kill(settings).revision == 4, "also a record for a model that is not loaded counts"
        eventually(lambda: rules(again)[2] == "shadow", KILLED_WITHIN_SECONDS, "killed")
    found = control.read(settings)
    assert len(found.passed_over) == 9
    assert list(found.log.history) == [1, 2, 3, 4]


def test_a_kill_for_other_models_than_those_loaded_ends_that_a_model_decides_here_too(
    settings: Settings, controller: ShadowModeController
) -> None:
    service = ScoreService(settings, controller)
    with at_work_together(service):
        promote(settings, "logistic", "champion")
        eventually(lambda: rules(service)[0] == 1.0, 20, "it decides")
        promote(settings, "ridge", "champion", artifact_sha256="e" * 64)
        eventually(lambda: skipped(service) == {"not_loaded": 1}, 20, "another set's champion is passed over")
        assert rules(service) == (1.0, "logistic", "champion", 100.0)
        kill(settings)
        eventually(lambda: rules(service) == (3.0, "logistic", "shadow", 0.0), KILLED_WITHIN_SECONDS, "killed")


def test_of_promotions_at_once_exactly_one_is_written_and_the_others_are_told(settings: Settings) -> None:
    rounds, at_once = 10, 2
    artifact = configured(settings)

    def race(start: threading.Barrier, model: str) -> Control | str:
        made = promoted(control.read(settings).log.state, artifact, model, "champion", None, GROUNDS, signed(model))
        start.wait(60)
        try:
            control.write(settings, made)
        except Outrun as lost:
            return str(lost)
        return made

    winners = []
    with ThreadPoolExecutor(at_once) as pool:
        for _ in range(rounds):
            start = threading.Barrier(at_once)
            ends = list(pool.map(race, [start] * at_once, ("ridge", "logistic")))
            won = [each for each in ends if isinstance(each, Control)]
            assert len(won) == 1, ends
            assert all("bnpl-shadow control" in each for each in ends if isinstance(each, str))
            winners += won
    found = control.read(settings)
    assert list(found.log.history.values()) == winners
    assert [each.revision for each in winners] == list(range(1, rounds + 1))
    assert not found.passed_over


def test_a_kill_overtakes_a_promotion_that_is_being_written(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(settings, "logistic", "champion")
    written, killed_meanwhile, commit = threading.Event(), threading.Event(), control._commit

    def late(*arguments: Any) -> None:
        if not written.is_set():
            written.set()
            assert killed_meanwhile.wait(60)
        commit(*arguments)

    monkeypatch.setattr(control, "_commit", late)
    with ThreadPoolExecutor(1) as pool:
        promotion = pool.submit(promote, settings, "elastic", "champion")
        assert written.wait(60)
        made = kill(settings)
        killed_meanwhile.set()
        with pytest.raises(Outrun, match=r"revision 2: kill by anna"):
            promotion.result(60)
    assert list(control.read(settings).log.history.values())[1:] == [made]


def test_a_promotion_made_from_a_state_that_is_gone_is_refused(settings: Settings) -> None:
    stale = promoted(None, configured(settings), "ridge", "champion", None, GROUNDS, signed())
    promote(settings, "logistic")
    with pytest.raises(Outrun, match=r"the newest is revision 1: promote by anna\. See `bnpl-shadow control`"):
        control.write(settings, stale)
    assert control.read(settings).log.state.champion == "logistic"  # type: ignore[union-attr]


def test_a_chain_of_rollbacks_on_the_topic_leads_back_to_the_beginning(settings: Settings) -> None:
    promote(settings, "logistic", "canary", 2.5)
    promote(settings, "elastic", "champion")
    kill(settings)
    seen = []
    for _ in range(3):
        made = rolled_back(control.read(settings).log, configured(settings), signed())
        control.write(settings, made)
        seen.append((made.champion, made.mode, made.canary_percent))
    assert seen == [("elastic", "champion", None), ("logistic", "canary", 2.5), ("ridge", "shadow", None)]
    with pytest.raises(Fatal, match="nothing is before revision 6"):
        rolled_back(control.read(settings).log, configured(settings), signed())
    keys = [each.key() for each in read_topic(settings, settings.topic_control)]
    assert keys == [key for revision in range(1, 7) for key in (b"promotion/%d" % revision, STATE_KEY)]


def test_what_an_open_transaction_of_another_program_hides_is_not_overlooked(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "_READ_SECONDS", 2.0)
    other = Producer(
        {"bootstrap.servers": settings.kafka_bootstrap_servers, "transactional.id": settings.topic_control}
    )
    other.init_transactions(20)
    other.begin_transaction()
    other.produce(settings.topic_control, key=b"k", value=b"rubbish")
    assert other.flush(20) == 0
    with pytest.raises(KafkaUnavailable, match="another program's open transaction holds records back"):
        control.read(settings)
    other.abort_transaction(20)
    assert eventually(lambda: control.read(settings), 20, "it is aborted").passed_over == {}


@contextmanager
def following(settings: Settings, controller: ShadowModeController) -> Iterator[ControlFollower]:
    follower = ControlFollower(settings, controller.predictor.model_set, Metrics("shadow"))
    with follower.following():
        yield follower


def test_a_topic_that_was_made_anew_begins_anew_and_a_kill_there_is_obeyed(
    settings: Settings, controller: ShadowModeController
) -> None:
    promote(settings, "logistic")
    ruling = promote(settings, "logistic", "champion")
    with following(settings, controller) as follower:
        expected = Activation("logistic", "champion", None, ruling.revision)
        assert follower.newest() == expected
        admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
        admin.delete_topics([settings.topic_control])[settings.topic_control].result(20)
        eventually(lambda: settings.topic_control not in admin.list_topics(timeout=10).topics, 20, "deleted")
        with pytest.raises(Fatal, match="run `bnpl-shadow topics apply`"):
            control.read(settings)
        topics.apply(settings)
        assert follower.newest() == expected
        assert kill(settings).revision == 1
        eventually(lambda: follower.newest() == Activation("ridge", "shadow", None, 1), 30, follower.newest)


def test_while_the_broker_is_away_the_last_state_rules_and_once_it_is_back_the_next_one_does(
    settings: Settings, controller: ShadowModeController, tmp_path: Path
) -> None:
    broker = Kafka(tmp_path / "broker", 0, owned=True)
    broker.start()
    own = settings.model_copy(update={"kafka_bootstrap_servers": broker.address})
    try:
        topics.apply(own)
        promote(own, "logistic", "canary", 10.0)
        with following(own, controller) as follower:
            expected = Activation("logistic", "canary", 10.0, 1)
            assert follower.newest() == expected
            broker.stop()
            with pytest.raises(KafkaUnavailable):
                control.read(own)
            assert follower.newest() == expected
            broker.start()
            eventually(lambda: kill(own), 30, "it can be written again")
            eventually(lambda: follower.newest() == Activation("logistic", "shadow", None, 2), 30, follower.newest)
    finally:
        broker.kill()


def test_without_the_topic_score_does_not_begin(settings: Settings, controller: ShadowModeController) -> None:
    without = settings.model_copy(update={"topic_control": "never-made"})
    with pytest.raises(Fatal, match="Kafka has no topic never-made: run `bnpl-shadow topics apply`"):
        refuse_faults(without, "score")
    refuse_faults(without, "sink")
    send_events(without, simulated(5))
    with pytest.raises(Fatal, match="Kafka has no topic never-made: run `bnpl-shadow topics apply`"):
        ScoreService(without, controller).run(threading.Event())
    assert shadow_events(settings) == []


def test_history_that_is_scored_again_is_not_decided_again(
    settings: Settings, controller: ShadowModeController
) -> None:
    promote(settings, "logistic", "champion")
    send_events(settings, simulated(50, seed=43))
    with TopicReader(settings) as reader:
        ranges = reader.held(settings.topic_transactions)
    done = rescore(settings, controller, utc_now(), ranges, threading.Event())
    assert done.scored == 50
    assert {(*decided(each), each["decided_by"]) for each in shadow_events(settings)} == {("ridge", "shadow", "rules")}
