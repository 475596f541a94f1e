"""What is wrong with the values of a batch, column by column, and the rows that are left without it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from consumer.contracts.avro import Decoded, Rejected
from consumer.errors import InvalidRecord

MILLISECONDS_A_DAY = 86_400_000

Mask = npt.NDArray[np.bool_]
Fault = tuple[str, tuple[str, str], Mask]
"""The field, its (error, message), and a mask of the rows that have it."""


@dataclass(frozen=True)
class Range:
    """What a number may be, and the (error, message) of one that is below or above; not finite is never allowed."""

    name: str
    low: float
    below: tuple[str, str]
    high: float = sys.float_info.max
    above: tuple[str, str] = ("", "")


def not_negative(name: str) -> Range:
    return Range(name, 0.0, ("negative", f"{name} is negative"))


def without(decoded: Decoded, faults: Sequence[Fault]) -> Decoded:
    """The rows that have none of the faults; the others are added to `rejected`, each with its first."""
    if not faults:
        return decoded
    keep = np.ones(decoded.batch.num_rows, bool)
    rejected = list(decoded.rejected)
    for field, (error, message), bad in faults:
        reason = InvalidRecord(error, message, field)
        rejected.extend(Rejected(int(at), reason, "validate") for at in decoded.positions[keep & bad])
        keep &= ~bad
    return Decoded(decoded.batch.filter(pa.array(keep)), decoded.positions[keep], rejected)


def matrix(batch: pa.RecordBatch, names: Sequence[str]) -> npt.NDArray[np.float64]:
    """N×len(names) of number columns, by column; a null is NaN. Much less work than a column at a time."""
    positions = [batch.schema.get_field_index(name) for name in names]
    numbers = batch.select(positions).to_tensor(null_to_nan=True, row_major=False).to_numpy()
    result: npt.NDArray[np.float64] = numbers.astype(np.float64, copy=False)
    return result


def numbers_out_of_range(batch: pa.RecordBatch, ranges: Sequence[Range]) -> list[Fault]:
    """Numbers that are not finite or outside their range; null is neither."""
    told = [each for each in ranges if batch.column(each.name).null_count < batch.num_rows]
    if not told:
        return []
    numbers = matrix(batch, [each.name for each in told])
    low, high = np.array([(each.low, each.high) for each in told]).T
    if ((numbers >= low) & (numbers <= high)).all():
        return []
    faults: list[Fault] = []
    for each, values in zip(told, numbers.T, strict=True):
        given = batch.column(each.name).is_valid().to_numpy(zero_copy_only=False)
        faults += [
            (each.name, ("not_finite", f"{each.name} is not a finite number"), ~np.isfinite(values) & given),
            (each.name, each.below, values < each.low),
            (each.name, each.above, values > each.high),
        ]
    return found(faults)


def times_out_of_range(
    batch: pa.RecordBatch, name: str, max_future_seconds: int | None, max_age_days: int | None, now: datetime
) -> list[Fault]:
    """Times (int64 milliseconds since 1970, never null) too far from `now`; None does not ask."""
    times, today = batch.column(name).to_numpy(), int(now.timestamp() * 1000)
    faults: list[Fault] = []
    if max_future_seconds is not None:
        newest = today + max_future_seconds * 1000
        faults.append((name, ("in_the_future", f"{name} lies in the future"), times > newest))
    if max_age_days is not None:
        oldest = today - max_age_days * MILLISECONDS_A_DAY
        faults.append((name, ("too_old", f"{name} is over {max_age_days} days old"), times < oldest))
    return found(faults)


def texts_of_wrong_length(
    batch: pa.RecordBatch, names: Sequence[str], ids: Sequence[str], max_bytes: int
) -> list[Fault]:
    """Texts that are too long, and those of `ids`, some of `names`, that are empty."""
    texts = pa.chunked_array([batch.column(name) for name in names])
    lengths = pc.call_function("binary_length", [texts]).drop_null().to_numpy()
    if lengths.min() > 0 and lengths.max() <= max_bytes:
        return []
    faults: list[Fault] = []
    for name in names:
        bytes_long = pc.binary_length(batch.column(name)).fill_null(1).to_numpy()
        faults.append((name, ("oversized", f"{name} is longer than {max_bytes} bytes"), bytes_long > max_bytes))
        if name in ids:
            faults.append((name, ("empty_id", f"{name} is empty"), bytes_long == 0))
    return found(faults)


def found(faults: Sequence[Fault]) -> list[Fault]:
    """Those that a row has."""
    return [each for each in faults if each[-1].any()]
