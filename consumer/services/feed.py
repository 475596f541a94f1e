"""What the sink reads, and what becomes of it: a topic, its reader, its table, and its dead letters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from consumer.contracts import outcome
from consumer.contracts.avro import Decoded
from consumer.contracts.events import EventReader
from consumer.contracts.horizons import Horizons
from consumer.contracts.registry import SchemaRegistry, schema_registry
from consumer.contracts.schemas import WriterSchemas, latest
from consumer.contracts.transaction import Limits
from consumer.services.dead_letters import DeadLetterMeter
from consumer.services.loop import Batch
from consumer.services.rows import OUTCOMES, SCORES, Table
from consumer.settings import Settings

Read = Callable[[Sequence[bytes | None]], Decoded]


@dataclass(frozen=True)
class Feed:
    """A topic that the sink copies into a table; what cannot be used goes to `letters`, its dead-letter topic."""

    topic: str
    letters: str
    table: Table
    read: Read
    meter: DeadLetterMeter
    """Its limits hold for each partition of this topic."""

    def take(self, batch: Batch) -> Lot:
        """Decode a batch of its topic. Raises DeadLetterLimit when too much of it cannot be used."""
        decoded = self.read(batch.values)
        self.meter.count_rejected(batch.partitions, batch.offsets, decoded.rejected)
        return Lot(self, batch, decoded, self.table.rows(decoded, batch.partitions, batch.offsets))


@dataclass(frozen=True)
class Lot:
    """A batch of one feed: as read, as decoded, and as rows to insert."""

    feed: Feed
    batch: Batch
    decoded: Decoded
    rows: pa.Table


def feeds(settings: Settings) -> dict[str, Feed]:
    """Both of the sink's, by topic. Raises ArtifactError when the label horizons cannot be used."""
    registry = schema_registry(settings)
    both = (
        Feed(
            settings.topic_shadow_scores,
            settings.topic_dead_letters,
            SCORES,
            _reader(SCORES.kind, registry).read,
            DeadLetterMeter(settings, settings.topic_shadow_scores),
        ),
        Feed(
            settings.topic_outcomes,
            settings.topic_outcomes_dead_letters,
            OUTCOMES,
            _outcomes(settings, registry),
            DeadLetterMeter(settings, settings.topic_outcomes),
        ),
    )
    return {each.topic: each for each in both}


def _reader(kind: str, registry: SchemaRegistry | None) -> EventReader:
    return EventReader(WriterSchemas(kind, registry), latest(kind).schema["fields"])


def _outcomes(settings: Settings, registry: SchemaRegistry | None) -> Read:
    reader, limits = _reader(OUTCOMES.kind, registry), Limits.of(settings)
    horizons = Horizons.load(settings.horizons_file)
    return lambda values: outcome.refuse_impossible(reader.read(values), horizons, limits)
