"""Batches of payloads: everything about one follows from a seed and its number, so that a finding can be made again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from random import Random
from typing import Any

import fastavro
from samples import transaction

from consumer.contracts.avro import Schema, is_columnar
from consumer.contracts.schemas import versions
from consumer.contracts.transaction import FIELDS
from fuzz import bodies, writers

SIZE = 256
NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
GOOD = transaction(
    transaction_timestamp=round(NOW.timestamp() * 1000) - 3_600_000,
    business_decision="approve",
    approval_propensity=0.5,
)
_PAYLOADS_A_RECORD = 8
"""Payloads that are made of one valid record, which takes longest to make."""

_FAMILIES = {"transaction": 18, "shadow_event": 8, "evolved": 14, "columnar": 38, "odd": 12, "malformed": 10}


@dataclass(frozen=True)
class Payload:
    """A message's value; `framed` when it has its batch's header, so that a decoder may be asked about it."""

    number: int
    kind: str
    value: bytes | None
    framed: bool = True


@dataclass(frozen=True)
class Batch:
    """Payloads of one writer; `text` is the schema as a registry gives it, None where `schemas/` has it."""

    number: int
    family: str
    schema: Schema
    header: bytes
    text: str | None
    fields: Sequence[dict[str, Any]]
    payloads: tuple[Payload, ...]

    @property
    def sound(self) -> bool:
        """Whether `schema` is what the values are read with."""
        return self.family != "malformed"

    @property
    def thorough(self) -> bool:
        """Whether it is also read whole by each way, which is slow where much is refused: one batch in four."""
        return self.number % 4 == 0 or len(self.payloads) == 1

    @property
    def values(self) -> list[bytes | None]:
        return [each.value for each in self.payloads]

    def singles(self) -> Iterator[Batch]:
        """Each payload as a batch of its own."""
        for each in self.payloads:
            yield replace(self, payloads=(each,))


def batch(seed: int, number: int, size: int = SIZE) -> Batch:
    """The batch of payloads `number * SIZE`, `number * SIZE + 1`, …"""
    rng = Random(f"{seed}/{number}")
    (family,) = rng.choices(list(_FAMILIES), list(_FAMILIES.values()))
    header = b"\x00" + rng.choice((rng.randrange(1, 99), rng.randrange(2**31), 0x0000C07F, 0x0100807F)).to_bytes(
        4, "big"
    )
    match family:
        case "transaction" | "shadow_event":
            named = rng.choice(versions(family))
            schema, header, text = named.schema, named.header, None
        case "evolved":
            schema = writers.evolved(rng, rng.choice(versions("transaction")).schema)
            text = json.dumps(schema)
        case "odd":
            schema = writers.odd(rng)
            text = json.dumps(schema)
        case _:
            schema = writers.columnar(rng)
            text = json.dumps(schema) if family == "columnar" else writers.malformed(rng, schema)
    fields = (
        FIELDS
        if family in ("transaction", "evolved")
        else [each for each in schema["fields"] if is_columnar(each["type"])]
    )
    payloads = _payloads(rng, schema, header, number, size, deep=family == "malformed")
    return Batch(number, family, schema, header, text, fields, tuple(payloads))


def _payloads(rng: Random, schema: Schema, header: bytes, number: int, size: int, *, deep: bool) -> Iterator[Payload]:
    named: dict[str, Any] = {}
    parsed = fastavro.parse_schema(schema, named)
    writer = bodies.Writer(rng, named)
    body = b""
    for at in range(number * SIZE, number * SIZE + size):
        if at % _PAYLOADS_A_RECORD == 0:
            before, tokens = body, writer.record(parsed, GOOD)
            body = bodies.joined(tokens)
        if deep:
            body = bodies.joined(tokens) + b"\x02" * rng.randrange(520)
        match rng.choices(("valid", "broken", "mutated", "both", "framing"), (12, 42, 32, 6, 8))[0]:
            case "valid":
                yield Payload(at, "valid", header + body)
            case "broken":
                kind, changed = bodies.broken(rng, tokens)
                yield Payload(at, kind, header + changed)
            case "mutated":
                kind, changed = bodies.mutated(rng, body, before)
                yield Payload(at, f"bytes: {kind}", header + changed)
            case "both":
                _, changed = bodies.broken(rng, tokens)
                yield Payload(at, "broken, then bytes", header + bodies.mutated(rng, changed, before)[1])
            case _:
                yield Payload(at, "framing", _damaged_framing(rng, header, body), framed=False)


def _damaged_framing(rng: Random, header: bytes, body: bytes) -> bytes | None:
    other = bytearray(header)
    other[rng.randrange(len(header))] ^= 1 << rng.randrange(8)
    return rng.choice(
        (
            None,
            b"",
            body,
            header,
            header[: rng.randrange(len(header))],
            bytes(other) + body,
            b"\xc3\x81\x00" + header[2:] + body,  # the marker as a longer varint
            b"\x80\x00" + header[1:] + body,
            header + header + body,
        )
    )
