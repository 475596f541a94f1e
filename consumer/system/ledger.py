"""A ledger of what the broker acknowledged, and the proof that each of it came out exactly once.

    ledger = Ledger()
    ledger.acknowledge(partition, offset, "t-1", value)      # None instead of an id: rubbish, which must be refused
    ...
    proof = prove(settings, ledger)                          # once both groups have read everything

The product's own reconciler compares the topics with each other. This compares them, and the table, with what their
producer knows. It holds three numbers a record (24 bytes), so nine million records fit into 220 MB. The numbers are
Python's hashes, which only the process that made them can compare.
"""

from __future__ import annotations

import threading
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from confluent_kafka import Message

from consumer.contracts.dead_letter import header_names
from consumer.contracts.events import EventReader
from consumer.contracts.registry import schema_registry
from consumer.contracts.schemas import WriterSchemas, latest
from consumer.services import clickhouse
from consumer.settings import Settings
from consumer.watch.records import TopicReader

Numbers = npt.NDArray[np.int64]

_OFFSET_BITS = 44
_RUBBISH = 0
_EXAMPLES = 5
_ROWS = """
SELECT source_partition, source_offset, transaction_id, prediction_id FROM shadow_scores FINAL
"""


class Ledger:
    """What was acknowledged. May be filled from one thread while another asks how long it is."""

    def __init__(self) -> None:
        self._entries = array("q")
        self._lock = threading.Lock()

    def acknowledge(self, partition: int, offset: int, transaction_id: str | None, value: bytes) -> None:
        """The broker has this record at this place. `transaction_id` is None for one that must become a dead letter."""
        told = _RUBBISH if transaction_id is None else hash(transaction_id)
        with self._lock:
            self._entries.extend((_key(partition, offset), told, hash(value)))

    def __len__(self) -> int:
        return len(self._entries) // 3

    def sorted(self) -> _Found:
        """Everything so far, by place."""
        with self._lock:
            columns = np.array(self._entries, np.int64).reshape(-1, 3).T
        return _Found(*columns[:, np.argsort(columns[0], kind="stable")])


@dataclass(frozen=True)
class Proof:
    """Counts, and what does not add up. It `holds` when each acknowledged record came out exactly once, as what it is,
    and nothing else did.
    """

    acknowledged: int
    rubbish: int
    """How many of them had to become dead letters."""
    scored: int
    dead_lettered: int
    stored: int
    gone: int
    """Acknowledged records that the broker does not have any more."""
    lost: int
    """Acknowledged records with neither shadow event nor dead letter."""
    twice: int
    """Acknowledged records with more than one of them."""
    altered: int
    """Shadow events under another transaction's id, rubbish that was scored, dead letters with other bytes."""
    refused: int
    """Good transactions that became dead letters."""
    unknown: int
    """Records, shadow events, dead letters and rows of what was never acknowledged."""
    not_stored: int
    """Scored transactions without their row."""
    rows_too_many: int
    """Rows beyond one a transaction, and rows that differ from their shadow event."""
    refused_for: dict[str, int] = field(default_factory=dict)
    """Why good transactions were refused, by the dead letters' own word."""
    examples: tuple[str, ...] = ()
    """Where the first of what does not add up stand."""

    @property
    def holds(self) -> bool:
        return not self.refused and self.holds_but_for_refusals

    @property
    def holds_but_for_refusals(self) -> bool:
        """As `holds`, where a rule may have refused good transactions, each of them once."""
        return not (
            self.gone
            or self.lost
            or self.twice
            or self.altered
            or self.unknown
            or self.not_stored
            or self.rows_too_many
        )


@dataclass(frozen=True)
class _Found:
    """Something at places: hashes of an id, and of bytes or of another id."""

    keys: Numbers
    ids: Numbers
    values: Numbers


class _Seen:
    """Found things beside what the ledger knows of their places."""

    def __init__(self, known: _Found, found: _Found) -> None:
        self.found = found
        self._known = known
        at = np.searchsorted(known.keys, found.keys)
        self.is_known = np.isin(found.keys, known.keys)
        self._at = at[self.is_known]

    @property
    def times(self) -> Numbers:
        """How often each place of the ledger was seen."""
        return np.bincount(self._at, minlength=len(self._known.keys))

    def differ(self, found: Numbers, known: Numbers) -> npt.NDArray[np.bool_]:
        """Which of the found are at a place where the ledger knows otherwise."""
        wrong = np.zeros(len(found), bool)
        wrong[self.is_known] = found[self.is_known] != known[self._at]
        return wrong

    def by_place(self, values: Numbers) -> Numbers:
        """A value for each place of the ledger: the last one that was found there, else 0."""
        placed = np.zeros(len(self._known.keys), np.int64)
        placed[self._at] = values[self.is_known]
        return placed


