"""The API put together: `make_app` for a server, or for a test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from consumer.api.auth import Callers
from consumer.api.gate import BoundBody, Counting, Gate
from consumer.api.limits import RateLimit
from consumer.api.openapi import ABOUT, TITLE, describe, shapes, show
from consumer.api.parts import Parts
from consumer.api.problems import handle_in
from consumer.api.routes import figures, health, models, outcomes, predictions, scoring

_ROUTES = (scoring, predictions, outcomes, models, figures, health)


def make_app(parts: Parts, callers: Callers) -> FastAPI:
    """An ASGI app; its lifespan keeps `parts` running."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with parts.running():
            yield

    app = FastAPI(
        title=TITLE,
        description=ABOUT,
        version=version("bnpl-shadow-scoring"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.parts = parts
    app.state.shapes = shapes(parts.limits)
    app.state.gate = Gate(callers, RateLimit(parts.settings.api_rate_limit))
    for each in _ROUTES:
        app.include_router(each.router)
    handle_in(app, parts.metrics)
    describe(app, app.state.shapes)
    show(app)
    return app


def served(app: FastAPI) -> Counting:
    """The app as a server runs it: bounded and counted from outside, before the first byte of a body is read."""
    parts: Parts = app.state.parts
    return Counting(BoundBody(app, parts.settings.api_max_body_bytes), parts.metrics)
