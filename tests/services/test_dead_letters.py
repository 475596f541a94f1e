"""The dead-letter limit: a bad deploy must stop a service, not drain a topic."""

from __future__ import annotations

import ctypes
from pathlib import Path

import confluent_kafka
import numpy as np
import pytest
from confluent_kafka import Producer
from harness import (
    HEADER_NAMES,
    Commands,
    committed,
    encoded,
    eventually,
    read_topic,
    running,
    score_lag,
    send,
    shadow_events,
    simulated,
    wait_scored,
)
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from consumer.errors import DeadLetterLimit
from consumer.scoring.controller import ShadowModeController
from consumer.services.dead_letters import DeadLetterMeter, headers_of
from consumer.services.score import ScoreService
from consumer.settings import Settings

LIMITS = Settings(dead_letter_max_consecutive=4, dead_letter_max_ratio=0.3, dead_letter_ratio_min_records=10)


class OneByOne:
    """The limit as its settings describe it, record by record; the ratio is looked at after each batch."""

    def __init__(self) -> None:
        self.in_a_row: dict[int, int] = {}
        self.seen: dict[int, list[bool]] = {}

    def breaks(self, batch: list[tuple[int, bool]]) -> bool:
        broken = False
        for partition, bad in batch:
            self.in_a_row[partition] = self.in_a_row.get(partition, 0) + 1 if bad else 0
            self.seen.setdefault(partition, []).append(bad)
            broken |= self.in_a_row[partition] >= LIMITS.dead_letter_max_consecutive
        for partition in {partition for partition, _ in batch}:
            seen = self.seen[partition]
            enough = len(seen) >= LIMITS.dead_letter_ratio_min_records
            broken |= enough and sum(seen) > LIMITS.dead_letter_max_ratio * len(seen)
        return broken


def count(meter: DeadLetterMeter, batch: list[tuple[int, bool]]) -> None:
    partitions = np.array([partition for partition, _ in batch], np.int64)
    meter.count(partitions, np.flatnonzero([bad for _, bad in batch]))


def batches(bad: st.SearchStrategy[bool]) -> st.SearchStrategy[list[list[tuple[int, bool]]]]:
    records = st.tuples(st.sampled_from([0, 1, 5]), bad)
    return st.lists(st.lists(records, min_size=1, max_size=30), max_size=8)


@given(batches(st.integers(0, 3).map(lambda draw: draw == 0)))
@hypothesis_settings(deadline=None, max_examples=300)
def test_the_meter_stops_where_counting_one_by_one_would(stream: list[list[tuple[int, bool]]]) -> None:
    meter, naive = DeadLetterMeter(LIMITS, "topic"), OneByOne()
    for batch in stream:
        if naive.breaks(batch):
            with pytest.raises(DeadLetterLimit):
                count(meter, batch)
            return
        count(meter, batch)


def test_a_few_bad_records_after_many_good_ones_break_nothing() -> None:
    meter = DeadLetterMeter(Settings(dead_letter_max_ratio=0.05, dead_letter_ratio_min_records=1000), "topic")
    for _ in range(5):
        count(meter, [(0, False)] * 1000)
    count(meter, [(0, at % 10 == 0) for at in range(1000)])


def test_old_records_fade_so_that_a_change_for_the_worse_is_seen() -> None:
    meter = DeadLetterMeter(Settings(dead_letter_max_ratio=0.05), "topic")
    for _ in range(1000):
        count(meter, [(0, False)] * 1000)
    with pytest.raises(DeadLetterLimit, match=r"partition 0: 5\.\d% of the last \d+ records are bad.*MAX_RATIO"):
        for _ in range(10):
            count(meter, [(0, at % 10 == 0) for at in range(1000)])


def test_what_is_read_again_is_not_counted_twice() -> None:
    meter = DeadLetterMeter(LIMITS, "topic")
    count(meter, [(0, True)] * 3)
    meter.forget()
    count(meter, [(0, True)] * 3)
    with pytest.raises(DeadLetterLimit, match="4 records in a row"):
        count(meter, [(0, True)])


def test_too_many_bad_records_in_a_row_stop_the_service_and_leave_the_topic_alone(
    settings: Settings, commands: Commands, controller: ShadowModeController
) -> None:
    good = [{"key": b"k", "partition": 0, "value": encoded(each)} for each in simulated(5)]
    bad = [{"key": b"k", "partition": 0, "value": b"rubbish"}] * 100
    send(settings, settings.topic_transactions, [*good, *bad, *good])

    stopped = commands.start(settings, "score")
    assert stopped.ended(40) == 1
    assert "partition 0: 100 records in a row are bad" in stopped.output
    assert "raise BNPL_DEAD_LETTER_MAX_CONSECUTIVE" in stopped.output
    with score_lag(settings) as lag:
        assert committed(lag) == 0
    assert not read_topic(settings, settings.topic_dead_letters)
    assert not shadow_events(settings)

    raised = settings.model_copy(update={"dead_letter_max_consecutive": 101})
    with running(ScoreService(raised, controller)):
        wait_scored(settings)
    assert len(read_topic(settings, settings.topic_dead_letters)) == 100
    assert len(shadow_events(settings)) == 10


