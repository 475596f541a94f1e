"""Which models there are, and who decides."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from consumer.api.answers import AsOf, told
from consumer.api.gate import GatedRoute, needs
from consumer.api.openapi import refusals
from consumer.api.parts import Parts
from consumer.api.problems import away
from consumer.clock import utc_now
from consumer.views.models import Models, models

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=GatedRoute)


@router.get("", summary="Models, rules and who decides", openapi_extra=needs("read"), responses=refusals(Models))
async def all_models(request: Request, as_of: AsOf = None) -> Response:
    """The loaded models with what their export says. Roles, champion and mode are those that ruled at `as_of`."""
    parts: Parts = request.app.state.parts
    if not parts.control.known:
        raise away("the control topic, which says who decides, was not read yet")
    controller = parts.controller
    found = models(controller.predictor.model_set, controller.rules, parts.research, parts.control.history, as_of)
    return told(request, found, as_of or utc_now())
