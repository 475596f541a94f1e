"""What was predicted, and what became of it."""

from __future__ import annotations

import base64
import binascii
import struct
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from consumer.api.answers import AsOf, Time, told
from consumer.api.gate import GatedRoute, needs
from consumer.api.openapi import refusals
from consumer.api.parts import Parts
from consumer.api.problems import Refused
from consumer.clock import utc_now
from consumer.views import predictions
from consumer.views.predictions import Place, Prediction

router = APIRouter(prefix="/v1/predictions", tags=["predictions"], route_class=GatedRoute)

_PLACE = struct.Struct(">qqq")

Id = Annotated[
    str,
    Path(min_length=1, max_length=256, description="As the checkout named it.", examples=["t-1001"]),
]
Artifact = Annotated[str | None, Query(min_length=1, max_length=100, description="Only those of this model set.")]


class OfTransaction(BaseModel):
    """All predictions of one transaction: one for each model set, rule set and feature spec that scored it."""

    transaction_id: str
    predictions: list[Prediction]


class PageOfPredictions(BaseModel):
    """Some predictions in order of their transactions' times."""

    predictions: list[Prediction]
    next: str | None
    """The cursor of the next page; null when there is nothing more now."""


@router.get("", summary="Predictions page by page", openapi_extra=needs("read"), responses=refusals(PageOfPredictions))
async def pages(
    request: Request,
    since: Annotated[Time | None, Query(description="Of transactions from then on.")] = None,
    until: Annotated[Time | None, Query(description="And before then.")] = None,
    cursor: Annotated[str | None, Query(max_length=64, description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Predictions a page, at the most.")] = 100,
    artifact: Artifact = None,
    as_of: AsOf = None,
) -> Response:
    """In order of the transactions' times, oldest first. A page may hold fewer than `limit` and still have a `next`."""
    parts: Parts = request.app.state.parts
    if since and until and since >= until:
        at = [{"parameter": "until", "detail": "is not after since, so nothing lies between them"}]
        raise Refused(422, "invalid", "parameters cannot be used", at)
    known_at, after = as_of or utc_now(), None if cursor is None else _place(cursor)
    found = await parts.store.ask(predictions.page, known_at, since, until, after, limit, artifact)
    content = {"predictions": found.predictions, "next": _cursor(found.end) if found.end else None}
    return told(request, content, known_at)


@router.get(
    "/{transaction_id:path}",
    summary="Predictions of one transaction",
    openapi_extra=needs("read"),
    responses=refusals(OfTransaction, 404),
)
async def of_transaction(request: Request, transaction_id: Id, as_of: AsOf = None) -> Response:
    """Scores of all models, the rules' decision, what stood, and what became of the transaction as known at `as_of`."""
    parts: Parts = request.app.state.parts
    known_at = as_of or utc_now()
    found = await parts.store.ask(predictions.of_transaction, transaction_id, known_at)
    if not found:
        raise Refused(404, "not-found", "no prediction of this transaction is stored")
    return told(request, {"transaction_id": transaction_id, "predictions": found}, known_at)


def _cursor(place: Place) -> str:
    return base64.urlsafe_b64encode(_PLACE.pack(*place)).decode().rstrip("=")


def _place(cursor: str) -> Place:
    try:
        return Place(*_PLACE.unpack(base64.b64decode(cursor.encode("ascii"), b"-_", validate=True)))
    except (ValueError, binascii.Error, struct.error):
        at = [{"parameter": "cursor", "detail": "is none that a page gave as `next`"}]
        raise Refused(422, "invalid", "parameters cannot be used", at) from None
