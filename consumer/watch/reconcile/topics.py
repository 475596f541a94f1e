"""What the three topics say, as columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from consumer.contracts.dead_letter import is_marker, refusal
from consumer.contracts.events import EventReader
from consumer.contracts.registry import SchemaRegistry
from consumer.contracts.schemas import WriterSchemas, latest
from consumer.services.dead_letters import headers_of
from consumer.services.loop import Batch
from consumer.watch.reconcile.bounds import Looked
from consumer.watch.reconcile.places import NOWHERE, Keys, joined, keys
from consumer.watch.records import TopicReader

Progress = Callable[[str, int, int], None]
"""Told now and then: the topic or table, how much of it was looked at, and of how much."""

_WANTED = ("prediction_id", "source_topic", "source_partition", "source_offset")
_REPLAY_MARKER = "replay marker"
_NEVER_SENT = "never sent"
_HUGE = 2**62
"""More than a partition or offset can be: headers may hold any number."""


@dataclass(frozen=True)
class Events:
    """Shadow events, a column each, in the order of their places."""

    places: Keys
    sources: Keys
    """NOWHERE for one that names another topic than ours."""
    predictions: npt.NDArray[np.int64]
    """Hashes of prediction ids: of ten million different ones two are alike once in some 300,000 runs."""
    unreadable: Keys
    """Places of records that are no shadow events."""


@dataclass(frozen=True)
class Letters:
    """What the dead-letter topic holds."""

    places: Keys
    """Where the letters of transactions stand."""
    sources: Keys
    """The transactions that they are of, in the same order."""
    of_events: Keys
    """Places of the shadow events that sink refused, sorted."""
    never_sent: int
    """Letters of lines that `bnpl-shadow produce` refused: they never were in a topic."""
    replay_markers: int
    strays: int
    """Records that are none of these: they do not say where they were read, or name another topic."""


def read_transactions(reader: TopicReader, looked: Looked, progress: Progress) -> Keys:
    """The places of all records, sorted."""
    found = joined(keys(batch.partitions, batch.offsets) for batch in _batches(reader, looked, progress))
    found.sort()
    return found


def read_events(
    reader: TopicReader, looked: Looked, transactions: str, registry: SchemaRegistry | None, progress: Progress
) -> Events:
    """All shadow events; `transactions` is the topic that their sources must be in."""
    fields = [each for each in latest("shadow_event").schema["fields"] if each["name"] in _WANTED]
    events = EventReader(WriterSchemas("shadow_event", registry), fields)
    places, sources, predictions, unreadable = [], [], [], []
    for batch in _batches(reader, looked, progress):
        decoded, at = events.read(batch.values), keys(batch.partitions, batch.offsets)
        columns = decoded.batch
        ours = pc.equal(columns.column("source_topic"), transactions).to_numpy(zero_copy_only=False)
        source = keys(*(columns.column(name).to_numpy() for name in ("source_partition", "source_offset")))
        places.append(at[decoded.positions])
        sources.append(np.where(ours, source, NOWHERE))
        predictions.append(hashes(columns.column("prediction_id").to_pylist()))
        unreadable.append(at[[bad.position for bad in decoded.rejected]])
    found = joined(places)
    order = np.argsort(found)
    return Events(found[order], joined(sources)[order], joined(predictions)[order], joined(unreadable))


def hashes(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """A number for each text, the same for the same text in this process."""
    return np.fromiter(map(hash, texts), np.int64, len(texts))


def read_letters(reader: TopicReader, looked: Looked, transactions: str, scores: str, progress: Progress) -> Letters:
    """All dead letters, by the topic that their records were read from."""
    places, sources, of_events = [], [], []
    others: Counter[str] = Counter()
    for batch in _batches(reader, looked, progress):
        told = [_told_by(message) for message in batch.messages]
        kinds = np.array([kind for kind, _, _ in told])
        source = keys(*(np.array([each[at] for each in told], np.int64) for at in (1, 2)))
        at = keys(batch.partitions, batch.offsets)
        places.append(at[kinds == transactions])
        sources.append(source[kinds == transactions])
        of_events.append(source[kinds == scores])
        others.update(kinds[(kinds != transactions) & (kinds != scores)].tolist())
    never_sent, markers = others.pop(_NEVER_SENT, 0), others.pop(_REPLAY_MARKER, 0)
    return Letters(joined(places), joined(sources), np.sort(joined(of_events)), never_sent, markers, others.total())


def _told_by(message: Any) -> tuple[str, int, int]:
    """What a record of the dead-letter topic is: the topic, partition and offset that it names, or what else it is."""
    headers = headers_of(message) or ()
    if is_marker(headers):
        return _REPLAY_MARKER, NOWHERE, NOWHERE
    why = refusal(headers)
    if why is None:
        return "", NOWHERE, NOWHERE
    if why.source.partition < 0:
        return _NEVER_SENT, NOWHERE, NOWHERE
    return why.source.topic, min(why.source.partition, _HUGE), min(why.source.offset, _HUGE)


def _batches(reader: TopicReader, looked: Looked, progress: Progress) -> Iterator[Batch]:
    done, total = 0, sum(end - start for start, end in looked.ranges.values())
    for messages in reader.read(looked.topic, looked.ranges):
        yield Batch.of(messages)
        done += len(messages)
        progress(looked.topic, done, total)
    progress(looked.topic, total, total)
