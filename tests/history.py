"""Simulated transactions, and their outcomes put into ClickHouse."""

from __future__ import annotations

from datetime import date

import numpy as np
import pyarrow as pa
from clickhouse_connect.driver.client import Client

from consumer.contracts.horizons import Horizons
from consumer.research.outcomes import outcomes_of
from consumer.research.simulate import SimulationConfig, simulate
from consumer.services.rows import OUTCOMES
from consumer.system.bench.history import store

BEGAN = date(2026, 6, 1)


def transactions(count: int, days: int, seed: int = 5, began: date = BEGAN) -> pa.RecordBatch:
    """Simulated ones with what became of them, columns of `research.simulate.SCHEMA`."""
    batches = list(simulate(SimulationConfig(count, seed, began, days)))
    return pa.Table.from_batches(batches).combine_chunks().to_batches()[0]


def store_outcomes(client: Client, batch: pa.RecordBatch, horizons: Horizons, seed: int = 9) -> pa.RecordBatch:
    """Insert the outcomes of all label horizons; gives them."""
    outcomes = outcomes_of(batch, horizons, np.random.default_rng(seed))
    store(client, OUTCOMES, outcomes)
    return outcomes
