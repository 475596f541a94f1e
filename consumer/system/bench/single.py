"""One transaction at a time: ours as a batch of one, and the way a notebook does it, in the same process.

The notebook's way is a pandas row, the fitted preprocessor, and `predict_proba` once a model.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import cycle, islice
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from consumer.clock import utc_now
from consumer.research.simulate import SimulationConfig, rows, simulate
from consumer.scoring.features import FeatureEngineer
from consumer.scoring.load import load_controller
from consumer.settings import Settings
from consumer.system.bench.load import Say

_WARM_UP = 200
_DISTINCT_EVENTS = 1000


@dataclass(frozen=True)
class SingleFigures:
    """Microseconds of one `predict_single_transaction`: a dict in, all scores out."""

    calls: int
    median: float
    p99: float


@dataclass(frozen=True)
class NaiveFigures:
    """Transactions a second in the notebook's way."""

    calls: int
    events_per_s: float


def bench_single(settings: Settings, calls: int, say: Say) -> SingleFigures:
    predictor = load_controller(settings).predictor
    taken = _timed(predictor.predict_single_transaction, calls)
    figures = SingleFigures(calls, *(1e6 * np.percentile(taken, [50, 99])).tolist())
    say(f"single: {figures.median:.0f} µs median, {figures.p99:.0f} µs p99 of {calls:,} calls")
    return figures


def bench_naive(settings: Settings, calls: int, say: Say) -> NaiveFigures:
    model_set = load_controller(settings).predictor.model_set
    engineer = FeatureEngineer(model_set.feature_names, model_set.feature_spec_version)

    def by_notebook(transaction: Mapping[str, Any]) -> dict[str, float]:
        row = engineer.engineer_single_transaction(transaction)
        prepared = model_set.preprocessor.transform(row)
        return {entry.name: entry.estimator.predict_proba(prepared)[0, 1] for entry in model_set.models}

    taken = _timed(by_notebook, calls)
    figures = NaiveFigures(calls, 1 / float(np.mean(taken)))
    say(f"naive: {figures.events_per_s:,.0f} events/s, one transaction after the other")
    return figures


def _timed(call: Callable[[Mapping[str, Any]], object], calls: int) -> list[float]:
    """Seconds of each of `calls` calls, after some that warm up."""
    start = (utc_now() - timedelta(days=9)).date()
    (batch,) = simulate(SimulationConfig(_DISTINCT_EVENTS, start=start, days=8, outcomes=False))
    events = list(rows(batch))
    taken = []
    with warnings.catch_warnings(), threadpool_limits(1, "blas"):
        warnings.simplefilter("ignore")  # the notebook's way hands over arrays without names
        for number, event in enumerate(islice(cycle(events), calls + _WARM_UP)):
            began = time.perf_counter()
            call(event)
            if number >= _WARM_UP:
                taken.append(time.perf_counter() - began)
    return taken
