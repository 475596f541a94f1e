"""Labelled transactions from JSON lines, in order of time, and their split into three periods."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from consumer.contracts.avro import Decoded
from consumer.contracts.transaction import Limits, columns_from_dicts, refuse_impossible
from consumer.errors import BnplError, InvalidRecord

Mask = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.int64]

LABEL = "will_default"
DAY_MS = 86_400_000
_LINES_AT_ONCE = 20_000
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_CENTURY = Limits(max_future_seconds=36_500 * 86_400, max_age_days=36_500)
"""Research data may be of any age, whatever today's date; a time a century from the epoch is a fault of units."""


class DatasetError(BnplError):
    """The research data cannot be used; the message names file, line and fault."""


@dataclass(frozen=True)
class Dataset:
    """Transactions whose outcome is known, sorted by time."""

    batch: pa.RecordBatch
    """Columns of `contracts.transaction.SCHEMA`."""
    label: Codes
    """1 defaulted, 0 repaid."""
    unlabelled: int
    """Rows left out because nobody ever learned their outcome (declined, or not yet known)."""
    source: tuple[dict[str, Any], ...]
    """Name, sha256 and rows of every input file."""

    @property
    def times(self) -> Codes:
        """Milliseconds since 1970, UTC."""
        return cast(Codes, self.batch.column("transaction_timestamp").to_numpy())


@dataclass(frozen=True)
class Period:
    """Rows `first:last` of a Dataset, from `start` to before `end` (milliseconds since 1970)."""

    first: int
    last: int
    start: int
    end: int

    @property
    def rows(self) -> slice:
        return slice(self.first, self.last)

    def facts(self, label: Codes) -> dict[str, Any]:
        part = label[self.rows]
        return {
            "from": _iso(self.start),
            "to": _iso(self.end),
            "rows": len(part),
            "defaults": int(part.sum()),
            "default_rate": float(part.mean()),
        }


@dataclass(frozen=True)
class Split:
    """Fit on the first weeks, calibrate on the next, validate on the last: no row sees its own future."""

    train: Period
    calibrate: Period
    validate: Period


def split_by_time(dataset: Dataset, shares: tuple[float, float] = (0.6, 0.2)) -> Split:
    """Periods that end at UTC midnights, about `shares` of the days for train and calibrate, the rest to
    validate.

    Raises DatasetError when a period has fewer than 20 defaults or 20 repaid: nothing could be learned or
    told.
    """
    times = dataset.times
    first_day, last_day = int(times[0] // DAY_MS), int(times[-1] // DAY_MS) + 1
    days = last_day - first_day
    cuts = [first_day + round(days * share) for share in (0.0, shares[0], sum(shares), 1.0)]
    bounds = [cut * DAY_MS for cut in cuts]
    at = np.searchsorted(times, bounds)
    periods = [Period(int(at[i]), int(at[i + 1]), bounds[i], bounds[i + 1]) for i in range(3)]
    for name, period in zip(("training", "calibration", "validation"), periods, strict=True):
        counts = np.bincount(dataset.label[period.rows], minlength=2)
        if counts.min() < 20:
            raise DatasetError(
                f"the {name} period {_iso(period.start)} to {_iso(period.end)} has {counts[1]}"
                f" defaults and {counts[0]}"
                " repaid; at least 20 of each are needed. Give more events or more days"
            )
    return Split(*periods)


def read_dataset(paths: Sequence[Path], advance: Callable[[int], None] = lambda _: None) -> Dataset:
    """All labelled rows of the files, sorted by time. Raises DatasetError as `read_rows` does, or when none
    is labelled.
    """
    return make_dataset(*read_rows(paths, advance))


def read_rows(
    paths: Sequence[Path], advance: Callable[[int], None] = lambda _: None
) -> tuple[pa.RecordBatch, Codes, tuple[dict[str, Any], ...]]:
    """(columns of SCHEMA, labels, facts of every file) of JSON-lines files, plain or .gz, in file order.

    Labels are 1 defaulted, 0 repaid, −1 unknown. `advance` is told how many bytes were read since the last
    call. Raises DatasetError naming file and line of the first row that cannot be used.
    """
    parts: list[pa.RecordBatch] = []
    labels: list[int] = []
    source = []
    for path in paths:
        rows = 0
        for first_line, events in read_events(path, advance):
            parts.append(_columns(path, first_line, events))
            labels.extend(_code(path, number, event.get(LABEL)) for number, event in enumerate(events, first_line))
            rows += len(events)
        source.append({"file": path.name, "sha256": file_sha256(path), "rows": rows})
    if not parts:
        raise DatasetError(f"no transactions in {', '.join(str(path) for path in paths)}")
    batch = pa.Table.from_batches(parts).combine_chunks().to_batches()[0]
    return batch, np.array(labels), tuple(source)


def make_dataset(batch: pa.RecordBatch, labels: Codes, source: tuple[dict[str, Any], ...]) -> Dataset:
    """Sort by time and keep what has an outcome; `labels` are 1, 0, or −1 for unknown."""
    known = labels >= 0
    order = np.argsort(batch.column("transaction_timestamp").to_numpy(), kind="stable")
    order = order[known[order]]
    if not len(order):
        raise DatasetError(f"no row has {LABEL}; train on labelled events, such as `bnpl-shadow simulate` writes")
    return Dataset(batch.take(pa.array(order)), labels[order], int((~known).sum()), source)


def read_events(
    path: Path, advance: Callable[[int], None] = lambda _: None
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """(number of the first line, up to 20,000 events) until the file ends; raises DatasetError for a line
    that is not JSON.
    """
    try:
        with path.open("rb") as raw, _text(raw, path) as lines:
            seen = 0
            for first_line, chunk in _chunks(lines):
                yield (
                    first_line,
                    [_event(path, number, line) for number, line in enumerate(chunk, first_line)],
                )
                advance(raw.tell() - seen)
                seen = raw.tell()
    except (OSError, EOFError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error


def file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _text(raw: BinaryIO, path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if path.suffix == ".gz" else raw


def _chunks(lines: Iterable[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    stream = iter(lines)
    first_line = 1
    while chunk := list(islice(stream, _LINES_AT_ONCE)):
        yield first_line, chunk
        first_line += len(chunk)


def _event(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise DatasetError(f"{path} line {number} is not JSON: {error}") from None
    if not isinstance(event, dict):
        raise DatasetError(f"{path} line {number} is not a JSON object")
    return event


def _columns(path: Path, first_line: int, events: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    try:
        batch = columns_from_dicts(events)
    except InvalidRecord:
        number, error = next(_faults(first_line, events))
        raise DatasetError(f"{path} line {number}: {error}") from None
    checked = refuse_impossible(Decoded(batch, np.arange(len(events))), _CENTURY, now=_EPOCH)
    if checked.rejected:
        bad = min(checked.rejected, key=lambda rejected: rejected.position)
        raise DatasetError(f"{path} line {first_line + bad.position}: {bad.reason}")
    return batch


def _faults(first_line: int, events: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, InvalidRecord]]:
    for number, event in enumerate(events, first_line):
        try:
            columns_from_dicts([event])
        except InvalidRecord as error:
            yield number, error


def _code(path: Path, number: int, label: Any) -> int:
    if label is None:
        return -1
    if label not in (0, 1):
        raise DatasetError(f"{path} line {number}: field {LABEL} is neither true, false nor null")
    return int(label)


def _iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).date().isoformat()
