"""The API's description: bodies by the contract of their events, tokens with their scopes, and pages that show it.

Swagger UI comes from the package fastapi-offline, so that `/docs` works in a net that is closed.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from starlette.responses import Response

from consumer.api.answers import AS_OF_HEADER
from consumer.api.bodies import MOST_RECORDS, Record, Shape
from consumer.api.gate import SCHEME
from consumer.api.problems import MEDIA_TYPE, Problem, Refused
from consumer.contracts import outcome, transaction
from consumer.contracts.transaction import Limits

TITLE = "BNPL shadow scoring"
ABOUT = """
Predictions of models that run in shadow, what became of them, and the decision that stands.

- Every read takes `as_of`, tells the time it used in `Bnpl-As-Of`, and bears an `ETag`.
- What cannot be served is a problem document (RFC 9457) that names the fields at fault.
- A token has scopes: `read`, `score`, `outcomes`, or `admin` for all of them.
"""
TRANSACTION, OUTCOME = "Transaction", "Outcome"

_REF = "#/components/schemas/"
_ALWAYS = (401, 403, 429, 500, 503)
_REASONS = {
    304: "What If-None-Match named is still the answer",
    400: "The body is not JSON",
    401: "No token, or none that is known",
    403: "The token lacks the scope",
    404: "There is no such thing",
    408: "The body did not come in time",
    413: "The body is too large",
    415: "The body is not application/json",
    422: "What was sent cannot be used: `errors` says what of it",
    429: "Asked too often: wait for `Retry-After` seconds",
    500: "A fault of the service",
    503: "A part that this needs is away: try again after `Retry-After` seconds",
}
_TEXT, _SECONDS = {"type": "string"}, {"type": "integer", "minimum": 1}
_RETRY = {"Retry-After": {"required": True, "schema": _SECONDS, "description": "Seconds"}}
_CHALLENGE = {"schema": _TEXT, "description": "RFC 6750"}
_TAG = {"required": True, "schema": _TEXT, "description": "Of the content: for If-None-Match"}
_USED = {
    "schema": {"type": "string", "format": "date-time"},
    "description": "The time that was used",
}
_HEADERS: dict[int, dict[str, Any]] = {
    200: {"ETag": _TAG, AS_OF_HEADER: _USED},
    304: {"ETag": _TAG, AS_OF_HEADER: _USED},
    401: {"WWW-Authenticate": {**_CHALLENGE, "required": True}},
    403: {"WWW-Authenticate": _CHALLENGE},
    429: _RETRY,
    503: _RETRY,
}
_IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "schema": _TEXT,
    "description": "Tags of answers that the client has: 304 when one is still the answer.",
}
_ASSETS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css", "favicon.png": "image/png"}
_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)

EXAMPLES: dict[str, Record] = {
    TRANSACTION: {
        "transaction_id": "t-1002",
        "customer_id": "c-77",
        "transaction_timestamp": "2026-10-01T10:15:00Z",
        "amount": 87.6,
        "customer_tenure_days": 401,
        "customer_credit_score_range": "good",
        "customer_age_bracket": "35-44",
        "customer_income_bracket": "50k-75k",
        "customer_verification_level": "verified",
        "device_type": "mobile",
        "device_is_trusted": True,
        "product_category": "home",
        "product_risk_category": "low",
        "risk_score": 0.17,
        "risk_level": "low",
        "risk_scenario": "low_risk_purchase",
        "payment_provider": "klarna",
        "installment_count": 4,
        "payment_credit_limit": 2500.0,
        "price_comparison_time": 191,
        "purchase_context": "normal",
    },
    OUTCOME: {
        "transaction_id": "t-1002",
        "label": "d28",
        "defaulted": False,
        "observed_at": "2026-10-30T06:00:00Z",
        "source": "ledger",
        "version": 1,
    },
}


def shapes(limits: Limits) -> dict[str, Shape]:
    """What bodies must look like, by name."""
    most = limits.max_text_bytes
    ranges = (*transaction.RANGES, *transaction.OPTIONAL_RANGES)
    return {
        TRANSACTION: Shape("transaction", ranges, transaction.IDS, most, EXAMPLES[TRANSACTION]),
        OUTCOME: Shape("outcome", outcome.RANGES, outcome.IDS, most, EXAMPLES[OUTCOME]),
    }


def body_of(name: str, *, many: bool = False) -> dict[str, Any]:
    """A `requestBody` of one record of a Shape, or also of a list."""
    one: dict[str, Any] = {"$ref": _REF + name}
    listed = {"type": "array", "items": one, "minItems": 1, "maxItems": MOST_RECORDS}
    examples: dict[str, Any] = {"one": {"summary": "One", "value": EXAMPLES[name]}}
    if many:
        examples["many"] = {"summary": "A list of up to 1,000", "value": [EXAMPLES[name]]}
    schema = {"anyOf": [one, listed]} if many else one
    return {"required": True, "content": {"application/json": {"schema": schema, "examples": examples}}}


def refusals(model: Any, *more: int, status: int = 200) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route: its model, and a problem document for everything that can go wrong."""
    problem = {"model": Problem, "content": {MEDIA_TYPE: {}}}
    codes = sorted({*_ALWAYS, *more} | ({422} if status == 200 and 415 not in more else set()))
    found: dict[int | str, dict[str, Any]] = {
        code: {**problem, "description": _REASONS[code], "headers": _HEADERS.get(code, {})} for code in codes
    }
    if model is not None:
        found[status] = {"model": model, "description": "The answer"}
        if status == 200 and 415 not in more:
            found[200]["headers"] = _HEADERS[200]
            found[304] = {"description": _REASONS[304], "headers": _HEADERS[304]}
    return found


