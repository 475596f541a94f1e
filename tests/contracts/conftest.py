"""A real schema registry for the tests that need one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests
from apicurio_registry import VERSION, ApicurioRegistry, fetch_apicurio


@pytest.fixture(scope="session")
def apicurio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApicurioRegistry]:
    """A running registry that every test shares, each under subjects of its own."""
    try:
        fetch_apicurio()
    except (requests.RequestException, RuntimeError, OSError) as error:
        pytest.skip(f"Apicurio Registry {VERSION} could not be fetched from Maven Central ({type(error).__name__})")
    registry = ApicurioRegistry(tmp_path_factory.mktemp("registry"), 0, owned=True)
    registry.start()
    yield registry
    registry.stop()
