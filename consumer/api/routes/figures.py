"""The figures that decide about models: evaluations as they were printed, vintages, drift."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from consumer.api.answers import AsOf, told
from consumer.api.gate import GatedRoute, needs
from consumer.api.openapi import refusals
from consumer.api.parts import Parts
from consumer.api.problems import Refused
from consumer.champion import evaluations
from consumer.champion.dossier import to_bytes
from consumer.clock import utc_now
from consumer.contracts.horizons import Horizon
from consumer.errors import ArtifactError, NothingToEvaluate
from consumer.services.drift import look
from consumer.views.vintages import Vintage, vintages

router = APIRouter(prefix="/v1", tags=["figures"], route_class=GatedRoute)

Label = Annotated[str | None, Query(max_length=100, description="Label horizon. Absent: the policy's.")]
Artifact = Annotated[str | None, Query(max_length=100, description="Model set. Absent: the one that is loaded.")]


class Evaluation(BaseModel):
    """What `bnpl-shadow evaluate --json` printed: docs/evaluation.md says what each figure is."""

    model_config = ConfigDict(extra="allow")
    format: str
    made_at: str
    question: dict[str, Any]
    recommendation: dict[str, Any]
    verdicts: Any
    evaluation: dict[str, Any]


class Vintages(BaseModel):
    """Default rates by ISO week of origination."""

    artifact_version: str
    label: str
    vintages: list[Vintage]


class Drift(BaseModel):
    """What `bnpl-shadow drift --json` prints: docs/drift.md says how to read it."""

    model_config = ConfigDict(extra="allow")
    judged: bool
    worst: int = Field(description="0 none, 1 warning, 2 alarm.")
    version: str
    as_of: str
    first_day: str
    rows: int


@router.get(
    "/evaluation",
    summary="The newest evaluation",
    openapi_extra=needs("read"),
    responses=refusals(Evaluation, 404),
)
async def evaluation(request: Request, label: Label = None, artifact: Artifact = None, as_of: AsOf = None) -> Response:
    """The stored evaluation with the newest `as_of` that is not after the one asked for, byte for byte as the dossier
    of it. What was never stored is not computed here: `bnpl-shadow evaluate --store`, or `--every`.
    """
    parts: Parts = request.app.state.parts
    version, horizon = artifact or parts.settings.artifact_version, _horizon(parts, label)
    stored = await parts.store.ask(evaluations.newest, version, horizon.label, as_of or utc_now())
    if stored is None:
        raise Refused(404, "not-found", "no evaluation of this is stored; `bnpl-shadow evaluate --store` stores one")
    return told(request, to_bytes(stored.document), stored.listed.as_of)


@router.get(
    "/vintages", summary="Default rates by week", openapi_extra=needs("read"), responses=refusals(Vintages, 404)
)
async def by_week(request: Request, label: Label = None, artifact: Artifact = None, as_of: AsOf = None) -> Response:
    """Transactions by ISO week of origination (UTC), how many of them are old enough, and how many of those defaulted.
    A week that is not `mature` will change: nothing may be concluded from it.
    """
    parts: Parts = request.app.state.parts
    version, horizon, known_at = artifact or parts.settings.artifact_version, _horizon(parts, label), as_of or utc_now()
    try:
        found = await parts.store.ask(vintages, horizon, known_at, version)
    except NothingToEvaluate:
        raise Refused(404, "not-found", "nothing is scored by this model set, as of then") from None
    content = {"artifact_version": version, "label": horizon.label, "vintages": found}
    return told(request, content, known_at)


@router.get("/drift", summary="Traffic against training", openapi_extra=needs("read"), responses=refusals(Drift, 404))
async def drift(
    request: Request,
    days: Annotated[int, Query(ge=1, le=366, description="How many full days before `as_of`.")] = look.WINDOW_DAYS,
    as_of: AsOf = None,
) -> Response:
    """The full days (UTC) before `as_of` against what the models were trained on."""
    parts: Parts = request.app.state.parts
    if isinstance(parts.export, str):
        raise Refused(404, "not-found", "the loaded model set brings no training statistics to compare with")
    known_at = as_of or utc_now()
    found = await parts.store.ask(look.look, parts.export, known_at.date(), days)
    return told(request, look.document(found), known_at)


def _horizon(parts: Parts, label: str | None) -> Horizon:
    try:
        return parts.horizons[label or parts.label]
    except ArtifactError:
        at = [{"parameter": "label", "detail": f"is none of {', '.join(parts.horizons.labels)}"}]
        raise Refused(422, "invalid", "parameters cannot be used", at) from None
