"""Writer schemas: random ones, relatives of the transaction's, and texts that a registry should never have taken."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

from avro_strategies import SCALAR_TYPES, record

from consumer.contracts.avro import Schema

_PROMOTED_FROM = {"long": ("int",), "double": ("float", "long", "int")}


class _Types:
    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._names = 0

    def name(self, kind: str) -> str:
        self._names += 1
        return f"{kind}{self._names}"

    def columnar(self) -> Any:
        """What the fast path reads."""
        rng = self._rng
        scalar = rng.choice(SCALAR_TYPES)
        nullable = rng.choice((["null", scalar], [scalar, "null"]))
        match rng.randrange(7):
            case 0 | 1:
                return scalar
            case 2:
                return nullable
            case 3:
                return rng.choice(("int", ["null", "int"], {"type": "long", "logicalType": "timestamp-millis"}))
            case 4:
                return {"type": "array", "items": rng.choice((scalar, nullable))}
            case _:
                inner = [rng.choice((rng.choice(SCALAR_TYPES), nullable)) for _ in range(rng.randint(1, 3))]
                return {"type": "array", "items": record(inner, self.name("Item"))}

    def odd(self, depth: int = 0) -> Any:
        """What it leaves to the reference."""
        rng = self._rng
        inner = self.columnar if rng.random() < 0.4 or depth > 3 else lambda: self.odd(depth + 1)
        match rng.randrange(11):
            case 0:
                return rng.choice(("bytes", "null", ["string"], ["null", "string", "long"], ["null", "bytes"]))
            case 1:
                return {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
            case 2:
                return {"type": "fixed", "name": self.name("Fixed"), "size": rng.randrange(6)}
            case 3:
                return {"type": "enum", "name": self.name("Enum"), "symbols": ["A", "B", "C"]}
            case 4:
                return record([], self.name("Empty"))
            case 5 | 6:
                return {"type": "array", "items": inner()}
            case 7 | 8:
                return {"type": "map", "values": inner()}
            case 9:
                return record([inner() for _ in range(rng.randint(1, 3))], self.name("Nested"))
            case _:
                return self._chain()

    def _chain(self) -> Any:
        """A record that holds itself."""
        name = self.name("Chain")
        held = self._rng.choice((["null", name], {"type": "array", "items": name}, {"type": "map", "values": name}))
        fields = [{"name": "value", "type": "string"}, {"name": "next", "type": held}]
        return ["null", {"type": "record", "name": name, "fields": fields}]


def columnar(rng: Random) -> Schema:
    types = _Types(rng)
    return record([types.columnar() for _ in range(rng.randint(1, 5))])


def odd(rng: Random) -> Schema:
    types = _Types(rng)
    return record(["string", *(rng.choice((types.odd, types.odd, types.columnar))() for _ in range(rng.randint(1, 4)))])


def evolved(rng: Random, base: Schema) -> Schema:
    """A relative: fields narrowed, made nullable, dropped if they may be, added and put in another order."""
    types = _Types(rng)
    fields = []
    for each in copy.deepcopy(base["fields"]):
        if "default" in each and rng.random() < 0.4:
            continue
        narrower = _PROMOTED_FROM.get(each["type"]) if isinstance(each["type"], str) else None
        if narrower and rng.random() < 0.3:
            each["type"] = rng.choice(narrower)
        if isinstance(each["type"], str) and rng.random() < 0.2:
            each["type"] = rng.choice((["null", each["type"]], [each["type"], "null"]))
        fields.append(each)
    for name in ("will_default", "added", "more")[: rng.randrange(4)]:
        made = "boolean" if name == "will_default" else rng.choice((types.columnar, types.columnar, types.odd))()
        fields.insert(rng.randrange(len(fields) + 1), {"name": name, "type": made})
    return {**base, "fields": fields}


_JUNK: tuple[Any, ...] = (
    *(None, True, -1, 1.5, 2**70, "", "long", "é", "Generated", "fixed", [], {}, ["null"]),
    {"type": "record"},
    {"type": "error"},
    {"type": "array"},
    {"type": ["null", "long"]},
    {"type": "map", "values": ["null", ["null"]]},
    {"type": "enum", "name": "Junk", "symbols": {"A": 1}},
    *({"type": "fixed", "name": "Junk", "size": size} for size in (-1, "4", 1.5, 2**40)),
    {"type": "array", "items": {"type": "fixed", "name": "Junk", "size": 0}},
)


def malformed(rng: Random, schema: Schema) -> str:
    """A schema's text, damaged as JSON or as a schema, or sound but made to exhaust a reader."""
    match rng.randrange(8):
        case 0:
            text = json.dumps(schema)
            at = rng.randrange(len(text))
            return rng.choice((text[:at], text[:at] + rng.choice('"{}[]:,0') + text[at + 1 :]))
        case 1:
            return json.dumps({**schema, "__fastavro_parsed__": True, "__named_schemas": rng.choice(({}, None, []))})
        case 2:
            return _deep(rng, schema)
        case 3:
            return json.dumps(_multiplying(rng, schema))
        case _:
            damaged = copy.deepcopy(schema)
            for _ in range(rng.randint(1, 2)):
                _damage(rng, damaged)
            return json.dumps(damaged)


def _damage(rng: Random, schema: Any) -> None:
    """Replace or remove one node at a random place."""
    node: Any = schema
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = rng.choice(keys)
        if isinstance(node[key], (dict, list)) and node[key] and rng.random() < 0.8:
            node = node[key]
            continue
        if rng.random() < 0.3:
            del node[key]
        else:
            node[key] = copy.deepcopy(rng.choice(_JUNK))
        return


def _deep(rng: Random, schema: Schema) -> str:
    """Types within types, near and beyond what recursion takes; as text, since no library would write it."""
    levels = range(rng.choice((30, 70, 150, 300, 500)))
    before, after = rng.choice(
        (
            ('{"type": "array", "items": ', "}"),
            ('{"type": "map", "values": ', "}"),
            ('{"type": "array", "items": ["null", ', "]}"),
            ('{"type": "record", "name": "Level%d", "fields": [{"name": "inner", "type": ', "}]}"),
            ('{"type": ', "}"),
        )
    )
    deep = "".join(before.replace("%d", str(level)) for level in levels) + '"long"' + after * len(levels)
    whole = {**schema, "fields": [*schema["fields"], {"name": "deep", "type": "Deep"}]}
    return json.dumps(whole).replace('"Deep"', deep)


def _multiplying(rng: Random, schema: Schema) -> Schema:
    """Records of no bytes, each many times in the next: a body of no bytes has more values than there is time."""
    width, leaf = rng.randint(2, 9), rng.choice((record([], "R0"), record(["null"], "R0")))
    fields = [*schema["fields"], {"name": "r0", "type": leaf}]
    for level in range(1, 30):
        held = [{"name": f"x{at}", "type": f"R{level - 1}"} for at in range(width)]
        fields.append({"name": f"r{level}", "type": {"type": "record", "name": f"R{level}", "fields": held}})
    return {**schema, "fields": fields}
