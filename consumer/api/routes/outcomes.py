"""What became of transactions, sent to the topic that all outcomes go through."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from anyio import to_thread
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from consumer.api import bodies
from consumer.api.answers import said
from consumer.api.bodies import Record, Shape
from consumer.api.gate import GatedRoute, needs
from consumer.api.openapi import OUTCOME, body_of, refusals
from consumer.api.parts import Parts
from consumer.api.problems import At, Fault, Refused
from consumer.contracts.avro import Decoded
from consumer.contracts.outcome import columns_from_dicts, refuse_impossible

router = APIRouter(prefix="/v1/outcomes", tags=["outcomes"], route_class=GatedRoute)


class RefusedOutcome(BaseModel):
    """An outcome that was not sent."""

    index: int
    errors: list[Fault]


class Accepted(BaseModel):
    """What the broker has acknowledged, and what was not sent."""

    accepted: int
    refused: list[RefusedOutcome] = Field(description="The others go their way all the same.")


@router.post(
    "",
    status_code=202,
    summary="Send outcomes",
    openapi_extra=needs("outcomes", requestBody=body_of(OUTCOME, many=True)),
    responses=refusals(Accepted, 400, 408, 413, 415, 422, status=202),
)
async def send(request: Request) -> Response:
    """One outcome, or a list of up to 1,000. What is good goes to bnpl.outcomes, and the answer comes when the broker
    has acknowledged it; the sink stores it soon after. What is not is named by its index, and 422 says that none was
    good. After a 503 send the same again: an outcome that comes twice replaces itself.
    """
    parts: Parts = request.app.state.parts
    shape: Shape = request.app.state.shapes[OUTCOME]
    batch, bad = await to_thread.run_sync(_judged, parts, shape, await bodies.read(request))
    await parts.outcomes.send(batch)
    told = [{"index": index, "errors": errors} for index, errors in sorted(bad.items())]
    return said({"accepted": batch.num_rows, "refused": told}, 202)


def _judged(parts: Parts, shape: Shape, body: bytes) -> tuple[pa.RecordBatch, dict[int, list[At]]]:
    """The good ones, and what is wrong with the others, by index. Raises Refused when none is good."""
    many = body.lstrip()[:1] == b"["
    good, bad = shape.each(body) if many else ({0: shape.one(body)}, {})
    checked = _checked(parts, list(good.values()))
    places = list(good)
    for each in checked.rejected:
        index = places[each.position]
        bad[index] = [bodies.at_fault(each.reason, *([index] if many else []))]
    if not checked.batch.num_rows:
        faults = [at for _, found in sorted(bad.items()) for at in found]
        raise Refused(422, "invalid", "no outcome of the body can be used", faults)
    return checked.batch, bad


def _checked(parts: Parts, given: list[Record]) -> Decoded:
    batch = columns_from_dicts(given)
    return refuse_impossible(Decoded(batch, np.arange(batch.num_rows)), parts.horizons, parts.limits)
