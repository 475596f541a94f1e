"""What is in the topics: are their newest records what they should be, and do their times agree with our clock?"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from consumer.clock import utc_now
from consumer.contracts.avro import Decoded
from consumer.contracts.events import EventReader
from consumer.contracts.registry import schema_registry
from consumer.contracts.schemas import WriterSchemas, latest
from consumer.settings import Settings
from consumer.watch.check.finding import Finding, Findings, fault, ok, stopping, warning
from consumer.watch.records import TopicReader

_NEWEST = 10
"""Records of each partition that are looked at."""


def check_contents(settings: Settings, topics: set[str]) -> Findings:
    """The newest records of the event topics among `topics`, as far as they exist."""
    with stopping("contents"), TopicReader(settings) as reader:
        there = topics & reader.topics()
        if settings.topic_shadow_scores in there:
            messages = reader.newest(settings.topic_shadow_scores, _NEWEST)
            decoded = _decoded(settings, "shadow_event", "event_time", messages)
            yield _readable(settings.topic_shadow_scores, "shadow event", messages, decoded)
        if settings.topic_outcomes in there:
            messages = reader.newest(settings.topic_outcomes, _NEWEST)
            decoded = _decoded(settings, "outcome", "observed_at", messages)
            yield _readable(settings.topic_outcomes, "outcome", messages, decoded)
        if settings.topic_transactions in there:
            messages = reader.newest(settings.topic_transactions, _NEWEST)
            decoded = _decoded(settings, "transaction", "transaction_timestamp", messages)
            yield _readable(settings.topic_transactions, "transaction", messages, decoded)
            yield from _times(settings, decoded)


def _decoded(settings: Settings, kind: str, field: str, messages: Sequence[Any]) -> Decoded:
    fields = [each for each in latest(kind).schema["fields"] if each["name"] == field]
    registry = schema_registry(settings)
    try:
        return EventReader(WriterSchemas(kind, registry), fields).read([message.value() for message in messages])
    finally:
        if registry is not None:
            registry.close()


def _readable(topic: str, name: str, messages: Sequence[Any], decoded: Decoded) -> Finding:
    if not messages:
        return ok("contents", f"{topic} has no records at its end to look at")
    bad = len(decoded.rejected)
    if bad == len(messages):
        what = f"none of the newest {bad} records of {topic} is a {name}: {decoded.rejected[0].reason}"
        remedy = "see who writes there; if it is another system's topic, set the BNPL_TOPIC_… of ours"
        return fault("contents", what, remedy)
    return ok("contents", f"{topic}: {len(messages) - bad} of the newest {len(messages)} records are {name}s")


def _times(settings: Settings, decoded: Decoded) -> Findings:
    limit = settings.event_max_future_seconds
    yield ok("clocks", "Kafka tells no time: its clock is seen only in what its records say")
    if not decoded.batch.num_rows:
        return
    now = utc_now().timestamp()
    ahead = [milliseconds / 1000 - now for milliseconds in decoded.batch.column(0).cast("int64").to_pylist()]
    refused = [seconds for seconds in ahead if seconds > limit]
    what = (
        f"{len(refused)} of the newest {len(ahead)} transactions lie more than {limit} s ahead of this machine's clock"
    )
    if median(ahead) > limit:
        what += f", by {median(ahead):.0f} s in the middle: they become dead letters"
        yield fault("clocks", what, "set this machine's clock, or the producers'")
    elif refused:
        yield warning("clocks", f"{what}: they become dead letters", "see which producer's clock is wrong")
    else:
        yield ok("clocks", f"the newest transactions are not ahead of this machine's clock by more than {limit} s")
