"""Weeks of scored transactions and their outcomes, put into ClickHouse as the sink would have."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
from clickhouse_connect.driver.client import Client

from consumer.contracts.avro import Decoded
from consumer.contracts.events import EventWriter
from consumer.contracts.horizons import Horizons
from consumer.contracts.schemas import latest
from consumer.contracts.transaction import SCHEMA
from consumer.research.outcomes import outcomes_of
from consumer.research.simulate import SimulationConfig, simulate
from consumer.scoring.controller import ShadowModeController
from consumer.scoring.shadow_event import Pseudonyms, ShadowEvents, Source
from consumer.services.rows import OUTCOMES, SCORES, Table
from consumer.settings import Settings

BEGAN = date(2026, 6, 1)


def transactions(count: int, days: int, seed: int = 5) -> pa.RecordBatch:
    """Simulated ones with what became of them, columns of `research.simulate.SCHEMA`."""
    batches = list(simulate(SimulationConfig(count, seed, BEGAN, days)))
    return pa.Table.from_batches(batches).combine_chunks().to_batches()[0]


def store_scores(
    client: Client, settings: Settings, controller: ShadowModeController, batch: pa.RecordBatch, first_offset: int = 0
) -> None:
    """Score them and insert the rows."""
    events = ShadowEvents(
        controller, EventWriter("shadow_event", latest("shadow_event").header).arrow_schema, Pseudonyms("key")
    )
    known = batch.select(SCHEMA.names)
    n = known.num_rows
    source = Source(settings.topic_transactions, np.zeros(n, np.int64), np.arange(n))
    store(client, SCORES, events.build(known, controller.score_batch(known), source, datetime.now(UTC)), first_offset)


def store_outcomes(client: Client, batch: pa.RecordBatch, horizons: Horizons, seed: int = 9) -> pa.RecordBatch:
    """Insert the outcomes of all label horizons; gives them."""
    outcomes = outcomes_of(batch, horizons, np.random.default_rng(seed))
    store(client, OUTCOMES, outcomes)
    return outcomes


def store(client: Client, table: Table, batch: pa.RecordBatch, first_offset: int = 0) -> None:
    n = batch.num_rows
    rows = table.rows(Decoded(batch, np.arange(n)), np.zeros(n, np.int64), np.arange(first_offset, first_offset + n))
    for block in table.blocks(rows):
        client.insert_arrow(table.name, block)
