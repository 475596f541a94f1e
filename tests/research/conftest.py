"""One small trained set, made once for every test of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from trained_set import Trained, simulated

from consumer.research.dataset import read_dataset
from consumer.research.production import TrainingRequest, train
from consumer.research.simulate import SimulationConfig, json_lines
from consumer.scoring.rules import RuleSet
from consumer.settings import PROJECT

RULES_FILE = PROJECT / "artifacts" / "rules" / "rules_v1.json"


@pytest.fixture(scope="session")
def events_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("events") / "events.jsonl"
    path.write_bytes(json_lines(simulated(SimulationConfig(events=10_000, seed=5, days=40))))
    return path


@pytest.fixture(scope="session")
def trained(events_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    dataset = read_dataset([events_file])
    request = TrainingRequest("t1", RuleSet.load(RULES_FILE), seed=3, data_note="Simulated for a test.")
    training = train(dataset, request)
    directory = tmp_path_factory.mktemp("artifacts") / "t1"
    return Trained(events_file, dataset, request, training, directory, training.write(directory))
