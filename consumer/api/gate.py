"""The way of every request: who asks and whether that may is settled before its route runs, and it is counted after.

    counted ─► refused ─► body bounded ─► routed ─► known ─► in scope ─► within the rate ─► answered

What a route needs is said once, in its `security`: the description shows it, and the gate holds to it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from consumer.api import auth
from consumer.api.auth import Callers
from consumer.api.limits import RateLimit
from consumer.api.problems import Refused, answer_to, too_large
from consumer.metrics import Metrics

SCHEME = "bearer"
"""Name of the security scheme in the description."""

_GONE = 499
"""What nginx calls a client that did not wait for its answer."""
_METHODS = {"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"}
_Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def needs(scope: auth.Scope, **more: Any) -> dict[str, Any]:
    """`openapi_extra` of a route that needs a token of this scope."""
    return {"security": [{SCHEME: [scope]}], **more}


class Gate:
    """Lets a request in, or raises Refused."""

    def __init__(self, callers: Callers, rate: RateLimit) -> None:
        self._callers, self._rate = callers, rate

    async def let_in(self, request: Request, scope: auth.Scope) -> None:
        headers, client = request.headers, request.client
        authorization, address = headers.get("authorization"), client.host if client else "unknown"
        caller = self._callers.who(authorization, headers.get("host"), address)
        await self._rate.count(caller.name if caller else f"address {address}")
        if caller is None:
            raise auth.unknown_caller(authorization)
        if not caller.may(scope):
            raise auth.out_of_scope(scope)


class GatedRoute(APIRoute):
    """A route that is behind the gate of `app.state.gate` when it says that it needs a scope."""

    def get_route_handler(self) -> _Handler:
        handle = super().get_route_handler()
        security = (self.openapi_extra or {}).get("security")
        if not security:
            return handle
        (scope,) = security[0][SCHEME]
        known = {each.alias for each in self.dependant.query_params}

        async def gated(request: Request) -> Response:
            await request.app.state.gate.let_in(request, scope)
            if request.scope["query_string"]:
                _refuse_strange(request, known)
            return await handle(request)

        return gated


def _refuse_strange(request: Request, known: set[str]) -> None:
    """A misspelt `as_of` that was passed over would answer another question than was asked."""
    times = Counter(name for name, _ in request.query_params.multi_items())
    faults = [{"parameter": name, "detail": "is no parameter of this"} for name in times if name not in known]
    faults += [{"parameter": name, "detail": "is given more than once"} for name in times if times[name] > 1]
    if faults:
        raise Refused(422, "invalid", "parameters cannot be used", faults)


class Counting:
    """The outermost layer: counts and times every request, and turns whatever is still raised into a problem.

    A pure ASGI middleware.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, metrics = time.perf_counter(), 0, self._metrics

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        metrics.api_in_flight.inc()
        try:
            await self._app(scope, receive, noting)
        except Exception as error:  # noqa: BLE001 whatever it is, the client is told, and the log
            if not status:
                await answer_to(error, metrics)(scope, receive, noting)
        finally:
            metrics.api_in_flight.dec()
            route = getattr(scope.get("route"), "path_format", "none")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            metrics.api_requests.labels(route, method, f"{(status or _GONE) // 100}xx").inc()
            metrics.api_seconds.labels(route).observe(time.perf_counter() - began)


class BoundBody:
    """Refuses a body that is too large as soon as its head says so, or as it grows too large: it is never held.

    A pure ASGI middleware.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        for name, value in scope["headers"]:
            if name == b"content-length" and int(value) > self._most:
                raise too_large()
        came = 0

        async def bounded() -> Message:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if came > self._most:
                raise too_large()
            return message

        await self._app(scope, bounded, send)
