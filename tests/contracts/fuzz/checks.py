"""Reads a batch by every way there is, and says where two ways differ or one does what its contract rules out."""

from __future__ import annotations

import copy
import math
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
from confluent_kafka.schema_registry.error import SchemaRegistryError

from consumer.contracts.avro import ArrowDecoder, Decoded, ReferenceDecoder, decoder
from consumer.contracts.events import EventReader, EventWriter
from consumer.contracts.registry import SchemaRegistry
from consumer.contracts.schemas import WriterSchemas, latest
from consumer.contracts.transaction import EVENT_SCHEMA, FIELDS, Limits, columns_from_dicts, refuse_impossible
from fuzz.batches import GOOD, NOW, Batch

LIMITS = Limits(max_future_seconds=300, max_age_days=1825, max_text_bytes=256)
_ALONE = 8
"""Every how many payloads one is also read alone by the reader of whole messages."""
_MIXTURES = 4


@dataclass(frozen=True)
class Finding:
    """What went wrong, and with which payload; None when only the whole batch shows it."""

    batch: int
    payload: int | None
    family: str
    kind: str
    fault: str
    value: str = ""
    schema: str = ""


@dataclass
class Outcome:
    """What became of a batch's payloads. `told` counts accepted and the reasons of the refused."""

    told: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)


class _Registry:
    """Stands where Confluent's client does: one schema's text under every id it is asked for but one."""

    def __init__(self, header: bytes, text: str | None) -> None:
        self._id = int.from_bytes(header[1:], "big")
        self._text = text

    def get_schema(self, schema_id: int) -> Any:
        if self._text is None or schema_id != self._id:
            raise SchemaRegistryError(404, 40403, "Schema not found")
        return SimpleNamespace(schema_type="AVRO", schema_str=self._text)


def check(batch: Batch) -> Outcome:
    """Every check of one batch; each payload at fault is looked for alone."""
    faults, told = _faults(batch)
    if not faults:
        return Outcome(told)
    alone = [(single, _faults(single)[0]) for single in batch.singles()] if len(batch.payloads) > 1 else []
    blamed = [finding(single, fault) for single, found in alone for fault in found]
    return Outcome(told, blamed or [finding(batch, fault) for fault in faults])


def finding(batch: Batch, fault: str) -> Finding:
    """A batch of one payload names it; a fault that only a whole batch shows has none."""
    one = batch.payloads[0] if len(batch.payloads) == 1 else None
    return Finding(
        batch.number,
        one.number if one else None,
        batch.family,
        one.kind if one else "",
        fault,
        (one.value or b"").hex() if one else "",
        batch.text or batch.schema["name"],
    )


def _faults(batch: Batch) -> tuple[list[str], Counter[str]]:
    faults: list[str] = []
    told: Counter[str] = Counter()

    @contextmanager
    def level(name: str) -> Iterator[Callable[[bool, str], None]]:
        def expect(holds: bool, otherwise: str) -> None:
            if not holds:
                faults.append(f"{name}: {otherwise}")

        try:
            yield expect
        except BaseException as error:  # noqa: BLE001 a panic in Rust is no Exception, and nothing may be raised
            last = traceback.extract_tb(error.__traceback__)[-1]
            faults.append(f"{name}: raised {type(error).__name__} in {last.name}: {str(error)[:120]}")

    if batch.sound:
        with level("decoders") as expect:
            _decoders(batch, expect)
    with level("reader") as expect:
        decoded = _reader(batch, expect)
        told["accepted"] += decoded.batch.num_rows
        told.update(bad.reason.error for bad in decoded.rejected)
        if batch.fields is FIELDS:
            with level("door") as inner:
                checked = _door(decoded, inner)
            told["accepted"] -= len(checked.rejected) - len(decoded.rejected)
            told.update(bad.reason.error for bad in checked.rejected[len(decoded.rejected) :])
    return faults, told


def _decoders(batch: Batch, expect: Callable[[bool, str], None]) -> None:
    values = [each.value for each in batch.payloads if each.framed and each.value is not None]
    reference = ReferenceDecoder(batch.schema, batch.header)
    fast = decoder(batch.schema, batch.header)
    by_reference = reference.decode(values)
    expect(_is_partition(by_reference, len(values)), "the reference lost or doubled a position")
    if not isinstance(fast, ArrowDecoder):
        return
    if batch.thorough:
        expect(_same(fast.decode(values), by_reference), "the decoders differ on a batch")
    for bad in by_reference.rejected:
        alone = fast.decode_all([values[bad.position]])
        expect(alone is None, f"the fast path accepts what the reference refuses as {bad.reason.error}")
    good = [values[at] for at in by_reference.positions]
    for start, read in _as_read(fast, good, 0):
        expected = by_reference.batch.slice(start, read.num_rows)
        expect(_bits(read) == _bits(expected), "the decoders read other columns")
    rng = Random(batch.number)
    refused = {bad.position for bad in by_reference.rejected}
    for _ in range(_MIXTURES if refused and good else 0):
        mixture = [*rng.choices(good, k=rng.randrange(4)), values[rng.choice(sorted(refused))], *rng.choices(good, k=2)]
        expect(fast.decode_all(mixture) is None, "the fast path accepts a bad body among good ones")


