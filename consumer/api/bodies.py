"""Bodies of requests: read within a time, and held to the contract of the event that they are.

A body is JSON of one record or of a list. Its shape comes from the Avro schema and the ranges of `consumer/contracts/`:
what has an unknown field, another type or a number out of range is refused with its faults, as many as a person reads:
to name all of a hostile body's would take longer than anything else that is asked. What is left is for the columns of
the same contract to judge.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NotRequired

import orjson
from fastapi import Request
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, WithJsonSchema
from pydantic_core import from_json
from typing_extensions import TypedDict

from consumer.api.problems import MOST_ERRORS, At, Refused
from consumer.contracts.avro import scalar
from consumer.contracts.checks import Range
from consumer.contracts.dicts import milliseconds
from consumer.contracts.schemas import latest
from consumer.contracts.transaction import SCHEMA, Limits, plain_values
from consumer.errors import InvalidRecord

MOST_RECORDS = 1000
_MOST_STRANGE = 20
"""Unknown fields of one record that are named. What has more is something else altogether."""
_PLAIN_BYTES = 8192
"""What is larger is read by a thread."""
_PATIENCE_SECONDS = 10.0
_INT, _LONG, _FAR = 2**31 - 1, 2**63 - 1, 2**53
_SCORED = frozenset(SCHEMA.names)
_TIME_SCHEMA = {
    "anyOf": [
        {"type": "string", "format": "date-time", "description": "ISO 8601; UTC when it names no zone"},
        {"type": "integer", "minimum": -_FAR, "maximum": _FAR, "description": "milliseconds since 1970, UTC"},
    ]
}

Record = dict[str, Any]
_A_LIST = Field(min_length=1, max_length=MOST_RECORDS)
_LIST = TypeAdapter(Annotated[list[Any], _A_LIST])
_STRANGE = "Extra inputs are not permitted"
# types that are made as the schema says, which no type checker can follow
_DICT: Any = TypedDict
_ANNOTATED: Any = Annotated
_OPTIONAL: Any = NotRequired


async def read(request: Request) -> bytes:
    """The body. Raises Refused when it is not said to be JSON, or does not come in time."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" or "content-encoding" in request.headers:
        raise Refused(415, "media-type", "the body must be application/json, and not encoded")
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return await request.body()
    except TimeoutError:
        detail = f"the body did not come within {_PATIENCE_SECONDS:.0f} s"
        raise Refused(408, "too-slow", detail, headers={"Connection": "close"}) from None


def plain_transaction(body: bytes, limits: Limits) -> list[Any] | None:
    """The `plain_values` of a body that is beyond doubt one good transaction; None for what a Shape has to judge."""
    if len(body) > _PLAIN_BYTES:
        return None
    try:
        given = orjson.loads(body)
        if type(given) is not dict or not given.keys() <= _SCORED:
            return None
        return plain_values(given, limits)
    except (orjson.JSONDecodeError, InvalidRecord):
        return None


