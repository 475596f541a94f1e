"""What a request is answered that cannot be served: a problem document (RFC 9457), with the fields at fault.

A detail names what is wrong and never quotes a value, an address or an exception.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from consumer.errors import BnplError, ClickHouseUnavailable, InvalidRecord, KafkaUnavailable, Retryable
from consumer.logs import get_logger
from consumer.metrics import Metrics

log = get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 5
TYPE = "urn:bnpl-shadow:problem:"
MOST_ERRORS = 100
"""Of one request: what else is wrong with it shows once these are mended."""

At = dict[str, str]
"""`pointer` (a JSON pointer into the body) or `parameter` (a name), and `detail`."""


class Fault(BaseModel):
    """One thing that is wrong with a request."""

    pointer: str | None = Field(None, description="Where in the body, as a JSON pointer: `#/17/amount`.")
    parameter: str | None = Field(None, description="Which parameter of path, query or header.")
    detail: str


class Problem(BaseModel):
    """Why a request was not served (RFC 9457)."""

    type: str = Field(description=f"`{TYPE}` and the problem's name, which does not change.")
    title: str
    status: int
    detail: str
    errors: list[Fault] | None = Field(None, description=f"The fields at fault, {MOST_ERRORS} at the most.")


class Refused(Exception):
    """A request that is not served; the answer is `answer`."""

    def __init__(
        self,
        status: int,
        name: str,
        detail: str,
        errors: Sequence[At] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.name, self.detail = status, name, detail
        self.errors, self.headers = errors, headers or {}

    @property
    def answer(self) -> Response:
        document: dict[str, Any] = {
            "type": TYPE + self.name,
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            document["errors"] = list(self.errors[:MOST_ERRORS])
        headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **self.headers}
        return Response(orjson.dumps(document), self.status, headers, MEDIA_TYPE)


def away(detail: str) -> Refused:
    """An outside part does not answer: the same request may succeed later."""
    return Refused(503, "unavailable", detail, headers={"Retry-After": str(RETRY_SECONDS)})


def failed() -> Refused:
    """A fault of ours, which the log names."""
    return Refused(500, "internal", "the service failed; its log says why")


def as_refusal(error: Exception) -> Refused:
    """Any exception as what the client is told of it; what is not the client's fault goes to the log."""
    match error:
        case Refused():
            return error
        case RequestValidationError():
            return Refused(422, "invalid", "parameters cannot be used", [_parameter(each) for each in error.errors()])
        case HTTPException():
            return _of_http(error)
        case ClientDisconnect():
            return Refused(400, "disconnected", "the client went away before its body was read")
        case InvalidRecord():
            at = [{"pointer": f"#/{error.field or ''}", "detail": str(error)}]
            return Refused(422, "invalid", "the body cannot be used", at)
        case ClickHouseUnavailable():
            log.warning("ClickHouse is away", reason=str(error))
            return away("ClickHouse, which holds what is asked for, does not answer")
        case KafkaUnavailable():
            log.warning("Kafka is away", reason=str(error))
            return away("Kafka, which this needs, does not answer")
        case Retryable():
            log.warning("a part is away", reason=str(error))
            return away("a part that this needs does not answer")
        case BnplError():
            log.error("cannot answer", reason=str(error))
            return failed()
    log.error("a bug", error=type(error).__name__, at=_places(error))
    return failed()


def _of_http(error: HTTPException) -> Refused:
    names = {
        404: ("not-found", "there is no such resource; /docs shows those that there are"),
        405: ("method", "this resource has no such method; `Allow` names those that it has"),
    }
    known = names.get(error.status_code) or ("refused", HTTPStatus(error.status_code).phrase)
    if error.status_code == 413:
        return too_large()
    return Refused(error.status_code, *known, headers=error.headers)


def too_large() -> Refused:
    return Refused(413, "too-large", "the body is larger than BNPL_API_MAX_BODY_BYTES allows")


def _parameter(fault: Mapping[str, Any]) -> At:
    where, *name = fault["loc"]
    told = str(fault["msg"]).removeprefix("Value error, ")
    return {"parameter": ".".join(map(str, name)) or str(where), "detail": told}


def _places(error: BaseException) -> list[str]:
    """Where it was raised: without its text, which can hold a value of the request."""
    found, trace = [], error.__traceback__
    while trace is not None:
        found.append(f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}")
        trace = trace.tb_next
    return found[-6:]


def answer_to(error: Exception, metrics: Metrics) -> Response:
    """What the client gets for it, counted."""
    refused = as_refusal(error)
    metrics.api_refused.labels(refused.name).inc()
    return refused.answer


def handle_in(app: FastAPI, metrics: Metrics) -> None:
    """Let every refusal of the app be a problem document."""

    async def answer(_: Request, error: Exception) -> Response:
        return answer_to(error, metrics)

    for kind in (Refused, RequestValidationError, HTTPException, BnplError, Exception):
        app.add_exception_handler(kind, answer)
