"""What a dead letter says: the record's own bytes untouched, and headers that tell why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.metadata import version

from consumer.contracts.avro import Rejected
from consumer.contracts.schemas import latest

_LONGEST_ATTEMPT = 9
"""Digits of an attempt's number; headers come from outside and may hold anything."""

Headers = Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True)
class Coordinates:
    """Where a record was read."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


@cache
def header_names() -> dict[str, str]:
    """Field of the headers' schema → name on the wire."""
    return {each["name"]: each["header"] for each in latest("dead_letter_headers").schema["fields"]}


@cache
def _app_version() -> str:
    return version("bnpl-shadow-scoring")


def headers(own: Headers, source: Coordinates, rejected: Rejected, now: datetime) -> list[tuple[str, bytes | None]]:
    """The record's own headers, then ours. A record that was dead-lettered before keeps when it first failed."""
    names = header_names()
    ours = set(names.values())
    before = {name: value.decode(errors="replace") for name, value in own if value is not None and name in ours}
    attempt = before.get(names["attempt"], "0")[:_LONGEST_ATTEMPT]
    told = {
        "topic": source.topic,
        "partition": str(source.partition),
        "offset": str(source.offset),
        "stage": rejected.stage,
        "exception_class_name": rejected.reason.error,
        "exception_message": str(rejected.reason),
        "attempt": str(int(attempt) + 1 if attempt.isdecimal() else 1),
        "first_failed_at": before.get(names["first_failed_at"], now.isoformat(timespec="milliseconds")),
        "app_version": _app_version(),
    }
    kept = [(name, value) for name, value in own if name not in ours]
    return [*kept, *((names[field], value.encode()) for field, value in told.items())]
