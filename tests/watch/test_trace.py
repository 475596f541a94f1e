"""`trace` at every stage of a transaction's way, on real parts; scores taken apart against scikit-learn."""

from __future__ import annotations

import io
import json
from datetime import timedelta

import numpy as np
import pytest
from harness import (
    Commands,
    decoded,
    encoded,
    eventually,
    read_topic,
    running,
    send,
    send_events,
    simulated,
    stored,
    wait_scored,
    wait_stored,
)
from pydantic import SecretStr

from consumer.champion.promotion import Grounds, Signature, configured, promoted
from consumer.cli.trace_report import report
from consumer.clock import utc_now
from consumer.contracts.dead_letter import Coordinates
from consumer.errors import TRY_AGAIN
from consumer.scoring.controller import ShadowModeController
from consumer.services import control
from consumer.services.produce import TransactionSender, read_lines
from consumer.services.score import ScoreService
from consumer.services.sink import SinkService
from consumer.settings import Settings
from consumer.stack.part import free_port
from consumer.watch.trace.explain import linear_forms
from consumer.watch.trace.search import partition_of
from consumer.watch.trace.story import Sending, Trace
from consumer.watch.trace.trace import trace


def only(found: Trace) -> Sending:
    (sending,) = found.sendings
    return sending


def score(settings: Settings, controller: ShadowModeController) -> None:
    with running(ScoreService(settings, controller)):
        wait_scored(settings)


def store(settings: Settings, count: int) -> None:
    with running(SinkService(settings)):
        wait_stored(settings, count)


def test_a_transaction_is_followed_from_stage_to_stage(
    settings: Settings, controller: ShadowModeController, commands: Commands
) -> None:
    events = simulated(200)
    wanted = events[7]
    wanted |= {"risk_score": 0.95, "risk_level": "very_high"}
    name = wanted["transaction_id"]
    assert trace(settings, name).sendings == []

    before = utc_now() - timedelta(seconds=1)
    send_events(settings, events)
    found = only(trace(settings, name))
    (record,) = [
        each for each in read_topic(settings, settings.topic_transactions)
        if decoded(each.value() or b"", "transaction")["transaction_id"] == name
    ]  # fmt: skip
    assert found.at == Coordinates(record.topic() or "", record.partition() or 0, record.offset() or 0)
    assert found.state == "waiting for score"
    assert f"its group is at offset 0 of that partition, {found.at.offset} before this" in found.told
    assert found.event
    assert found.event.fields
    assert found.event.fields["amount"] == wanted["amount"]
    assert before < found.event.arrived <= utc_now() + timedelta(seconds=1)
    assert found.predictions == []

    score(settings, controller)
    found = only(trace(settings, name))
    assert found.state == "waiting for sink"
    (prediction,) = found.predictions
    (shadow,) = [
        each for each in read_topic(settings, settings.topic_shadow_scores) if each.key() == name.encode()
    ]  # fmt: skip
    assert prediction.at
    assert (prediction.at.partition, prediction.at.offset) == (shadow.partition(), shadow.offset())
    said = decoded(shadow.value() or b"")
    assert prediction.recorded == said | {
        "event_time": prediction.recorded["event_time"], "scored_at": prediction.recorded["scored_at"]
    }  # fmt: skip
    assert prediction.row is None

    store(settings, len(events))
    found = only(trace(settings, name))
    assert (found.state, found.told) == ("stored", "stored")
    (prediction,) = found.predictions
    assert prediction.row
    assert prediction.row["actual_default"] is None
    assert prediction.recomputed
    assert prediction.recomputed.differences == []
    assert prediction.recorded["business_decision"] == "decline"

    done = commands.run(settings, "trace", name, "--json")
    assert done.process.returncode == 0
    told = json.loads(done.output)["sendings"][0]
    assert told["state"] == "stored"
    assert told["predictions"][0]["recorded"]["reason_codes"] == prediction.recorded["reason_codes"]
    assert wanted["customer_id"] not in done.output
    shown = report(trace(settings, name))
    assert max(map(len, shown.splitlines())) <= 100
    sections = ["event", "decision", "  reasons", "features", "scores", "shadow event", "stored", "outcome"]
    positions = [shown.index(f"\n{section} ") for section in sections]
    assert positions == sorted(positions)
    for each in (*prediction.recorded["reason_codes"], prediction.recorded["prediction_id"], str(prediction.at)):
        assert each in shown
    assert wanted["customer_id"] not in shown


