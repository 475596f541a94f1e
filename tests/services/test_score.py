"""The score service on a real Kafka: what comes out for what went in, record by record."""

from __future__ import annotations

import hmac
import json
import math
import random
from datetime import datetime, timedelta
from typing import Any

import pytest
from confluent_kafka import Message
from harness import (
    HEADER_NAMES,
    PARTITIONS,
    Event,
    encoded,
    read_topic,
    running,
    send,
    send_events,
    shadow_events,
    simulated,
    wait_scored,
)
from pydantic import SecretStr

from consumer.clock import utc_now
from consumer.scoring.controller import ShadowModeController
from consumer.services.score import ScoreService
from consumer.settings import Settings

EXACT = 1e-12


def scored(settings: Settings, controller: ShadowModeController) -> list[Event]:
    """Run the service until it has caught up; the shadow events in the topic."""
    with running(ScoreService(settings, controller)):
        wait_scored(settings)
    return shadow_events(settings)


def java_murmur2(key: bytes) -> int:
    """org.apache.kafka.common.utils.Utils.murmur2, as a signed 32-bit number."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(key)
    whole = len(key) & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(key[at : at + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = h * m & mask ^ k
    if whole < len(key):
        h = (h ^ int.from_bytes(key[whole:], "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    h ^= h >> 15
    return h - 2**32 if h >= 2**31 else h


def test_the_murmur2_of_these_tests_is_javas() -> None:
    """Expected values are those of Kafka's own UtilsTest.testMurmur2."""
    known = {
        b"21": -973932308,
        b"foobar": -790332482,
        b"a-little-bit-long-string": -985981536,
        b"a-little-bit-longer-string": -1486304829,
        b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
        b"abc": 479470107,
    }
    assert {key: java_murmur2(key) for key in known} == known


def test_every_transaction_gets_one_shadow_event_with_all_that_was_said(
    settings: Settings, controller: ShadowModeController
) -> None:
    events = simulated(600, seed=1)
    events[7] |= {"business_decision": "decline", "approval_propensity": 0.25}
    send_events(settings, events)
    began = utc_now()
    found = scored(settings, controller)

    sources = {(m.partition(), m.offset()): m for m in read_topic(settings, settings.topic_transactions)}
    assert sorted((each["source_partition"], each["source_offset"]) for each in found) == sorted(sources)
    sent = {each["transaction_id"]: each for each in events}
    assert {each["transaction_id"] for each in found} == set(sent)
    for shadow in found:
        event = sent[shadow["transaction_id"]]
        source = sources[shadow["source_partition"], shadow["source_offset"]]
        assert source.value() == encoded(event)
        said = controller.score_single(event)
        assert shadow["business_decision"] == said["business_decision"]
        assert shadow["business_risk_flag"] == said["business_risk_flag"]
        assert shadow["business_risk_score"] == pytest.approx(said["business_risk_score"], abs=EXACT)
        assert shadow["reason_codes"] == said["reason_codes"]
        assert [each["name"] for each in shadow["models"]] == list(said["models"])
        for model in shadow["models"]:
            expected = said["models"][model["name"]]
            assert model["score"] == pytest.approx(expected["score"], abs=EXACT)
            assert {key: model[key] for key in ("role", "version", "score_kind", "flag", "error")} == {
                key: expected[key] for key in ("role", "version", "score_kind", "flag", "error")
            }
        assert shadow["champion"] == said["champion"]
        assert shadow["champion_score"] == pytest.approx(said["champion_score"], abs=EXACT)
        assert shadow["consensus"] == pytest.approx(said["consensus"], abs=EXACT)
        assert shadow["consensus"] == pytest.approx(sum(each["score"] for each in shadow["models"]) / 4, abs=EXACT)
        assert shadow["event_time"] == datetime.fromisoformat(event["transaction_timestamp"])
        assert began - timedelta(milliseconds=1) <= shadow["scored_at"] <= utc_now()
        assert (shadow["amount"], shadow["installment_count"]) == (event["amount"], event["installment_count"])
        assert shadow["checkout_decision"] == event["business_decision"]
        assert shadow["approval_propensity"] == event["approval_propensity"]
        assert shadow["rule_set_version"] == controller.rules.version
        assert shadow["rule_set_sha256"] == controller.rules.sha256
        assert shadow["feature_spec_version"] == said["feature_spec_version"]
        assert shadow["artifact_version"] == said["artifact_version"]
        assert shadow["source_topic"] == settings.topic_transactions
        assert shadow["customer_ref"] is None
        assert shadow["advisory"] is True


