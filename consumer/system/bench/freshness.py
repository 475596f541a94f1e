"""Freshness: from handing a transaction to the producer until its shadow event can be read, at a steady rate.

Three processes as in life: a sender that stamps each event with the time it is sent, the score service as
`bnpl-shadow score` runs it, and a `read_committed` reader, which takes the time when an event is in its hands. Run as a
module it is the sender.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from confluent_kafka import OFFSET_END, Consumer, Message, Producer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from consumer import logs
from consumer.clock import Deadline
from consumer.contracts.events import EventReader, EventWriter
from consumer.contracts.schemas import WriterSchemas, latest, writer_header
from consumer.errors import Fatal
from consumer.services import topics
from consumer.services.kafka import consumer_config, made, producer_config
from consumer.services.produce import Pace
from consumer.settings import Settings, load_settings
from consumer.stack.part import dying_with_us
from consumer.system.bench.load import Say, distinct_events

Milliseconds = npt.NDArray[np.float64]

EDGES_MS = (10, 20, 30, 40, 50, 60, 80, 100, 150, 200, 500, 1000)
_WARM_UP_SECONDS = 30
_LATE_SECONDS = 30.0
_START_SECONDS = 60.0
_TICKS_A_SECOND = 100


@dataclass(frozen=True)
class FreshnessFigures:
    """Milliseconds over `events` events, sent over `seconds` at `rate_per_s`."""

    rate_per_s: float
    seconds: float
    events: int
    p50: float
    p90: float
    p99: float
    most: float
    rows_per_batch: float
    """Transactions that the service scored at once, on average."""
    histogram: dict[str, int]
    """Events by their upper edge in milliseconds."""


def bench_freshness(settings: Settings, rate: int, seconds: int, say: Say) -> FreshnessFigures:
    """Raises Fatal when the service does not start, or events do not arrive."""
    own = settings.model_copy(
        update={
            "topic_transactions": "bnpl.bench.freshness",
            "topic_shadow_scores": "bnpl.bench.freshness.shadow-scores",
            "score_group": "bench-freshness",
        }
    )
    topics.apply(own)
    with _score(own) as metrics_url:
        say(f"freshness: {rate:,} events a second for {seconds} s, after {_WARM_UP_SECONDS} s of warm-up")
        taken, sent_over = _measure(own, rate, seconds)
        rows_per_batch = _rows_per_batch(metrics_url)
    counts, _ = np.histogram(taken, [0, *EDGES_MS, np.inf])
    p50, p90, p99 = np.percentile(taken, [50, 90, 99]).tolist()
    say(f"freshness: p50 {p50:.0f} ms, p99 {p99:.0f} ms, {rows_per_batch:.0f} events a batch")
    return FreshnessFigures(
        rate_per_s=len(taken) / sent_over,
        seconds=sent_over,
        events=len(taken),
        p50=p50,
        p90=p90,
        p99=p99,
        most=float(taken.max()),
        rows_per_batch=rows_per_batch,
        histogram=dict(zip([*map(str, EDGES_MS), "+Inf"], counts.tolist(), strict=True)),
    )


@contextmanager
def _score(settings: Settings) -> Iterator[str]:
    """The score service as a process; gives the address of its metrics once it is ready."""
    command = dying_with_us([sys.executable, "-m", "consumer", "score"])
    process = subprocess.Popen(command, env=_environment(settings), stderr=subprocess.PIPE, text=True)
    try:
        yield _ready(process)
    finally:
        process.terminate()
        process.communicate(timeout=_START_SECONDS)


def _ready(process: subprocess.Popen[str]) -> str:
    assert process.stderr  # noqa: S101 it was asked for
    said = ""
    for line in process.stderr:
        said += line
        if '"event": "metrics and health"' in line:
            url = line.partition('"url": "')[2].partition('"')[0]
            break
    else:
        raise Fatal(f"the score process of the bench ended:\n{said[-2000:]}")
    deadline = Deadline.after(_START_SECONDS)
    while not deadline.passed:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):  # noqa: S310 our own process
                return url
        except OSError:
            time.sleep(0.1)
    raise Fatal("the score process of the bench did not get ready")


def _rows_per_batch(url: str) -> float:
    with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:  # noqa: S310 our own process
        families = text_string_to_metric_families(answer.read().decode())
        found = {each.name: each.value for family in families for each in family.samples if not each.labels}
    return found["bnpl_predict_batch_rows_sum"] / found["bnpl_predict_batch_rows_count"]


def _environment(settings: Settings) -> dict[str, str]:
    names = ("kafka_bootstrap_servers", "topic_transactions", "topic_shadow_scores", "score_group", "state_dir")
    return {
        **os.environ,
        **{f"BNPL_{name.upper()}": str(getattr(settings, name)) for name in names},
        "BNPL_SCORE_METRICS_PORT": "0",
    }


def _measure(settings: Settings, rate: int, seconds: int) -> tuple[Milliseconds, float]:
    """Milliseconds of every event after warm-up, and the seconds over which those were sent."""
    reader = _Reader(settings)
    sending_seconds = _WARM_UP_SECONDS + seconds + 1  # what is measured then lasts the whole time that was asked for
    command = [sys.executable, "-m", "consumer.system.bench.freshness", str(rate), str(sending_seconds)]
    sender = subprocess.Popen(dying_with_us(command), env=_environment(settings), stderr=subprocess.PIPE, text=True)
    try:
        sent_at, taken = reader.read(rate * sending_seconds, sender)
    finally:
        reader.close()
        sender.kill()
        sender.communicate()
    measured = sent_at >= sent_at.min() + _WARM_UP_SECONDS * 1000
    return taken[measured], float(np.ptp(sent_at[measured])) / 1000


class _Reader:
    """Reads shadow events as they become visible, from the topic's end on."""

    def __init__(self, settings: Settings) -> None:
        config = consumer_config(settings, "bench-reader", "classic") | {"fetch.wait.max.ms": 10}
        self._consumer = made(Consumer, config)
        fields = [each for each in latest("shadow_event").schema["fields"] if each["name"] == "event_time"]
        self._events = EventReader(WriterSchemas("shadow_event", None), fields)
        topic = settings.topic_shadow_scores
        partitions = self._consumer.list_topics(topic, 10).topics[topic].partitions
        self._consumer.assign([TopicPartition(topic, number, OFFSET_END) for number in partitions])
        self._consumer.consume(1, 1.0)  # the assignment takes effect before anything is sent

    def read(self, events: int, sender: subprocess.Popen[str]) -> tuple[Milliseconds, Milliseconds]:
        """(when each was sent, how long it took), until all are there. Raises Fatal when they do not come."""
        sent_at: list[Milliseconds] = []
        taken: list[Milliseconds] = []
        missing, late = events, Deadline.after(_LATE_SECONDS)
        while missing:
            messages = [each for each in self._consumer.consume(1000, 0.005) if each.error() is None]
            now = time.time() * 1000
            if messages:
                times = self._events.read(list(map(Message.value, messages))).batch.column("event_time").to_numpy()
                sent_at.append(times.astype(np.float64))
                taken.append(now - times)
                missing -= len(times)
                late = Deadline.after(_LATE_SECONDS)
            elif late.passed or sender.poll():
                raise Fatal(f"the freshness bench misses {missing:,} of {events:,} shadow events")
        return np.concatenate(sent_at), np.concatenate(taken)

    def close(self) -> None:
        self._consumer.close()


