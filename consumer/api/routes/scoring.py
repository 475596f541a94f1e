"""Scores of transactions that may never have happened, and the decision that stands for one that does."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from consumer.api import bodies
from consumer.api.answers import said
from consumer.api.bodies import Record, Shape
from consumer.api.gate import GatedRoute, needs
from consumer.api.openapi import TRANSACTION, body_of, refusals
from consumer.api.parts import Parts
from consumer.api.problems import Refused, away
from consumer.contracts.avro import Decoded
from consumer.contracts.transaction import columns_from_dicts, refuse_impossible
from consumer.scoring.controller import ShadowModeController

router = APIRouter(prefix="/v1", tags=["scoring"], route_class=GatedRoute)


class ModelSays(BaseModel):
    """One model's score."""

    score: float | None
    score_kind: str = Field(description="probability, uncalibrated or value.")
    flag: bool | None = Field(description="At or above the model's flag_threshold; null where it has none.")
    role: str
    version: str
    error: str | None = Field(description="Why there is no score.")


class Score(BaseModel):
    """What rules and models say of one transaction. All of it is advisory."""

    transaction_id: str
    business_decision: str = Field(description="The rules' decision: approve or decline.")
    business_risk_flag: str
    business_risk_score: float
    reason_codes: list[str]
    rule_set_version: str
    models: dict[str, ModelSays]
    champion: str
    champion_score: float | None
    consensus: float | None = Field(description="Mean of the scores that are there.")
    artifact_version: str
    feature_spec_version: str
    advisory: bool


class Decision(Score):
    """The same, and which decision stands."""

    mode: str = Field(description="shadow, canary or champion.")
    decision: str = Field(description="What stands: approve or decline.")
    decided_by: str = Field(description="rules, champion or fallback.")
    advisory: bool = Field(description="Whether no model decided.")
    control_revision: int = Field(description="Of the promotion that rules; 0 for none.")
    fallback_reason: str | None = Field(description="Why the champion did not decide though it should; null otherwise.")


@router.post(
    "/score",
    summary="Score transactions, advisory",
    openapi_extra=needs("score", requestBody=body_of(TRANSACTION, many=True)),
    responses=refusals(Score | list[Score], 400, 408, 413, 415, 422),
)
async def score(request: Request) -> Response:
    """Rules, all models, champion, consensus and reasons of one transaction, or of a list of up to 1,000. Nothing is
    stored, and no decision stands on it: to have one, ask `/v1/decision`.
    """
    parts: Parts = request.app.state.parts
    controller, body = parts.controller, await bodies.read(request)
    values = bodies.plain_transaction(body, parts.limits)
    if values is not None and not controller.predictor.guarded_calls:
        return said(controller.advise_plain(values))  # less than it costs to hand it to a thread
    return said(await parts.scoring.run(partial(_advise, parts, shape(request), body)))


@router.post(
    "/decision",
    summary="The decision that stands",
    openapi_extra=needs("score", requestBody=body_of(TRANSACTION)),
    responses=refusals(Decision, 400, 408, 413, 415, 422),
)
async def decision(request: Request) -> Response:
    """What the rules decide, or the champion where a promotion lets it decide for this customer: as the score service
    would decide this transaction now, fallback and kill switch included. Nothing is stored: send the transaction's
    event with `business_decision` as always.
    """
    parts: Parts = request.app.state.parts
    return said(await parts.scoring.run(partial(_decide, parts, shape(request), await bodies.read(request))))


def shape(request: Request) -> Shape:
    found: Shape = request.app.state.shapes[TRANSACTION]
    return found


def _advise(parts: Parts, shape: Shape, body: bytes) -> list[dict[str, Any]] | dict[str, Any]:
    controller: ShadowModeController = parts.controller
    given = shape.one_or_many(body)
    if isinstance(given, list):
        return controller.advise(_columns(parts, given, many=True))
    return controller.advise(_columns(parts, [given], many=False))[0]


def _decide(parts: Parts, shape: Shape, body: bytes) -> dict[str, Any]:
    given = shape.one(body)
    if not parts.control.known:
        raise away("the control topic, which says who decides, was not read yet")
    activation = parts.control.newest()
    _columns(parts, [given], many=False)
    stands = parts.controller.score_single(given, activation)
    parts.metrics.standing.labels(stands["decision"], stands["decided_by"]).inc()
    reason = None
    if stands["decided_by"] == "fallback":
        reason = activation.doubt or stands["models"][stands["champion"]]["error"]
    return {**stands, "control_revision": activation.revision, "fallback_reason": reason}


def _columns(parts: Parts, given: list[Record], *, many: bool) -> pa.RecordBatch:
    """Raises Refused that names each transaction that cannot be used."""
    batch = columns_from_dicts(given)
    checked = refuse_impossible(Decoded(batch, np.arange(batch.num_rows)), parts.limits)
    if checked.rejected:
        first = sorted(checked.rejected, key=lambda bad: bad.position)
        faults = [bodies.at_fault(bad.reason, *([bad.position] if many else [])) for bad in first]
        raise Refused(422, "invalid", "the body cannot be used", faults)
    return batch