class Shape:
    """What a record of one kind looks like in JSON: one, or up to a thousand in a list."""

    def __init__(self, kind: str, ranges: Sequence[Range], ids: Sequence[str], max_text: int, example: Record) -> None:
        """`kind` is that of `schemas/`; `ids` are texts that must not be empty; `max_text` is in characters."""
        bounds = {each.name: each for each in ranges}
        fields: dict[str, Any] = {}
        for each in latest(kind).schema["fields"]:
            name = each["name"]
            about = Field(description=each.get("doc"))
            typed: Any = _ANNOTATED[_typed(each, bounds.get(name), 1 if name in ids else 0, max_text), about]
            fields[name] = _OPTIONAL[typed | None] if "default" in each else typed
        record: Any = _DICT(kind.capitalize(), fields)
        record.__pydantic_config__ = ConfigDict(
            extra="forbid", strict=True, allow_inf_nan=False, json_schema_extra={"examples": [example]}
        )
        self._one: TypeAdapter[Record] = TypeAdapter(record)
        self._names = frozenset(fields)
        self.name = kind.capitalize()

    def one(self, body: bytes) -> Record:
        """Raises Refused for a body that is not one good record."""
        return self._good(_parsed(body))

    def one_or_many(self, body: bytes) -> Record | list[Record]:
        """Raises Refused for a body that is neither one good record nor a list of them."""
        given = _parsed(body)
        if not isinstance(given, list):
            return self._good(given)
        records: list[Record] = []
        faults: list[At] = []
        for index, each in enumerate(_listed(given)):
            record, wrong = self._judged(each, index)
            records.append(record)
            faults += wrong
            if len(faults) >= MOST_ERRORS:
                break
        if faults:
            raise _unusable(faults)
        return records

    def each(self, body: bytes) -> tuple[dict[int, Record], dict[int, list[At]]]:
        """The good records of a list, and what is wrong with the others, by index. Raises Refused for no such list."""
        good: dict[int, Record] = {}
        bad: dict[int, list[At]] = {}
        for index, each in enumerate(_listed(_parsed(body))):
            record, wrong = self._judged(each, index)
            if wrong:
                bad[index] = wrong
            else:
                good[index] = record
        return good, bad

    def _good(self, given: Any) -> Record:
        record, wrong = self._judged(given)
        if wrong:
            raise _unusable(wrong)
        return record

    def _judged(self, given: Any, *within: int) -> tuple[Record, list[At]]:
        """A record, and what is wrong with it."""
        strange = [name for name in given if name not in self._names] if isinstance(given, dict) else []
        if len(strange) > _MOST_STRANGE:
            return {}, [{"pointer": pointer(*within, each), "detail": _STRANGE} for each in strange[:_MOST_STRANGE]]
        try:
            return self._one.validate_python(given), []
        except ValidationError as error:
            return {}, _faults(error, *within)

    def described(self, ref: str) -> dict[str, Any]:
        """Its JSON schema, `$defs` under `ref`."""
        return self._one.json_schema(ref_template=ref)


def _typed(field: dict[str, Any], bounds: Range | None, min_length: int, max_text: int) -> Any:
    if "timestamp-millis" in str(field["type"]):
        return Annotated[Any, AfterValidator(_time), WithJsonSchema(_TIME_SCHEMA)]
    match scalar(field["type"]):
        case ("string", _):
            return Annotated[str, Field(min_length=min_length, max_length=max_text)]
        case ("boolean", _):
            return bool
        case ("int", _):
            return Annotated[int, _within(bounds, _INT)]
        case ("long", _):
            return Annotated[int, _within(bounds, _LONG)]
    return Annotated[float, _within(bounds, None)]


def _within(bounds: Range | None, largest: int | None) -> Any:
    low = None if bounds is None else bounds.low
    high = None if bounds is None or bounds.high == sys.float_info.max else bounds.high
    if largest is not None:
        return Field(ge=-largest - 1 if low is None else int(low), le=largest if high is None else int(high))
    return Field(ge=low, le=high)


def _time(value: Any) -> int:
    try:
        taken = milliseconds("", value)
    except InvalidRecord:
        taken = None
    if type(taken) is not int or not -_FAR <= taken <= _FAR:
        raise ValueError("Input should be an ISO 8601 time or milliseconds since 1970")
    return taken


def _parsed(body: bytes) -> Any:
    try:
        return from_json(body)  # takes NaN, of which the field is then told
    except ValueError:
        raise Refused(400, "malformed", "the body is not JSON") from None


def _listed(given: Any) -> list[Any]:
    try:
        return _LIST.validate_python(given)
    except ValidationError as error:
        raise _unusable(_faults(error)) from None


def _unusable(faults: Sequence[At]) -> Refused:
    return Refused(422, "invalid", "the body cannot be used", faults)


def _faults(error: ValidationError, *within: int) -> list[At]:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return [
        {"pointer": pointer(*within, *each["loc"]), "detail": each["msg"].removeprefix("Value error, ")}
        for each in found[:MOST_ERRORS]
    ]


def pointer(*parts: str | int) -> str:
    """A JSON pointer into the body, as the fragment of a URI (RFC 6901)."""
    return "#" + "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in parts)


def at_fault(reason: InvalidRecord, *within: int) -> At:
    """What columns say of a record, which stands at `within` in the body."""
    return {"pointer": pointer(*within, *([reason.field] if reason.field else [])), "detail": str(reason)}