def prove(settings: Settings, ledger: Ledger) -> Proof:
    """Read the three topics and the table, and compare them with the ledger, place by place.

    Call it when both groups have nothing left to read. Raises KafkaUnavailable or ClickHouseUnavailable.
    """
    known = ledger.sorted()
    with TopicReader(settings) as reader:
        records = _Seen(known, _gathered(_records(reader, settings)))
        events = _Seen(known, _gathered(_scored(reader, settings)))
        found, reasons = _dead_letters(reader, settings)
    letters, rows = _Seen(known, found), _Seen(known, _gathered(_rows(settings)))
    outcomes = events.times + letters.times
    refused = letters.differ(letters.found.ids, known.ids)
    predictions = events.by_place(events.found.values)
    suspects = {
        "gone": records.times == 0,
        "lost": outcomes == 0,
        "twice": outcomes > 1,
        "not stored": (events.times > 0) & (rows.times == 0),
    }
    altered = [
        records.differ(records.found.values, known.values),
        events.differ(events.found.ids, known.ids),
        letters.differ(letters.found.values, known.values),
    ]
    wrong_rows = rows.differ(rows.found.ids, known.ids) | rows.differ(rows.found.values, predictions)
    return Proof(
        acknowledged=len(known.keys),
        rubbish=int((known.ids == _RUBBISH).sum()),
        scored=len(events.found.keys),
        dead_lettered=len(letters.found.keys),
        stored=len(rows.found.keys),
        gone=int(suspects["gone"].sum()),
        lost=int(suspects["lost"].sum()),
        twice=int(suspects["twice"].sum()),
        altered=sum(int(each.sum()) for each in altered),
        refused=int(refused.sum()),
        unknown=sum(int((~each.is_known).sum()) for each in (records, events, letters, rows)),
        not_stored=int(suspects["not stored"].sum()),
        rows_too_many=int(np.maximum(rows.times - 1, 0).sum() + wrong_rows.sum()),
        refused_for=dict(Counter(np.array(reasons, object)[refused].tolist())),
        examples=tuple(
            f"{name} {key >> _OFFSET_BITS}/{key & ((1 << _OFFSET_BITS) - 1)}"
            for name, places in suspects.items()
            for key in known.keys[places][:_EXAMPLES].tolist()
        ),
    )


def _records(reader: TopicReader, settings: Settings) -> Iterator[_Found]:
    topic = settings.topic_transactions
    for messages in reader.read(topic, reader.held(topic)):
        yield _Found(_own_places(messages), np.full(len(messages), _RUBBISH), _hashes(map(Message.value, messages)))


def _scored(reader: TopicReader, settings: Settings) -> Iterator[_Found]:
    wanted = ("prediction_id", "transaction_id", "source_partition", "source_offset")
    fields = [each for each in latest("shadow_event").schema["fields"] if each["name"] in wanted]
    events = EventReader(WriterSchemas("shadow_event", schema_registry(settings)), fields)
    topic = settings.topic_shadow_scores
    for messages in reader.read(topic, reader.held(topic)):
        yield _of_columns(events.read(list(map(Message.value, messages))).batch)


def _rows(settings: Settings) -> Iterator[_Found]:
    with clickhouse.connect(settings) as client, clickhouse.errors_named():
        strings = {"output_format_arrow_string_as_string": 1}
        with client.query_arrow_stream(_ROWS, settings=strings) as blocks:
            for block in blocks:
                yield _of_columns(block)


def _of_columns(batch: Any) -> _Found:
    keys = (batch.column("source_partition").to_numpy() << _OFFSET_BITS) | batch.column("source_offset").to_numpy()
    ids, predictions = (_hashes(batch.column(name).to_pylist()) for name in ("transaction_id", "prediction_id"))
    return _Found(keys, ids, predictions)


def _dead_letters(reader: TopicReader, settings: Settings) -> tuple[_Found, list[str]]:
    """Those of transactions that stand in the topic, and the reason of each."""
    names, topic = header_names(), settings.topic_dead_letters
    keys, values, reasons = array("q"), array("q"), []
    for messages in reader.read(topic, reader.held(topic)):
        for message in messages:
            told: dict[str, Any] = dict(message.headers() or ())
            source, partition, offset = (told[names[name]].decode() for name in ("topic", "partition", "offset"))
            if source == settings.topic_transactions and int(partition) >= 0:
                keys.append(_key(int(partition), int(offset)))
                values.append(hash(message.value()))
                reasons.append(told[names["exception_class_name"]].decode())
    found = np.array(keys, np.int64)
    return _Found(found, np.full(len(found), _RUBBISH), np.array(values, np.int64)), reasons


def _own_places(messages: list[Any]) -> Numbers:
    partitions, offsets = (
        np.fromiter(map(of, messages), np.int64, len(messages)) for of in (Message.partition, Message.offset)
    )
    return (partitions << _OFFSET_BITS) | offsets


def _hashes(values: Any) -> Numbers:
    return np.fromiter(map(hash, values), np.int64)


def _gathered(parts: Iterator[_Found]) -> _Found:
    found = list(parts)
    columns = ([each.keys for each in found], [each.ids for each in found], [each.values for each in found])
    return _Found(*(np.concatenate(column) if column else np.empty(0, np.int64) for column in columns))


def _key(partition: int, offset: int) -> int:
    """One number for a place."""
    return (partition << _OFFSET_BITS) | offset
