"""Records from the lines of a file, as columns; a line that is none of them keeps its number and its bytes."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, BinaryIO, cast

import orjson
import pyarrow as pa

from consumer.contracts.events import LABEL_FIELDS
from consumer.errors import InvalidRecord

CHUNK_LINES = 2_000

Record = dict[str, Any]
_Numbered = tuple[int, bytes, Record]


@dataclass(frozen=True)
class BadLine:
    """A line that cannot be sent: its number from 1, its bytes, and why."""

    number: int
    content: bytes
    reason: InvalidRecord


@dataclass
class Lines:
    """One chunk of a file: the good lines as columns, and the others."""

    batch: pa.RecordBatch
    bad: list[BadLine] = field(default_factory=list)
    labels: Counter[str] = field(default_factory=Counter)
    """Lines that carry a label of the research files, which no event does, by its name."""


def read_records(
    stream: BinaryIO,
    parse: Callable[[bytes], Record],
    columns: Callable[[Sequence[Record]], pa.RecordBatch],
    before: int = 0,
) -> Iterator[Lines]:
    """The records of a stream, a chunk at a time; empty lines are passed over.

    `parse` makes a record of a line, `columns` columns of records; each raises InvalidRecord for what it cannot take.
    `before`: lines that were already read.
    """
    while chunk := list(islice(stream, CHUNK_LINES)):
        lines = Lines(columns([]))
        records: list[_Numbered] = []
        for number, content in enumerate(chunk, before + 1):
            if not content.strip():
                continue
            try:
                record = parse(content)
            except InvalidRecord as reason:
                lines.bad.append(BadLine(number, content, reason))
                continue
            for label in LABEL_FIELDS:
                lines.labels[label] += label in record
            records.append((number, content, record))
        batches: list[pa.RecordBatch] = []
        _to_columns(records, columns, batches, lines.bad)
        if batches:
            lines.batch = pa.Table.from_batches(batches).combine_chunks().to_batches()[0]
        yield lines
        before += len(chunk)


def _to_columns(
    records: list[_Numbered],
    columns: Callable[[Sequence[Record]], pa.RecordBatch],
    batches: list[pa.RecordBatch],
    bad: list[BadLine],
) -> None:
    """Columns of the records that can be sent, in order; a failing batch is halved until the bad lines stand alone."""
    if not records:
        return
    try:
        batches.append(columns([record for *_, record in records]))
    except InvalidRecord as reason:
        if len(records) == 1:
            bad.append(BadLine(records[0][0], records[0][1], reason))
            return
        half = len(records) // 2
        _to_columns(records[:half], columns, batches, bad)
        _to_columns(records[half:], columns, batches, bad)


def unpacked(raw: BinaryIO, name: str) -> BinaryIO:
    """The stream itself, or what is packed in it when the name ends in .gz."""
    return cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if name.endswith(".gz") else raw


def json_object(content: bytes) -> Record:
    """A line that is a JSON object; NaN and Infinity pass, as Python's own writer puts them: whoever reads the event
    says what is wrong with them. Raises InvalidRecord for another line.
    """
    try:
        try:
            found = orjson.loads(content)
        except orjson.JSONDecodeError:
            found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidRecord("not_json", "the line is not a JSON object")
    return found