def test_a_decision_of_the_champion_is_told_as_such_and_made_again(
    settings: Settings, controller: ShadowModeController
) -> None:
    state = control.read(settings).log.state
    stands_on = Grounds(None, override=True, unsupported="a test")
    signed = Signature("anna", utc_now(), "a test")
    made = promoted(state, configured(settings), "logistic", "champion", None, stands_on, signed)
    control.write(settings, made)
    events = simulated(600, seed=7)
    send_events(settings, events)
    score(settings, controller)
    found = {}
    for each in read_topic(settings, settings.topic_shadow_scores):
        event = decoded(each.value() or b"")
        found[event["decision"], event["decided_by"]] = event["transaction_id"]
    assert {*found} == {("approve", "champion"), ("decline", "champion"), ("decline", "rules")}
    for (decision, decided_by), name in found.items():
        traced = trace(settings, name)
        (prediction,) = only(traced).predictions
        assert prediction.recomputed
        assert prediction.recomputed.differences == []
        who = "the champion logistic" if decided_by == "champion" else "the rules"
        assert f"stands        {decision}, decided by {who}, mode champion" in report(traced)


def test_an_unknown_id_is_one_sentence_and_a_failure(settings: Settings, commands: Commands) -> None:
    send_events(settings, simulated(20))
    done = commands.run(settings, "trace", "nobody-knows-this")
    assert done.process.returncode == 1
    (line,) = done.output.splitlines()
    assert line.startswith("error: no transaction, dead letter or score with this id")


def test_an_id_that_another_one_begins_with_is_not_mistaken_for_it(settings: Settings) -> None:
    event = simulated(1)[0]
    send_events(settings, [event | {"transaction_id": name} for name in ("t-1", "t-10", "t-100", "at-10")])
    assert only(trace(settings, "t-10", everything=True)).event
    assert trace(settings, "t-", everything=True).sendings == []


def test_a_record_that_was_refused_is_shown_with_its_letter(
    settings: Settings, controller: ShadowModeController
) -> None:
    good, negative, torn = simulated(3)
    send(
        settings,
        settings.topic_transactions,
        [
            {"value": encoded(good), "partition": 0},
            {"value": encoded(negative, amount=-1.0), "partition": 1},
            {"value": encoded(torn)[:-3], "partition": 2},
        ],
    )
    score(settings, controller)
    found = only(trace(settings, negative["transaction_id"]))
    (letter,) = found.letters
    assert (found.state, found.told) == ("dead letter", "refused at validate: negative")
    assert letter.source == found.at == Coordinates(settings.topic_transactions, 1, 0)
    assert letter.at.topic == settings.topic_dead_letters
    assert letter.message == "amount is negative"
    found = only(trace(settings, torn["transaction_id"]))
    assert found.event
    assert found.event.fields is None
    assert found.event.fault
    assert "the record ends inside" in found.event.fault
    assert found.told == "refused at decode: truncated"
    assert "dead letter" in report(trace(settings, torn["transaction_id"]))


def test_a_line_that_was_never_sent_is_found_by_its_id(settings: Settings) -> None:
    content = json.dumps({"transaction_id": "line-7", "amount": "much"}).encode()
    (bad,) = [bad for lines in read_lines(io.BytesIO(content)) for bad in lines.bad]
    sender = TransactionSender(settings)
    sender.refuse(bad)
    sender.flush()
    found = trace(settings, "line-7")
    assert only(found).state == "dead letter"
    assert "it never came into a topic" in report(found)


def test_a_shadow_event_that_the_sink_refused_is_a_dead_letter_of_its_transaction(
    settings: Settings, controller: ShadowModeController
) -> None:
    (event,) = simulated(1)
    send_events(settings, [event])
    score(settings, controller)
    (record,) = read_topic(settings, settings.topic_shadow_scores)
    names = {"topic": record.topic(), "partition": str(record.partition()), "offset": str(record.offset())}
    headers = [(f"__connect.errors.{name}", (value or "").encode()) for name, value in names.items()]
    headers += [("__connect.errors.stage", b"decode"), ("__connect.errors.exception.class.name", b"truncated")]
    send(settings, settings.topic_dead_letters, [{"value": b"x", "headers": headers}])
    found = only(trace(settings, event["transaction_id"]))
    assert found.state == "dead letter"
    assert found.told == "scored, then refused by the sink at decode: truncated"


def test_a_transaction_sent_twice_is_shown_twice_and_its_row_is_the_later_ones(
    settings: Settings, controller: ShadowModeController
) -> None:
    (event,) = simulated(1)
    send_events(settings, [event])
    score(settings, controller)
    store(settings, 1)
    send_events(settings, [event])
    score(settings, controller)
    with running(SinkService(settings)):
        eventually(lambda: int(stored(settings, "max(source_offset)")) > 0, 20, "the second sending was not stored")
    first, second = trace(settings, event["transaction_id"], everything=True).sendings
    assert first.at.offset < second.at.offset
    assert (first.told, second.told) == ("stored, then replaced by a later sending", "stored")
    shown = report(trace(settings, event["transaction_id"], everything=True))
    assert "sent 2 times" in shown
    assert "of a later sending, which replaced this one's" in " ".join(shown.split())


