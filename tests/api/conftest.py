"""One API on one history for all tests of it: six weeks of 2026, and some hundred transactions that services scored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import fresh_settings, outcome, running, send_events, send_outcomes, simulated, wait_stored
from history import store_outcomes, transactions
from served import DAYS, HISTORY, RECENT, Api, serving, token_file

from consumer.contracts.horizons import Horizons
from consumer.scoring.controller import ShadowModeController
from consumer.services import clickhouse
from consumer.services.score import ScoreService
from consumer.services.sink import SinkService
from consumer.settings import Settings
from consumer.stack.local import LocalStack
from consumer.system.bench.history import store_scores


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the file of tokens is."""
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="session")
def tokens(folder: Path) -> dict[str, str]:
    """A token for each scope, under its name."""
    return token_file(folder / "tokens.json")


@pytest.fixture(scope="session")
def history(
    stack: LocalStack, controller: ShadowModeController, folder: Path, tokens: dict[str, str]
) -> Iterator[Settings]:
    """Settings of a stack that holds transactions of six weeks with their outcomes, and recent ones by the services."""
    assert tokens
    given = {"api_tokens_file": folder / "tokens.json", "api_rate_limit": "1000000/second"}
    with fresh_settings(stack, folder / "state", **given) as settings:
        events = transactions(HISTORY, DAYS)
        with clickhouse.connect(settings) as client:
            store_scores(client, settings, controller, events)
            store_outcomes(client, events, Horizons.load(settings.horizons_file))
        recent = simulated(RECENT)
        with running(ScoreService(settings, controller)), running(SinkService(settings)):
            send_events(settings, recent)
            send_outcomes(settings, [outcome(each["transaction_id"]) for each in recent[:100]])
            wait_stored(settings, HISTORY + RECENT)
        yield settings


@pytest.fixture(scope="session")
def api(history: Settings, tokens: dict[str, str]) -> Iterator[Api]:
    """An API on that history, which asks for tokens."""
    with serving(history, tokens) as running_api:
        yield running_api