def test_events_are_keyed_by_transaction_and_lie_where_java_would_put_them(
    settings: Settings, controller: ShadowModeController
) -> None:
    send_events(settings, simulated(300, seed=2))
    found = scored(settings, controller)
    messages = read_topic(settings, settings.topic_shadow_scores)
    assert [m.key().decode() for m in messages] == [each["transaction_id"] for each in found]
    assert [m.partition() for m in messages] == [(java_murmur2(m.key()) & 0x7FFFFFFF) % PARTITIONS for m in messages]
    assert {m.partition() for m in messages} == set(range(PARTITIONS))


def test_a_replay_gives_every_prediction_the_same_id_and_other_models_another(
    settings: Settings, controller: ShadowModeController
) -> None:
    send_events(settings, simulated(50, seed=3))
    first = scored(settings, controller)
    again = settings.model_copy(update={"score_group": f"{settings.score_group}-replay"})
    both = scored(again, controller)
    assert len(both) == 100
    ids = {each["prediction_id"] for each in first}
    assert len(ids) == 50
    assert {each["prediction_id"] for each in both} == ids
    assert all(each["prediction_id"] == f"{each['transaction_id']}.{controller.identity}" for each in both)


def test_customers_are_named_by_a_keyed_hash_when_there_is_a_key(
    settings: Settings, controller: ShadowModeController
) -> None:
    settings = settings.model_copy(update={"pseudonym_key": SecretStr("a key of this deployment")})
    events = simulated(20, seed=4)
    send_events(settings, events)
    customers = {each["transaction_id"]: each["customer_id"] for each in events}
    for shadow in scored(settings, controller):
        customer = customers[shadow["transaction_id"]]
        expected = hmac.new(b"a key of this deployment", customer.encode(), "sha256").hexdigest()
        assert shadow["customer_ref"] == expected
        assert customer not in json.dumps(shadow, default=str)


def test_an_unknown_category_is_scored(settings: Settings, controller: ShadowModeController) -> None:
    events = simulated(30, seed=5)
    for each in events[:4]:
        each["payment_provider"] = "a-new-provider"
    send_events(settings, events)
    found = {each["transaction_id"]: each for each in scored(settings, controller)}
    assert len(found) == 30
    for each in events[:4]:
        said = controller.score_single(each)
        assert found[each["transaction_id"]]["consensus"] == pytest.approx(said["consensus"], abs=EXACT)
    assert not read_topic(settings, settings.topic_dead_letters)


def bad_records(event: Event) -> dict[str, tuple[bytes | None, str]]:
    """name → (value, the error that must be named)"""
    good, now, name = encoded(event), utc_now(), event["transaction_id"].encode()
    return {
        "tombstone": (None, "tombstone"),
        "empty": (b"", "empty"),
        "truncated": (good[:-9], "truncated"),
        "random": (random.Random(7).randbytes(300), "unknown_framing"),
        "unknown fingerprint": (b"\xc3\x01" + b"\x07" * 8 + good[10:], "unknown_schema"),
        "unknown id": (b"\x00\x00\x00\x30\x39" + good[10:], "unknown_schema"),
        "nan": (encoded(event, amount=math.nan), "not_finite"),
        "infinite": (encoded(event, amount=math.inf), "not_finite"),
        "minus infinite": (encoded(event, payment_credit_limit=-math.inf), "not_finite"),
        "negative": (encoded(event, amount=-0.01), "negative"),
        "future": (encoded(event, transaction_timestamp=now + timedelta(days=3650)), "in_the_future"),
        "past": (encoded(event, transaction_timestamp=now - timedelta(days=36500)), "too_old"),
        "oversized": (encoded(event, product_category="x" * 300), "oversized"),
        "trailing": (good + b"\x00", "trailing_bytes"),
        "invalid utf-8": (good.replace(name, b"\xff" * len(name), 1), "invalid_utf8"),
        "no customer": (encoded(event, customer_id=""), "empty_id"),
    }


