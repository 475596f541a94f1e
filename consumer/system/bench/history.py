"""Weeks of scored transactions and their outcomes, put into ClickHouse as the sink would have."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from clickhouse_connect.driver.client import Client

from consumer.clock import utc_now
from consumer.contracts.avro import Decoded
from consumer.contracts.events import EventWriter
from consumer.contracts.schemas import latest
from consumer.contracts.transaction import SCHEMA
from consumer.scoring.controller import ShadowModeController
from consumer.scoring.shadow_event import Pseudonyms, ShadowEvents, Source
from consumer.services.clickhouse import errors_named
from consumer.services.rows import SCORES, Table
from consumer.settings import Settings


def store_scores(
    client: Client, settings: Settings, controller: ShadowModeController, batch: pa.RecordBatch, first_offset: int = 0
) -> None:
    """Score simulated transactions and insert their rows."""
    schema = EventWriter("shadow_event", latest("shadow_event").header).arrow_schema
    known, n = batch.select(SCHEMA.names), batch.num_rows
    source = Source(settings.topic_transactions, np.zeros(n, np.int64), np.arange(first_offset, first_offset + n))
    events = ShadowEvents(controller, schema, Pseudonyms("key"))
    store(client, SCORES, events.build(known, controller.score_batch(known), source, utc_now()), first_offset)


def store(client: Client, table: Table, batch: pa.RecordBatch, first_offset: int = 0) -> None:
    """Insert events as rows of partition 0 of their topic, from an offset on."""
    n = batch.num_rows
    rows = table.rows(Decoded(batch, np.arange(n)), np.zeros(n, np.int64), np.arange(first_offset, first_offset + n))
    with errors_named():
        for block in table.blocks(rows):
            client.insert_arrow(table.name, block)
