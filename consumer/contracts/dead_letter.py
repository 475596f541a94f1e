"""What a dead letter says: the record's own bytes untouched, and headers that tell why. And what the marker of a replay
says of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.metadata import version
from typing import Self

from consumer.contracts.avro import Rejected
from consumer.contracts.schemas import latest

_LETTER, _MARKER = "dead_letter_headers", "replay_marker_headers"
"""Kinds of schemas/."""
_LONGEST_NUMBER = 9
"""Digits of an attempt's number; headers come from outside and may hold anything."""

Headers = Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True)
class Coordinates:
    """Where a record was read."""

    topic: str
    partition: int
    offset: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `topic/partition/offset`; ValueError when it is something else."""
        topic, partition, offset = text.rsplit("/", 2)
        return cls(topic, int(partition), int(offset))

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True)
class Refusal:
    """Why a record was refused, as the headers of its letter say. `source` is where it was read; partition −1 means a
    line that never came into a topic.
    """

    source: Coordinates
    stage: str
    error: str
    message: str
    attempt: int
    first_failed_at: str
    app_version: str


@dataclass(frozen=True)
class Replay:
    """What became of a letter, as its marker says: it was produced again, as the record at `to`."""

    of: Coordinates
    to: Coordinates
    at: str


@cache
def header_names() -> dict[str, str]:
    """Field of the headers' schema → name on the wire."""
    return {field: wire for wire, field in _fields(_LETTER).items()}


@cache
def marker_names() -> dict[str, str]:
    """The same for the headers of a marker; a record with the header `marker_names()["of"]` is no dead letter."""
    return {field: wire for wire, field in _fields(_MARKER).items()}


@cache
def _fields(kind: str) -> dict[str, str]:
    """Name on the wire → field."""
    return {each["header"]: each["name"] for each in latest(kind).schema["fields"]}


@cache
def _app_version() -> str:
    return version("bnpl-shadow-scoring")


def headers(own: Headers, source: Coordinates, rejected: Rejected, now: datetime) -> list[tuple[str, bytes | None]]:
    """The record's own headers, then ours. A record that was dead-lettered before keeps when it first failed."""
    names, before = header_names(), _told(own, _LETTER)
    told = {
        "topic": source.topic,
        "partition": str(source.partition),
        "offset": str(source.offset),
        "stage": rejected.stage,
        "exception_class_name": rejected.reason.error,
        "exception_message": str(rejected.reason),
        "attempt": str(_attempt(before) + 1),
        "first_failed_at": before.get("first_failed_at", now.isoformat(timespec="milliseconds")),
        "app_version": _app_version(),
    }
    return [*_without_ours(own), *((names[field], value.encode()) for field, value in told.items())]


def refusal(found: Headers) -> Refusal | None:
    """What a record's headers say as those of a dead letter; None when it is none."""
    told = _told(found, _LETTER)
    try:
        source = Coordinates(told["topic"], int(told["partition"]), int(told["offset"]))
        stage, error = told["stage"], told["exception_class_name"]
    except (KeyError, ValueError):
        return None
    return Refusal(
        source,
        stage,
        error,
        told.get("exception_message", ""),
        max(1, _attempt(told)),
        told.get("first_failed_at", ""),
        told.get("app_version", ""),
    )


def replay_headers(letter: Headers) -> list[tuple[str, bytes | None]]:
    """What a letter's record carries when it is produced again: its own headers, and what lets a second failure count
    on.
    """
    names, told = header_names(), _told(letter, _LETTER)
    kept = {"attempt": str(max(1, _attempt(told))), "first_failed_at": told.get("first_failed_at")}
    ours = [(names[field], value.encode()) for field, value in kept.items() if value is not None]
    return [*_without_ours(letter), *ours]


def was_replayed(found: Headers) -> bool:
    """Whether a record of an event topic came there by a replay."""
    name = header_names()["attempt"]
    return any(each == name for each, _ in found)


def marker_headers(replay: Replay) -> list[tuple[str, bytes | None]]:
    """The headers of the marker that says so."""
    names = marker_names()
    told = {
        "of": f"{replay.of.partition}/{replay.of.offset}",
        "to": str(replay.to),
        "at": replay.at,
        "app_version": _app_version(),
    }
    return [(names[field], value.encode()) for field, value in told.items()]


def is_marker(found: Headers) -> bool:
    """Whether a record of a dead-letter topic is a marker of a replay, and so no dead letter."""
    name = marker_names()["of"]
    return any(each == name for each, _ in found)


def replay(topic: str, found: Headers) -> Replay | None:
    """What a marker's headers say, read in `topic`; None when they cannot be understood."""
    told = _told(found, _MARKER)
    try:
        return Replay(Coordinates.parse(f"{topic}/{told['of']}"), Coordinates.parse(told["to"]), told.get("at", ""))
    except (KeyError, ValueError):
        return None


def _told(found: Headers, kind: str) -> dict[str, str]:
    """The headers that a schema names, by field; the last of several counts."""
    fields = _fields(kind)
    return {fields[name]: value.decode(errors="replace") for name, value in found if name in fields and value}


def _without_ours(found: Headers) -> Iterator[tuple[str, bytes | None]]:
    """A record's own headers. A marker's go too: a letter that had them would be taken for one."""
    ours = {*header_names().values(), *marker_names().values()}
    return ((name, value) for name, value in found if name not in ours)


def _attempt(told: dict[str, str]) -> int:
    digits = told.get("attempt", "")[:_LONGEST_NUMBER]
    return int(digits) if digits.isdecimal() else 0
