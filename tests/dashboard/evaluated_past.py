"""Weeks of scored checkouts with outcomes and a stored evaluation: what the dashboard's pages are of."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from clickhouse_connect.driver.client import Client
from history import BEGAN, store_outcomes, transactions

from consumer.champion.evaluate import Evaluated, evaluate_scope, read_terms
from consumer.champion.evaluations import Listed
from consumer.champion.scope import Scope
from consumer.contracts.horizons import Horizons
from consumer.scoring.controller import ShadowModeController
from consumer.settings import Settings
from consumer.system.bench.history import store_scores

COUNT, DAYS = 16_000, 42
FIRST = datetime.combine(BEGAN, datetime.min.time(), UTC)
MATURE = FIRST + timedelta(days=DAYS + 28 + 7 + 10)
"""When six weeks are old enough for label d28, and their last outcomes have come."""


@dataclass(frozen=True)
class Past:
    settings: Settings
    client: Client
    told: dict[str, Any]
    """The evaluation as `evaluate --json` prints it, and as it was stored."""
    listed: Listed


def evaluated(settings: Settings, as_of: datetime = MATURE) -> Evaluated:
    """As `bnpl-shadow evaluate` does it."""
    return evaluate_scope(settings, Scope(as_of, "v1"), read_terms(settings, "v1"))


def fill(client: Client, settings: Settings, controller: ShadowModeController, count: int, seed: int) -> None:
    """Store so many scored checkouts, and what became of them."""
    events = transactions(count, DAYS, seed)
    store_scores(client, settings, controller, events)
    store_outcomes(client, events, Horizons.load(settings.horizons_file))
