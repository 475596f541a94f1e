"""Avro bodies as tokens: valid ones from a schema, broken ones by one rule of the encoding, mutated ones by bytes."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from avro_strategies import varint

LONGS = (0, 1, -1, 63, 64, -65, 2**31 - 1, 2**31, -(2**31), 2**53, 2**62 - 1, 2**62, -(2**62) - 1, 2**63 - 1, -(2**63))
INTS = (0, 1, -1, 63, 64, 300, 2**31 - 1, -(2**31))
DOUBLES = (0.0, -0.0, 0.5, 1.0, math.nan, math.inf, -math.inf, 5e-324, 2.2e-308, 1.7e308, 1 + 2**-52)
TEXTS = ("", "a", "low", "é", "日本", "\x00", "\u202e", "\U0001f600", "x" * 127, "y" * 128, "z" * 256, "é" * 129)
GIANT = 200_000
NOT_UTF8 = (
    b"\xff",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xc0\x80",
    b"\xe0\x80\xaf",
    b"\xf4\x90\x80\x80",
    b"\xc3",
)
_DEEPEST = 5


@dataclass(frozen=True)
class Token:
    """One step of the encoding: what it is for, its bytes, and for text and bytes its content."""

    role: str
    data: bytes
    content: bytes = b""


def joined(tokens: list[Token]) -> bytes:
    return b"".join(each.data for each in tokens)


_pool = Random(1)
_STRINGS = [*TEXTS, *("".join(chr(_pool.randrange(32, 0x250)) for _ in range(_pool.randrange(12))) for _ in range(50))]


class Writer:
    """Random valid values of a schema, as tokens; `named` finds types by the names they are referred to."""

    def __init__(self, rng: Random, named: Mapping[str, Any]) -> None:
        self._rng = rng
        self._named = named

    def record(self, schema: Mapping[str, Any], plausible: Mapping[str, Any], depth: int = 0) -> list[Token]:
        """One record; fields that `plausible` has get that value nine times in ten."""
        tokens: list[Token] = []
        for each in schema["fields"]:
            hint = plausible.get(each["name"]) if self._rng.random() < 0.9 else None
            tokens += self.value(each["type"], depth + 1, hint)
        return tokens

    def value(self, avro_type: Any, depth: int, hint: Any = None) -> list[Token]:
        rng = self._rng
        if isinstance(avro_type, list):
            chosen = rng.randrange(len(avro_type))
            if depth > _DEEPEST and "null" in avro_type:
                chosen = avro_type.index("null")
            elif hint is not None:
                chosen = next(at for at, branch in enumerate(avro_type) if branch != "null")
            return [Token("index", varint(chosen)), *self.value(avro_type[chosen], depth, hint)]
        if isinstance(avro_type, str):
            if avro_type in self._named:
                return self.value(self._named[avro_type], depth)
            return self._scalar(avro_type, hint)
        match avro_type["type"]:
            case "record":
                return self.record(avro_type, {}, depth)
            case "array":
                return self._blocks(avro_type["items"], depth, keyed=False)
            case "map":
                return self._blocks(avro_type["values"], depth, keyed=True)
            case "enum":
                return [Token("index", varint(rng.randrange(len(avro_type["symbols"]))))]
            case "fixed":
                return [Token("fixed", rng.randbytes(avro_type["size"]))]
            case inner:
                return self.value(inner, depth, hint)

    def _blocks(self, items: Any, depth: int, *, keyed: bool) -> list[Token]:
        tokens: list[Token] = []
        for _ in range(0 if depth > _DEEPEST else self._rng.choices((0, 1, 2), (20, 75, 5))[0]):
            count = self._rng.choice((1, 2, 3)) if self._rng.random() < 0.98 else 70
            inner: list[Token] = []
            for _ in range(count if depth < 2 else 1):
                inner += [*(self._scalar("string", None) if keyed else ()), *self.value(items, depth + 1)]
            count = count if depth < 2 else 1
            if self._rng.random() < 0.1:
                tokens += [Token("count", varint(-count)), Token("size", varint(len(joined(inner)))), *inner]
            else:
                tokens += [Token("count", varint(count)), *inner]
        return [*tokens, Token("count", varint(0))]

    def _scalar(self, kind: str, hint: Any) -> list[Token]:
        rng = self._rng
        match kind:
            case "null":
                return []
            case "boolean":
                return [Token(kind, bytes([rng.random() < 0.5 if hint is None else hint]))]
            case "int":
                number = rng.choice((rng.choice(INTS), rng.randrange(100))) if hint is None else int(hint)
                return [Token(kind, varint(number))]
            case "long":
                number = rng.choice((rng.choice(LONGS), rng.randrange(-(2**63), 2**63))) if hint is None else int(hint)
                return [Token(kind, varint(number))]
            case "float":
                return [Token(kind, struct.pack("<f", hint) if hint is not None else _float(rng))]
            case "double":
                return [Token(kind, struct.pack("<d", hint) if hint is not None else _double(rng))]
            case "string":
                return [_text("string", (_string(rng) if hint is None else hint).encode())]
            case "bytes":
                return [_text("bytes", rng.randbytes(rng.randrange(9)))]
        raise ValueError(f"{kind} is no Avro type")


def _text(role: str, content: bytes) -> Token:
    return Token(role, varint(len(content)) + content, content)


def _string(rng: Random) -> str:
    if rng.random() < 0.0005:
        return "é" * GIANT
    return rng.choice(_STRINGS)


def _float(rng: Random) -> bytes:
    special = struct.pack("<f", rng.choice((0.0, -0.0, 1.5, math.nan, math.inf, 1e-45)))
    return rng.choice((special, rng.randbytes(4), _not_a_number(rng, 4)))


def _double(rng: Random) -> bytes:
    return rng.choice((struct.pack("<d", rng.choice(DOUBLES)), rng.randbytes(8), _not_a_number(rng, 8)))


def _not_a_number(rng: Random, width: int) -> bytes:
    """NaN with any payload, quiet or signalling, of either sign."""
    exponent, mantissa = {4: (0x7F800000, 23), 8: (0x7FF << 52, 52)}[width]
    bits = exponent | rng.randrange(1, 2**mantissa) | (rng.randrange(2) << (8 * width - 1))
    return bits.to_bytes(width, "little")


def _raw(data: bytes) -> int:
    return sum((byte & 0x7F) << (7 * at) for at, byte in enumerate(data))


def _padded(data: bytes, length: int) -> bytes:
    """The same number in more bytes than it needs."""
    raw = _raw(data)
    return bytes([*((raw >> (7 * at)) & 0x7F | 0x80 for at in range(length - 1)), raw >> (7 * (length - 1)) & 0x7F])


_Break = Callable[[Random, Token], bytes]


def _of_content(change: Callable[[Random, bytes], bytes]) -> _Break:
    return lambda rng, token: varint(len(content := change(rng, token.content))) + content


def _of_length(change: Callable[[Random, int], int]) -> _Break:
    return lambda rng, token: varint(change(rng, len(token.content))) + token.content


_HUGE = (2**15, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1)
_NUMBER: dict[str, _Break] = {
    "padded number": lambda rng, token: _padded(token.data, rng.randint(len(token.data) + 1, 11)),
    "endless number": lambda rng, token: b"\x80" * rng.randint(9, 12),
    "tenth byte": lambda rng, token: bytes(rng.randrange(0x80, 0x100) for _ in range(9)) + bytes([rng.randrange(0x80)]),
    "other number": lambda rng, token: varint(rng.choice(LONGS)),
}
_BREAKS: dict[str, dict[str, _Break]] = {
    "int": {**_NUMBER, "wide int": lambda rng, token: varint(rng.choice((1, -1)) * rng.randrange(2**31 + 1, 2**63))},
    "long": {**_NUMBER},
    "index": {
        **_NUMBER,
        "no such branch": lambda rng, token: varint(rng.choice((-1, 2, 3, 64, 2**31))),
        "other branch": lambda rng, token: varint(rng.randrange(3)),
    },
    "count": {
        **_NUMBER,
        "huge count": lambda rng, token: varint(rng.choice(_HUGE)),
        "negative count": lambda rng, token: varint(-rng.choice((1, 2, *_HUGE, 2**63))),
        "sized huge count": lambda rng, token: varint(-rng.choice(_HUGE)) + varint(rng.choice((0, 1, *_HUGE))),
        "empty block": lambda rng, token: varint(0),
    },
    "size": {
        **_NUMBER,
        "wrong block size": lambda rng, token: varint(_raw(token.data) // 2 + rng.choice((-1, 1, 2, 64))),
        "huge block size": lambda rng, token: varint(rng.choice((-1, *_HUGE))),
    },
    "boolean": {"boolean 2": lambda rng, token: bytes([rng.randrange(2, 256)])},
    "float": {"any float": lambda rng, token: _float(rng), "short float": lambda rng, token: token.data[:-1]},
    "double": {"any double": lambda rng, token: _double(rng), "short double": lambda rng, token: token.data[:-1]},
    "fixed": {"short fixed": lambda rng, token: token.data[:-1]},
    "string": {
        "not UTF-8": _of_content(lambda rng, content: content + rng.choice(NOT_UTF8)),
        "empty string": lambda rng, token: varint(0),
        "split character": _of_length(lambda rng, length: max(0, length - 1)),
        "negative length": _of_length(lambda rng, length: -rng.choice((1, length + 1, *_HUGE))),
        "huge length": _of_length(lambda rng, length: rng.choice(_HUGE)),
        "padded length": lambda rng, token: _padded(varint(len(token.content)), rng.randint(3, 11)) + token.content,
    },
    "bytes": {
        "negative length": _of_length(lambda rng, length: -rng.choice((1, *_HUGE))),
        "huge length": _of_length(lambda rng, length: rng.choice(_HUGE)),
    },
}


def broken(rng: Random, tokens: list[Token]) -> tuple[str, bytes]:
    """The body with one token broken: (what was done, bytes)."""
    at = rng.randrange(len(tokens) + 1)
    if at == len(tokens):
        return "trailing bytes", joined(tokens) + rng.randbytes(rng.randint(1, 12))
    token = tokens[at]
    name = rng.choice((*_BREAKS[token.role], "end of body"))
    if name == "end of body":
        return name, joined(tokens[:at])
    changed = replace(token, data=_BREAKS[token.role][name](rng, token))
    return name, joined([*tokens[:at], changed, *tokens[at + 1 :]])


def mutated(rng: Random, body: bytes, other: bytes) -> tuple[str, bytes]:
    """The body with bytes changed without a look at what they mean: (what was done, bytes)."""
    data = bytearray(body)
    where = rng.randrange(len(data) + 1)
    kind = rng.choice(("flip", "insert", "delete", "replace", "truncate", "splice", "inflate", "repeat", "random"))
    match kind:
        case "flip":
            for _ in range(rng.randint(1, 3) if data else 0):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case "insert":
            data[where:where] = rng.randbytes(rng.randint(1, 12))
        case "delete":
            del data[where : where + rng.randint(1, 8)]
        case "replace":
            data[where : where + 4] = rng.choice((b"\xff" * 4, b"\x00" * 4, rng.randbytes(4)))
        case "truncate":
            del data[where:]
        case "splice":
            data[where:] = other[rng.randrange(len(other) + 1) :]
        case "inflate":
            data[where : where + 1] = rng.choice((b"\xff", b"\x80", b"\xff\xff\xff\xff\x0f", b"\xff" * 9 + b"\x01"))
        case "repeat":
            data[where:where] = data[where : where + rng.randint(1, 40)] * rng.randint(1, 3)
        case "random":
            data[:] = rng.randbytes(rng.randrange(80))
    return kind, bytes(data)