def _as_read(fast: ArrowDecoder, values: list[bytes], start: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """What the fast path reads itself of good values, in pieces; what it leaves to the reference is left out."""
    read = fast.decode_all(values) if values else None
    if read is not None:
        yield start, read
    elif len(values) > 1:
        half = len(values) // 2
        yield from _as_read(fast, values[:half], start)
        yield from _as_read(fast, values[half:], start + half)


_REGISTRY = SchemaRegistry("http://registry.invalid")  # never asked, and slow to make


def _new_reader(batch: Batch) -> EventReader:
    registry = copy.copy(_REGISTRY)
    registry._client = _Registry(batch.header, batch.text)
    name = "shadow_event" if batch.family == "shadow_event" else "transaction"
    return EventReader(WriterSchemas(name, registry), batch.fields)


_NEIGHBOURS = EventWriter("transaction", latest("transaction").header).write(
    columns_from_dicts([GOOD] * 3, EVENT_SCHEMA)
)


def _reader(batch: Batch, expect: Callable[[bool, str], None]) -> Decoded:
    """Whole messages together, some of them alone, and good neighbours among them."""
    reader, values = _new_reader(batch), batch.values
    decoded = reader.read(values)
    expect(_is_partition(decoded, len(values)), "a position was lost or doubled")
    if batch.thorough:
        expect(_same(reader.read(values), decoded), "a second reading differs")
    held = [bad for bad in decoded.rejected if bad.reason.__traceback__ or bad.reason.__context__]
    expect(not held, "a reason keeps the frames that raised it alive")
    rows = {int(at): row for row, at in enumerate(decoded.positions)}
    reasons = {bad.position: _reason(bad) for bad in decoded.rejected}
    for at in range(batch.number % _ALONE if len(values) > 1 else 0, len(values), _ALONE):
        alone = reader.read([values[at]])
        if at in rows:
            same = _bits(alone.batch) == _bits(decoded.batch.slice(rows[at], 1))
            expect(same and not alone.rejected, "a value read alone differs from the same value in a batch")
        else:
            found = [_reason(bad) for bad in alone.rejected]
            expect(found == [reasons[at]], "a value is refused alone for another reason than in a batch")
    if batch.thorough and batch.fields is FIELDS:
        first, second, third = _NEIGHBOURS
        among = reader.read([first, *values, second, None, third])
        kept = [at - 1 for at in among.positions.tolist() if 0 < at <= len(values)]
        expect(kept == decoded.positions.tolist(), "good neighbours change what is accepted")
        ends = [at for at in among.positions.tolist() if at in (0, len(values) + 1, len(values) + 3)]
        expect(len(ends) == 3, "a good neighbour was refused")
    return decoded


def _door(decoded: Decoded, expect: Callable[[bool, str], None]) -> Decoded:
    """Only possible values are let in, and only impossible ones are not."""
    checked = refuse_impossible(decoded, LIMITS, NOW)
    refuse_impossible(decoded, Limits(), NOW)
    expect(checked.rejected[: len(decoded.rejected)] == decoded.rejected, "an earlier refusal was lost")
    positions = [*checked.positions.tolist(), *(bad.position for bad in checked.rejected)]
    before = [*decoded.positions.tolist(), *(bad.position for bad in decoded.rejected)]
    expect(sorted(positions) == sorted(before), "a position was lost or doubled")
    let_in = set(checked.positions.tolist())
    for position, row in zip(decoded.positions.tolist(), decoded.batch.to_pylist(), strict=True):
        expect(
            _is_possible(row) == (position in let_in), f"a row was {'' if position in let_in else 'not '}let in wrongly"
        )
    return checked


def _is_possible(row: dict[str, Any]) -> bool:
    now = round(NOW.timestamp() * 1000)
    numbers = ("amount", "payment_credit_limit", "customer_tenure_days", "price_comparison_time")
    texts = [value for value in row.values() if isinstance(value, str)]
    propensity = row["approval_propensity"]
    return (
        all(math.isfinite(row[name]) and row[name] >= 0 for name in numbers)
        and 0 <= row["risk_score"] <= 1
        and row["installment_count"] >= 1
        and (propensity is None or 0 <= propensity <= 1)
        and now - 1825 * 86_400_000 <= row["transaction_timestamp"] <= now + 300_000
        and all(len(text.encode()) <= 256 for text in texts)
        and bool(row["transaction_id"] and row["customer_id"])
    )


def _is_partition(decoded: Decoded, values: int) -> bool:
    positions = [*decoded.positions.tolist(), *(bad.position for bad in decoded.rejected)]
    return sorted(positions) == list(range(values)) and decoded.batch.num_rows == len(decoded.positions)


def _reason(bad: Any) -> tuple[str, str, str]:
    return bad.reason.error, str(bad.reason), bad.stage


def _same(one: Decoded, other: Decoded) -> bool:
    return (
        np.array_equal(one.positions, other.positions)
        and [(bad.position, _reason(bad)) for bad in one.rejected]
        == [(bad.position, _reason(bad)) for bad in other.rejected]
        and _bits(one.batch) == _bits(other.batch)
    )


def _bits(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The columns with floats as the integers of their bits: NaN is then equal to itself and to no other NaN."""
    columns = [pa.concat_arrays([column]).view(_without_floats(column.type)) for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _without_floats(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_floating(kind):
        return pa.int64() if kind.bit_width == 64 else pa.int32()
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_without_floats(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([each.with_type(_without_floats(each.type)) for each in kind])
    return kind
