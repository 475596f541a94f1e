"""The producer's side of outcomes: JSON lines or CSV onto the topic."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, BinaryIO, Literal

import pyarrow as pa

from consumer.contracts.outcome import SCHEMA, columns_from_dicts
from consumer.errors import Fatal, InvalidRecord
from consumer.services.lines import Lines, Record, json_object, read_records
from consumer.services.sender import Sender
from consumer.settings import Settings

Format = Literal["jsonl", "csv"]

_BOOLEANS = {"true": True, "false": False}
_REQUIRED = [each.name for each in SCHEMA if not each.nullable]


class OutcomeSender(Sender):
    """Sends outcomes (columns of `contracts.outcome.SCHEMA`), keyed by transaction."""

    def __init__(self, settings: Settings, **given: float) -> None:
        """`given`: the `patience` of a Sender."""
        letters = settings.topic_outcomes_dead_letters
        super().__init__(settings, "outcome", settings.topic_outcomes, letters, key="transaction_id", **given)


def read_lines(stream: BinaryIO, told_as: Format) -> Iterator[Lines]:
    """Outcomes of a stream as columns, a chunk at a time.

    CSV has the fields' names in its first line and a record in each other. Raises Fatal when a name is missing there.
    """
    if told_as == "jsonl":
        return read_records(stream, json_object, columns_from_dicts)
    names = _column_names(next(iter(stream), b""))
    return read_records(stream, partial(_csv_record, names), columns_from_dicts, before=1)


def _column_names(line: bytes) -> list[str]:
    try:
        names = _cells(line.removeprefix(codecs.BOM_UTF8))
    except InvalidRecord as reason:
        raise Fatal(f"the first line must name the columns, but {reason}") from None
    if lacking := [name for name in _REQUIRED if name not in names]:
        raise Fatal(f"the first line must name the columns, and lacks {', '.join(lacking)}")
    return names


def _csv_record(names: list[str], content: bytes) -> Record:
    cells = _cells(content)
    if len(cells) != len(names):
        raise InvalidRecord("not_csv", f"the line has {len(cells)} cells, and the first line names {len(names)}")
    record = dict(zip(names, cells, strict=True))
    return {name: _VALUES[name](text) if text else None for name, text in record.items() if name in _VALUES}


def _cells(content: bytes) -> list[str]:
    try:
        return next(csv.reader([content.decode()], strict=True), [])
    except (UnicodeDecodeError, csv.Error):
        raise InvalidRecord("not_csv", "the line is not CSV in UTF-8") from None


def _boolean(text: str) -> bool | str:
    return _BOOLEANS.get(text.lower(), text)


def _whole(text: str) -> int | str:
    """A number where the text is one; else the text, of which the column then says what is wrong."""
    try:
        return int(text) if text.removeprefix("-").isdecimal() else text
    except ValueError:  # more digits than Python reads
        return text


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


_OF_TYPE: dict[pa.DataType, Callable[[str], Any]] = {
    pa.string(): str,
    pa.bool_(): _boolean,
    pa.int64(): _whole,
    pa.float64(): _number,
}
_VALUES = {each.name: _OF_TYPE[each.type] for each in SCHEMA}
"""What makes a value of a cell, by column; a time is a number of milliseconds or else ISO 8601 text."""