def headers_of(message: Message) -> tuple[list[tuple[str, bytes | None]], dict[str, str]]:
    """The record's own headers in order, and ours by field."""
    fields = {header: field for field, header in HEADER_NAMES.items()}
    told = message.headers() or []
    own = [(name, value) for name, value in told if name not in fields]
    return own, {fields[name]: value.decode() for name, value in told if name in fields}


def test_bad_records_become_dead_letters_and_their_neighbours_are_scored(
    settings: Settings, controller: ShadowModeController
) -> None:
    events = simulated(200, seed=6)
    bad = bad_records(events[0])
    own = [("trace", b"\x00\xff"), ("trace", b"again"), ("empty", None)]
    records: list[dict[str, Any]] = []
    for at, event in enumerate(events):
        records.append({"key": event["customer_id"], "value": encoded(event), "partition": 0})
        if at < len(bad):
            name = list(bad)[at]
            records.append({"key": name.encode(), "value": bad[name][0], "partition": 0, "headers": own})
    send(settings, settings.topic_transactions, records)

    found = scored(settings, controller)
    assert [each["transaction_id"] for each in sorted(found, key=lambda each: each["source_offset"])] == [
        each["transaction_id"] for each in events
    ]
    letters = {m.key().decode(): m for m in read_topic(settings, settings.topic_dead_letters)}
    assert set(letters) == set(bad)
    offsets = {record["key"]: offset for offset, record in enumerate(records) if "headers" in record}
    for name, (value, error) in bad.items():
        letter = letters[name]
        assert letter.value() == value
        kept, told = headers_of(letter)
        assert kept == own
        assert set(told) == set(HEADER_NAMES)
        assert (told["topic"], told["partition"]) == (settings.topic_transactions, "0")
        assert int(told["offset"]) == offsets[name.encode()]
        assert told["exception_class_name"] == error
        assert told["stage"] in ("decode", "validate")
        assert told["attempt"] == "1"
        assert abs(datetime.fromisoformat(told["first_failed_at"]) - utc_now()) < timedelta(minutes=1)
        assert events[0]["customer_id"] not in told["exception_message"]


def test_a_dead_letter_sent_again_counts_its_attempts_and_keeps_when_it_first_failed(
    settings: Settings, controller: ShadowModeController
) -> None:
    records = [{"key": b"k", "value": b"rubbish", "headers": [("trace", b"1")]}]
    send(settings, settings.topic_transactions, records)
    scored(settings, controller)
    (letter,) = read_topic(settings, settings.topic_dead_letters)
    first = headers_of(letter)[1]
    send(settings, settings.topic_transactions, [{"key": b"k", "value": letter.value(), "headers": letter.headers()}])
    scored(settings, controller)
    second = headers_of(max(read_topic(settings, settings.topic_dead_letters), key=lambda m: m.offset()))
    assert second[0] == [("trace", b"1")]
    assert second[1]["attempt"] == "2"
    assert second[1]["first_failed_at"] == first["first_failed_at"]


def test_a_record_as_large_as_the_broker_takes_fits_into_the_dead_letters(
    settings: Settings, controller: ShadowModeController
) -> None:
    largest = 1_048_588 - 200  # the broker's default for a batch, less what surrounds the value
    (event,) = simulated(1, seed=8)
    value = encoded(event, product_brand="")
    value = encoded(event, product_brand="é" * ((largest - len(value) - 10) // 2))
    huge = encoded(event, risk_level="x" * (largest - len(encoded(event))))
    send(
        settings,
        settings.topic_transactions,
        [{"key": b"scored", "value": value}, {"key": b"refused", "value": huge}],
    )
    (shadow,) = scored(settings, controller)
    assert shadow["transaction_id"] == event["transaction_id"]
    (letter,) = read_topic(settings, settings.topic_dead_letters)
    assert letter.value() == huge
    assert headers_of(letter)[1]["exception_class_name"] == "oversized"


def test_records_of_many_bytes_are_read_in_smaller_batches(
    settings: Settings, controller: ShadowModeController
) -> None:
    settings = settings.model_copy(update={"batch_max_bytes": 1024 * 1024})
    events = simulated(60, seed=9)
    wide = [{"key": b"k", "value": encoded(each, product_brand="w" * 100_000)} for each in events]
    send(settings, settings.topic_transactions, wide)
    assert len(scored(settings, controller)) == 60