def test_scores_of_other_artifacts_stand_beside_each_other_and_are_not_made_again(
    settings: Settings, controller: ShadowModeController
) -> None:
    (event,) = simulated(1)
    send_events(settings, [event])
    score(settings, controller)
    (record,) = read_topic(settings, settings.topic_shadow_scores)
    older = (record.value() or b"").replace(controller.identity.encode(), b"0" * len(controller.identity))
    send(settings, settings.topic_shadow_scores, [{"key": record.key(), "value": older}])
    store(settings, 2)
    (sending,) = trace(settings, event["transaction_id"]).sendings
    by_us, by_others = sorted(sending.predictions, key=lambda each: each.recomputed is None)
    assert by_us.recomputed
    assert by_others.recomputed is None
    assert f"it was scored by {'0' * len(controller.identity)}" in by_others.not_recomputed


def test_a_score_that_comes_out_otherwise_now_is_said(settings: Settings, controller: ShadowModeController) -> None:
    (event,) = simulated(1)
    send_events(settings, [event])
    score(settings, controller)
    (before,) = trace(settings, event["transaction_id"]).sendings[0].predictions
    (record,) = read_topic(settings, settings.topic_shadow_scores)
    (recorded,) = [each["score"] for each in before.recorded["models"] if each["name"] == "logistic"]
    in_the_event = np.float64(recorded).tobytes()
    assert (record.value() or b"").count(in_the_event) == 1
    forged = (record.value() or b"").replace(in_the_event, np.float64(0.5).tobytes())
    send(settings, settings.topic_shadow_scores, [{"key": record.key(), "value": forged}])
    _, after = trace(settings, event["transaction_id"]).sendings[0].predictions
    assert after.recomputed
    (difference,) = after.recomputed.differences
    assert difference == f"score of logistic: recorded 0.5, now {recorded}"


def test_since_bounds_the_search(settings: Settings, commands: Commands) -> None:
    (event,) = simulated(1)
    send_events(settings, [event])
    assert trace(settings, event["transaction_id"], since=utc_now() - timedelta(hours=1)).sendings
    assert not trace(settings, event["transaction_id"], since=utc_now() + timedelta(seconds=5)).sendings
    done = commands.run(settings, "trace", event["transaction_id"], "--since", "yesterday")
    assert done.process.returncode == 2
    assert "'yesterday' is neither 30m, 6h, 2d nor a time" in done.output


def test_what_is_away_is_named_and_the_rest_is_told(
    settings: Settings, controller: ShadowModeController, commands: Commands
) -> None:
    (event,) = simulated(1)
    send_events(settings, [event])
    score(settings, controller)
    store(settings, 1)
    nobody = f"127.0.0.1:{free_port()}"
    name = event["transaction_id"]
    no_clickhouse = commands.start(settings, "trace", name, BNPL_CLICKHOUSE_URL=f"http://{nobody}")
    no_kafka = commands.start(settings, "trace", name, BNPL_KAFKA_BOOTSTRAP_SERVERS=nobody)
    assert no_clickhouse.ended(60) == TRY_AGAIN
    assert "shadow event    t" in no_clickhouse.output
    assert "stored          ClickHouse could not be asked" in no_clickhouse.output
    assert no_kafka.ended(60) == TRY_AGAIN
    assert "state           stored" in no_kafka.output
    assert "Kafka could not be asked" in no_kafka.output
    neither = settings.model_copy(
        update={"kafka_bootstrap_servers": nobody, "clickhouse_url": SecretStr(f"http://{nobody}")}
    )
    found = trace(neither, name)
    assert (found.sendings, set(found.away), found.away_passes) == ([], {"Kafka", "ClickHouse"}, True)


# the parts


def test_a_key_is_looked_for_where_java_producers_put_it() -> None:
    # what org.apache.kafka.common.utils.UtilsTest expects of murmur2, as 32-bit numbers
    expected = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536}
    for key, number in expected.items():
        assert partition_of(key, 2**31) == number & 0x7FFFFFFF


def test_contributions_and_bias_make_up_each_models_decision_value(controller: ShadowModeController) -> None:
    predictor = controller.predictor
    model_set = predictor.model_set
    matrix = np.array([row.features for row in model_set.golden])
    scores = model_set.scores(matrix)
    for at, values in enumerate(matrix[:10]):
        forms = linear_forms(predictor, values)
        assert set(forms) == set(scores)
        for name in ("ridge", "logistic", "elastic"):
            form, score_ = forms[name], scores[name][at]
            assert form
            total = form.bias + sum(value * weight for _, value, weight in form.contributions)
            assert total == pytest.approx(np.log(score_ / (1 - score_)), abs=1e-9)
            assert form.decision == pytest.approx(total, abs=1e-12)
            assert [name for name, *_ in form.contributions] != list(model_set.feature_names)
            sizes = [abs(value * weight) for _, value, weight in form.contributions]
            assert sizes == sorted(sizes, reverse=True)
        ensemble = forms["ensemble"]
        assert ensemble
        assert ensemble.forms == 3
        parts = [forms[name] for name in ("ridge", "logistic", "elastic")]
        assert ensemble.decision == pytest.approx(np.mean([part.decision for part in parts if part]), abs=1e-9)
