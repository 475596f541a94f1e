"""Simulated weeks counted into the bins of the shipped export, or of one that says less."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from consumer.evaluation.drift.counting import BinCounter, Tally
from consumer.evaluation.drift.judge import Seen
from consumer.evaluation.drift.reference import STATS_FILE, Reference, read_reference
from consumer.research.simulate import SimulationConfig, simulate
from consumer.scoring.features import FEATURE_NAMES, FeatureEngineer
from consumer.scoring.manifest import read_proven
from consumer.settings import PROJECT

SHIPPED = PROJECT / "artifacts" / "v1"
ENGINEER = FeatureEngineer()
Change = Callable[[pa.RecordBatch], pa.RecordBatch]


def shipped() -> Reference:
    _, digest, files = read_proven(SHIPPED)
    return read_reference(SHIPPED, digest, files, FEATURE_NAMES, "2")


def told(statistics: dict[str, Any], **files: Any) -> Reference:
    """A reference read from these statistics."""
    given = {STATS_FILE: orjson.dumps(statistics), **{name: orjson.dumps(each) for name, each in files.items()}}
    return read_reference(SHIPPED, "0" * 64, given, FEATURE_NAMES, "2")


def adopted() -> Reference:
    """What an export made elsewhere tells of the same training: no bins."""
    statistics = orjson.loads((SHIPPED / STATS_FILE).read_bytes())
    kept = ("mean", "std", "min", "max")
    features = {name: {key: each[key] for key in kept} for name, each in statistics["features"].items()}
    return told({"features": features})


def week(seed: int, start: date = date(2026, 6, 1), rows: int = 20_000, customers: int | None = None) -> pa.RecordBatch:
    """Seven simulated days."""
    (batch,) = simulate(SimulationConfig(rows, seed, start, 7, customers, outcomes=False))
    return batch


def replaced(batch: pa.RecordBatch, name: str, values: Any) -> pa.RecordBatch:
    at = batch.schema.get_field_index(name)
    return batch.set_column(at, batch.schema.field(at), pa.array(values, batch.schema.field(at).type))


def tally(counter: BinCounter, batch: pa.RecordBatch) -> Tally:
    matrix = ENGINEER.engineer(batch).matrix
    (counted,) = counter.count(batch, matrix, np.zeros(batch.num_rows, np.int64), 1)
    return counted


def seen(reference: Reference, batch: pa.RecordBatch) -> dict[str, Seen]:
    counter = BinCounter(reference, FEATURE_NAMES)
    return dict(by_feature(counter, tally(counter, batch)))


def by_feature(counter: BinCounter, counted: Tally) -> Iterator[tuple[str, Seen]]:
    for row, (feature, cells) in enumerate(counter.cells_of()):
        yield feature.name, Seen(counted.cells[cells], counted.sums[row], counted.squares[row])
