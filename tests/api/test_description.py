"""The API's own description: schemathesis asks what it foresees and what it does not, and finds nothing."""

from __future__ import annotations

from contextlib import suppress

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
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
FEW = settings(
    max_examples=7,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)


def test_nothing_is_found(api: Api) -> None:
    described = schemathesis.openapi.from_dict(api.get("/openapi.json", None).json())
    headers = {"Authorization": f"Bearer {api.tokens['admin']}"}
    asked = 0

    def ask(case: Case) -> None:
        nonlocal asked
        asked += 1
        case.call_and_validate(base_url=api.url, headers=headers, checks=CHECKS, timeout=30)

    for found in described.get_all_operations():
        operation = found.ok()
        for mode in GenerationMode:
            with suppress(Unsatisfiable):  # what takes nothing cannot be given anything wrong
                FEW(given(case=operation.as_strategy(generation_mode=mode))(ask))()
    assert asked > 80
