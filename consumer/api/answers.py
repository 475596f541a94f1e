"""Answers as JSON, those of reads with a tag by which a client asks whether anything has changed."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import orjson
from fastapi import Query, Request
from pydantic import AfterValidator, BeforeValidator, WithJsonSchema
from starlette.responses import Response

from consumer.clock import utc_now

JSON = "application/json"
AS_OF_HEADER = "Bnpl-As-Of"

_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
_OTHER_CLOCK = timedelta(minutes=5)
"""How much the clock of who asks may be ahead."""
_NOT_STORED = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def _time(given: Any) -> datetime:
    """ISO 8601, UTC when it names no zone. A `+` that came as a space, as it does in a query, is taken as meant."""
    try:
        found = datetime.fromisoformat(str(given).replace(" ", "+"))
    except ValueError:
        raise ValueError("is no ISO 8601 time, such as 2026-11-20 or 2026-11-20T10:15:00Z") from None
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    if not _EARLIEST <= found < _LATEST:
        raise ValueError("is not between 1970 and 2200")
    return found.astimezone(UTC)


def _begun(found: datetime | None) -> datetime | None:
    if found is not None and found > utc_now() + _OTHER_CLOCK:
        raise ValueError("is in the future, of which nothing is known yet")
    return found


Time = Annotated[datetime, BeforeValidator(_time), WithJsonSchema({"type": "string", "format": "date-time"})]
AsOf = Annotated[
    Time | None,
    AfterValidator(_begun),
    Query(description="What was known then: outcomes that were observed later are not seen. Absent: now."),
]


def said(content: Any, status: int = 200) -> Response:
    """The answer to a question that is not a read: nobody keeps it."""
    return Response(orjson.dumps(content), status, _NOT_STORED, JSON)


def told(request: Request, content: Any, as_of: datetime | None = None) -> Response:
    """The answer to a read, or 304 when the client has it already (RFC 9110, If-None-Match).

    `as_of` goes into a header, so that what is the same as before has the tag it had before.
    """
    body = content if isinstance(content, bytes) else orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {
        "ETag": tag,
        "Cache-Control": "private, no-cache",
        "Vary": "Authorization",
        "X-Content-Type-Options": "nosniff",
    }
    if as_of is not None:
        headers[AS_OF_HEADER] = as_of.isoformat()
    if _has(request.headers.get("if-none-match"), tag):
        return Response(status_code=304, headers=headers)
    return Response(body, 200, headers, JSON)


def _has(header: str | None, tag: str) -> bool:
    if header is None:
        return False
    tags = [each.strip().removeprefix("W/") for each in header.split(",")]
    return "*" in tags or tag in tags