def _send(settings: Settings, rate: int, events: int) -> None:
    """Send at a steady rate, each event stamped with the time at which it is handed over."""
    writer = EventWriter("transaction", writer_header("transaction", settings.topic_transactions, None))
    producer = made(Producer, producer_config(settings) | {"linger.ms": 1})
    pace = Pace(rate, _TICKS_A_SECOND)
    for batch in cycle(distinct_events()):
        for piece in pace.slices(batch.slice(0, min(batch.num_rows, events))):
            keys = piece.column("customer_id").to_pylist()
            values = writer.write(_stamped(piece))
            messages = [{"key": key, "value": value} for key, value in zip(keys, values, strict=True)]
            producer.produce_batch(settings.topic_transactions, messages)
            producer.poll(0)
        events -= batch.num_rows
        if events <= 0:
            break
    if producer.flush(_LATE_SECONDS):
        raise Fatal("not all events were acknowledged")


def _stamped(batch: pa.RecordBatch) -> pa.RecordBatch:
    at = batch.schema.get_field_index("transaction_timestamp")
    now = pa.array(np.full(batch.num_rows, int(time.time() * 1000)), batch.schema.field(at).type)
    return batch.set_column(at, batch.schema.field(at), now)


if __name__ == "__main__":
    logs.configure("error", "bench")
    _rate, _seconds = map(int, sys.argv[1:])
    _send(load_settings(), _rate, _rate * _seconds)
