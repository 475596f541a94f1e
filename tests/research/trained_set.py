"""What the tests of this folder share: simulated batches and one small trained set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from consumer.research.dataset import Dataset
from consumer.research.production import Training, TrainingRequest
from consumer.research.simulate import SimulationConfig, simulate
from consumer.scoring.artifacts import ModelSet


@dataclass(frozen=True)
class Trained:
    """A set trained on 10,000 simulated events of 40 days, and all it came from."""

    events: Path
    dataset: Dataset
    request: TrainingRequest
    training: Training
    directory: Path
    model_set: ModelSet


def simulated(config: SimulationConfig) -> pa.RecordBatch:
    return pa.Table.from_batches(list(simulate(config))).combine_chunks().to_batches()[0]