def test_too_large_a_share_of_bad_records_stops_the_service(
    settings: Settings, controller: ShadowModeController
) -> None:
    values = [b"rubbish" if at % 15 == 0 else encoded(each) for at, each in enumerate(simulated(1500))]
    send(settings, settings.topic_transactions, [{"key": b"k", "partition": 1, "value": each} for each in values])
    told = r"partition 1: 6\.\d% of the last \d+ records are bad.* raise BNPL_DEAD_LETTER_MAX_RATIO"
    with pytest.raises(DeadLetterLimit, match=told), running(ScoreService(settings, controller)) as service:
        eventually(service.done, 30, "the service stops")
    letters = read_topic(settings, settings.topic_dead_letters)
    with score_lag(settings) as lag:
        published = len(letters) + len(shadow_events(settings))
        assert published < 1500
        eventually(lambda: committed(lag) == published, 15, lambda: (committed(lag), published))


def test_a_record_too_large_for_a_dead_letter_is_named_and_stops_nothing(
    settings: Settings, controller: ShadowModeController
) -> None:
    """Compression lets a producer send more than the broker's limit for a record."""
    large = {"message.max.bytes": 4 * 1024 * 1024, "compression.type": "zstd"}
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers, **large})
    producer.produce(settings.topic_transactions, bytes(3 * 1024 * 1024), b"k", partition=0)
    assert producer.flush(20) == 0
    send(settings, settings.topic_transactions, [{"key": b"k", "partition": 0, "value": encoded(simulated(1)[0])}])

    with running(ScoreService(settings, controller)):
        wait_scored(settings)
    (letter,) = read_topic(settings, settings.topic_dead_letters)
    assert (letter.key(), letter.value()) == (b"k", None)
    message = dict(letter.headers() or ())["__connect.errors.exception.message"].decode()
    assert "its 3145728 bytes are too many for a dead letter and stay where they were read" in message
    assert len(shadow_events(settings)) == 1


def send_with_header(settings: Settings, name: bytes) -> None:
    """Produce rubbish with a header of any name by librdkafka itself: its Python client takes only text."""
    (path,) = Path(confluent_kafka.__file__).parent.parent.glob("confluent_kafka.libs/librdkafka-*.so*")
    kafka, why = ctypes.CDLL(str(path)), ctypes.create_string_buffer(512)
    kafka.rd_kafka_conf_new.restype = kafka.rd_kafka_new.restype = ctypes.c_void_p
    conf = ctypes.c_void_p(kafka.rd_kafka_conf_new())
    address = (settings.kafka_bootstrap_servers or "").encode()
    assert kafka.rd_kafka_conf_set(conf, b"bootstrap.servers", address, why, ctypes.sizeof(why)) == 0
    producer = ctypes.c_void_p(kafka.rd_kafka_new(0, conf, why, ctypes.sizeof(why)))  # 0: a producer
    size = ctypes.c_size_t
    topic, partition, value, key, flags, header, end = 1, 3, 4, 5, 7, 9, 0  # rd_kafka_vtype_t
    told = kafka.rd_kafka_producev(
        producer,
        *(topic, settings.topic_transactions.encode()),
        *(partition, 0),
        *(value, b"rubbish", size(7)),
        *(key, b"k", size(1)),
        *(flags, 2),  # copy the value
        *(header, name, b"1", size(1)),
        *(header, b"own", b"2", size(1)),
        end,
    )
    assert told == 0
    assert kafka.rd_kafka_flush(producer, 20_000) == 0
    kafka.rd_kafka_destroy(producer)


def test_a_record_whose_header_names_are_not_utf8_becomes_a_dead_letter_without_its_own_headers(
    settings: Settings, controller: ShadowModeController
) -> None:
    """The client gives none of the headers of such a record."""
    send_with_header(settings, b"readable")
    send_with_header(settings, b"\xff\xfe")
    _, unreadable = read_topic(settings, settings.topic_transactions)
    for _ in range(100):  # each time, also once the interpreter has seen the call often
        assert headers_of(unreadable) is None
    with running(ScoreService(settings, controller)):
        wait_scored(settings)
    within, without = read_topic(settings, settings.topic_dead_letters)
    ours = set(HEADER_NAMES.values())
    assert {name for name, _ in within.headers() or ()} == ours | {"readable", "own"}
    assert {name for name, _ in without.headers() or ()} == ours
    for letter in (within, without):
        assert (letter.key(), letter.value()) == (b"k", b"rubbish")
        assert dict(letter.headers() or ())[HEADER_NAMES["exception_class_name"]] == b"unknown_framing"
