"""How the services and this process fare: lag, health and metrics."""

from __future__ import annotations

from datetime import datetime

from anyio import to_thread
from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.responses import Response

from consumer.api.answers import said, told
from consumer.api.gate import GatedRoute, needs
from consumer.api.openapi import refusals
from consumer.api.parts import Parts
from consumer.api.problems import away
from consumer.clock import utc_now
from consumer.watch.lag_document import document

router = APIRouter(tags=["health"], route_class=GatedRoute)


class PartitionLag(BaseModel):
    """One partition that a group reads."""

    topic: str
    partition: int
    begin: int
    committed: int | None
    end: int
    messages: int
    expired: int
    seconds: float
    status: str | None


class GroupLag(BaseModel):
    """One consumer group; docs/operating.md says what each status means."""

    group: str
    state: str | None
    messages: int
    expired: int
    seconds: float
    status: str | None
    draining: bool | None
    drain_seconds: float | None
    age_seconds: float
    failed: str | None
    partitions: list[PartitionLag]


class Lag(BaseModel):
    """What score and sink have yet to read."""

    at: datetime
    groups: list[GroupLag]


class Health(BaseModel):
    """Whether a process is well, and what of it is not."""

    ok: bool
    reasons: list[str]
    away: list[str] = []
    doubt: str | None = None


@router.get("/v1/lag", summary="How far behind the services are", openapi_extra=needs("read"), responses=refusals(Lag))
async def lag(request: Request) -> Response:
    """Of the groups that exist, what `bnpl-shadow lag --json` prints: a few seconds old. Of the past nobody knows it,
    so there is no `as_of`.
    """
    parts: Parts = request.app.state.parts
    reports = [watch.report for watch in parts.lags]
    if any(report.look is None or report.failed for report in reports):
        raise away("Kafka, which knows the lag, does not answer")
    return told(request, document(reports, utc_now()))


@router.get("/livez", summary="Alive", responses={200: {"model": Health}})
async def livez() -> Response:
    """200 as long as requests are answered at all."""
    return said({"ok": True, "reasons": []})


@router.get("/readyz", summary="Ready", responses={200: {"model": Health}, 503: {"model": Health}})
async def readyz(request: Request) -> Response:
    """503 until the models are proved and the control topic was read once. `away` names parts that do not answer now:
    what needs them is refused with 503, and the rest is served, so that a broken store takes no decision away. `doubt`
    tells that decisions are the rules' whoever is promoted, because Kafka has been silent for too long.
    """
    parts: Parts = request.app.state.parts
    reasons = [] if parts.control.known else ["the control topic was not read yet"]
    doubt = parts.control.newest().doubt if parts.control.known else None
    health = {"ok": not reasons, "reasons": reasons, "away": list(parts.away), "doubt": doubt}
    return said(health, 503 if reasons else 200)


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    openapi_extra=needs("read"),
    responses=refusals(None) | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """The closed list of docs/metrics.md."""
    parts: Parts = request.app.state.parts
    parts.show_who_decides()
    content = await to_thread.run_sync(generate_latest, parts.metrics.registry)
    return Response(content, headers={"Cache-Control": "no-store", "Content-Type": CONTENT_TYPE_LATEST})