def describe(app: FastAPI, known: dict[str, Shape]) -> None:
    """Let the app's description have the bodies' schemas, and tokens as its security."""

    @cache
    def described() -> dict[str, Any]:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        components = document.setdefault("components", {})
        schemas = components.setdefault("schemas", {})
        for name, shape in known.items():
            schema = shape.described(_REF + "{model}")
            schemas |= schema.pop("$defs", {})
            schemas[name] = schema
        components["securitySchemes"] = {
            SCHEME: {"type": "http", "scheme": "bearer", "description": "`bnpl-shadow api token` makes one."}
        }
        for operations in document["paths"].values():
            for operation in operations.values():
                if "304" in operation["responses"]:
                    operation.setdefault("parameters", []).append(_IF_NONE_MATCH)
                for code, response in operation["responses"].items():
                    content = response.get("content", {})
                    if not code.startswith("2") and MEDIA_TYPE in content and "application/json" in content:
                        content[MEDIA_TYPE] = content.pop("application/json")
        return document

    app.openapi = described  # type: ignore[method-assign]


def show(app: FastAPI) -> None:
    """Add `/docs` with all that it loads, from this server alone."""

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        page = get_swagger_ui_html(
            openapi_url="openapi.json",
            title=TITLE,
            swagger_js_url="docs/swagger-ui-bundle.js",
            swagger_css_url="docs/swagger-ui.css",
            swagger_favicon_url="docs/favicon.png",
        )
        page.headers["Content-Security-Policy"] = _POLICY
        page.headers["X-Content-Type-Options"] = "nosniff"
        return page

    folder = files("fastapi_offline") / "static"
    held = {name: (folder / name).read_bytes() for name in _ASSETS}

    @app.get("/docs/{name}", include_in_schema=False)
    async def asset(name: str) -> Response:
        if name not in held:
            raise Refused(404, "not-found", "there is no such resource")
        headers = {"Cache-Control": "public, max-age=86400", "X-Content-Type-Options": "nosniff"}
        return Response(held[name], headers=headers, media_type=_ASSETS[name])
