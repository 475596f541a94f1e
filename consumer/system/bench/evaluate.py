"""The evaluation: `bnpl-shadow evaluate` over matured transactions in ClickHouse, and over a tenth of them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow.compute as pc
from pydantic import SecretStr

from consumer.contracts.horizons import Horizons
from consumer.errors import Fatal
from consumer.evaluation.policy import load_policy
from consumer.research.outcomes import outcomes_of
from consumer.research.simulate import SimulationConfig, simulate
from consumer.scoring.load import load_controller
from consumer.services import clickhouse, migrate
from consumer.services.rows import OUTCOMES
from consumer.settings import Settings
from consumer.system.bench.history import store, store_scores
from consumer.system.bench.load import Say
from consumer.system.supervisor import environment

_BEGAN = datetime(2026, 6, 1, tzinfo=UTC)
_DAYS = 42
_MATURE = _BEGAN + timedelta(days=_DAYS + 60)


@dataclass(frozen=True)
class EvaluateFigures:
    """Of one run of the command; `tenth_seconds` of one over a tenth of the rows. Its start-up is in both."""

    rows: int
    seconds: float
    rss_mb: float
    tenth_seconds: float


def bench_evaluate(settings: Settings, rows: int, say: Say) -> EvaluateFigures:
    """Fill a database with `rows` transactions of six weeks, four models and their outcomes, and evaluate them."""
    tenth, _ = _measured(_filled(settings, "evaluate_tenth", rows // 10, say))
    seconds, rss_mb = _measured(_filled(settings, "evaluate_whole", rows, say))
    return EvaluateFigures(rows, seconds, rss_mb, tenth)


def _filled(settings: Settings, database: str, rows: int, say: Say) -> Settings:
    """Settings of a database of its own that holds them."""
    with clickhouse.connect(settings) as client:
        client.command(f"CREATE DATABASE {database}")
    address = SecretStr(f"{clickhouse.address_of(settings)}/{database}")
    own = settings.model_copy(update={"clickhouse_url": address})
    controller, horizons = load_controller(own), Horizons.load(own.horizons_file)
    label = load_policy(own.policy_file)[0].label_horizon
    rng, stored = np.random.default_rng(0), 0
    with clickhouse.connect(own) as client:
        migrate.migrate(client, own.migrations_dir)
        for batch in simulate(SimulationConfig(rows, start=_BEGAN.date(), days=_DAYS)):
            store_scores(client, own, controller, batch, stored)
            outcomes = outcomes_of(batch, horizons, rng)
            store(client, OUTCOMES, outcomes.filter(pc.equal(outcomes.column("label"), label)), stored)
            stored += batch.num_rows
    say(f"evaluate: {stored:,} scored transactions and their outcomes are stored")
    return own


def _measured(settings: Settings) -> tuple[float, float]:
    """Seconds that the command takes, and its largest memory in MB. Raises Fatal with its message when it fails."""
    command = [sys.executable, "-m", "consumer", "evaluate", "--as-of", _MATURE.isoformat()]
    given = {**os.environ, **environment(settings)}
    began = time.monotonic()
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=given)
    _, status, used = os.wait4(running.pid, 0)
    running.returncode = os.waitstatus_to_exitcode(status)
    if running.returncode:
        raise Fatal(f"evaluate ended with code {running.returncode}; what it said stands above")
    return time.monotonic() - began, used.ru_maxrss / 1024
