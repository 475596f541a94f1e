"""The API's own description: schemathesis asks what it foresees and what it does not, and finds nothing."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    missing_required_header,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from served import Api

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    missing_required_header,
    unsupported_method,
]


@pytest.fixture(scope="module")
def described(api: Api) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_dict(api.get("/openapi.json", None).json())


schema = schemathesis.pytest.from_fixture("described")


@schema.parametrize()
@settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None,
    phases=[Phase.explicit, Phase.generate],
)  # fmt: skip
def test_nothing_is_found(case: Case, api: Api) -> None:
    headers = {"Authorization": f"Bearer {api.tokens['admin']}"}
    case.call_and_validate(base_url=api.url, headers=headers, checks=CHECKS, timeout=30)
