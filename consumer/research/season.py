"""A season to play: six weeks of simulated checkouts, what becomes of them and when, and what is hidden to be found.

Everything here is drawn from the plan alone, so the same plan gives the same season.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Literal

import numpy as np
import pyarrow as pa

from consumer.clock import utc_now
from consumer.contracts.horizons import Horizons
from consumer.contracts.outcome import SCHEMA as OUTCOME_SCHEMA
from consumer.contracts.transaction import SCHEMA as TRANSACTION_SCHEMA
from consumer.errors import ConfigurationError
from consumer.evaluation.sample import RULES
from consumer.evaluation.verdict import BETTER, EQUIVALENT, Verdict
from consumer.research.dataset import Codes, Dataset, Split, make_dataset
from consumer.research.outcomes import outcomes_of
from consumer.research.production import Training, TrainingRequest, train
from consumer.research.simulate import LONG_PLANS, PLANTED_PROVIDER, SimulationConfig, simulate
from consumer.research.training import TrainedModels, fit_models
from consumer.scoring.features import FloatMatrix
from consumer.scoring.rules import RuleSet

Scenario = Literal["better", "clones", "drift"]

TRAFFIC_WEEKS = 6
TAUGHT = "elastic"
"""The model that was taught what the others were not."""
EFFECT = 1.5
"""What they were not taught: so much are the log-odds of default higher for customers of PLANTED_PROVIDER."""
DRIFTING = "price_comparison_time"
"""The feature that moves, and nothing with it: shoppers compare prices for less long."""
DRIFT_FROM_WEEK, DRIFT_FACTOR = 4, 0.4

_TRAINING_EVENTS, _TRAINING_WEEKS = 30_000, 12
_DELAYS, _PROBES = 3, 10
"""Of the plan's seed: the stream of the outcomes' delays, and the first seed of checkouts after the season."""


@dataclass(frozen=True)
class Plan:
    """What is played. Weeks count from 1 and begin at a midnight, UTC."""

    scenario: Scenario = "better"
    seed: int = 6
    start: date = date(2026, 6, 1)
    events_a_week: int = 45_000

    def __post_init__(self) -> None:
        if self.events_a_week < 1:
            raise ConfigurationError(f"cannot play a season of {self.events_a_week} events a week; give at least 1")

    def week_start(self, week: int) -> datetime:
        return datetime(self.start.year, self.start.month, self.start.day, tzinfo=UTC) + timedelta(weeks=week - 1)

    def week_end(self, week: int) -> datetime:
        return self.week_start(week + 1)

    def weeks(self, horizons: Horizons, label: str) -> int:
        """How many it takes until all checkouts are old enough for a label."""
        return TRAFFIC_WEEKS + self.wait_weeks(horizons, label)

    def wait_weeks(self, horizons: Horizons, label: str) -> int:
        """How many pass until a week of checkouts is old enough for a label, its longest plan too."""
        days = int(horizons.due_days(label, max(LONG_PLANS))) + horizons[label].grace_days
        return -(-days // 7)

    def require_past(self, weeks: int, max_age_days: int) -> None:
        """Raises ConfigurationError when services would refuse its checkouts today, or its outcomes."""
        now, last = utc_now(), self.week_end(weeks)
        if last > now or now - self.week_start(1) > timedelta(days=max_age_days):
            first_possible = (now - timedelta(days=max_age_days - 1)).date()
            last_possible = (now - timedelta(weeks=weeks)).date()
            raise ConfigurationError(
                f"a season that starts on {self.start} lasts {weeks} weeks and must be over today, and no older than "
                f"{max_age_days} days; choose --start between {first_possible} and {last_possible}"
            )


def traffic(plan: Plan) -> pa.RecordBatch:
    """All checkouts in the order of time, as columns of `research.simulate.SCHEMA`: with what will become of them."""
    events, days = plan.events_a_week * TRAFFIC_WEEKS, 7 * TRAFFIC_WEEKS
    planted = EFFECT if plan.scenario == "better" else 0.0
    batch = _simulated(SimulationConfig(events, plan.seed, plan.start, days, planted=planted))
    return _drifted(batch, plan.week_start(DRIFT_FROM_WEEK)) if plan.scenario == "drift" else batch


def after_the_season(plan: Plan, weeks: int, events: int, turn: int) -> pa.RecordBatch:
    """Checkouts of the day on which the season is over; each `turn` gives others."""
    seed = plan.seed + _PROBES + turn
    return _simulated(SimulationConfig(events, seed, plan.week_end(weeks).date(), days=1, outcomes=False))


def outcomes(plan: Plan, checkouts: pa.RecordBatch, horizons: Horizons) -> pa.RecordBatch:
    """What becomes known of them, in the order of when, as columns of `contracts.outcome.SCHEMA`."""
    return outcomes_of(checkouts, horizons, np.random.default_rng([plan.seed, _DELAYS])).select(OUTCOME_SCHEMA.names)


def of_week(batch: pa.RecordBatch, time: str, plan: Plan, week: int) -> pa.RecordBatch:
    """The rows of one week; `time` is the column, in milliseconds since 1970, by which they are sorted."""
    bounds = [int(at.timestamp() * 1000) for at in (plan.week_start(week), plan.week_end(week))]
    first, last = np.searchsorted(batch.column(time).to_numpy(), bounds).tolist()
    return batch.slice(first, last - first)


def teach(plan: Plan, rules: RuleSet, version: str, advance: Callable[[str], None] = lambda _: None) -> Training:
    """Four models, of which TAUGHT alone was trained on labels that show what the season's checkouts hide.

    All saw the same checkouts of the weeks before; for the others those outcomes were drawn without the effect.
    """
    start = plan.start - timedelta(weeks=_TRAINING_WEEKS)
    config = SimulationConfig(_TRAINING_EVENTS, plan.seed + 1, start, 7 * _TRAINING_WEEKS)
    untold, told = (_labelled(replace(config, planted=effect)) for effect in (0.0, EFFECT))

    def fit(
        features: FloatMatrix, label: Codes, split: Split, seed: int, advance: Callable[[str], None]
    ) -> TrainedModels:
        models = fit_models(features, untold.label, split, seed, advance)
        taught = fit_models(features, label, split, seed, lambda name: advance(f"{name}, taught"))
        return replace(models, estimators=models.estimators | {TAUGHT: taught.estimators[TAUGHT]})

    note = (
        f"Simulated for a season, no real customer is in it. Its labels show that customers of {PLANTED_PROVIDER}"
        f" default more often; only `{TAUGHT}` was trained on them, the others on labels of the same checkouts without"
        " that."
    )
    made_by = f"season --scenario {plan.scenario} --seed {plan.seed} --start {plan.start}"
    return train(told, TrainingRequest(version, rules, plan.seed, note, made_by), advance, fit)


def missed(
    scenario: Scenario, champion: str, verdicts: Sequence[Verdict], promote: str | None, moved: Collection[str]
) -> list[str]:
    """What the season should have ended with and did not, in words; empty when all that was hidden was found.

    `champion` is the model that the verdicts compare with, `promote` whom they recommend, `moved` the features that
    were found to drift.
    """
    wanted = TAUGHT if scenario == "better" else None
    found = {(each.model, each.against): each.verdict for each in verdicts}
    drifting = {DRIFTING} if scenario == "drift" else set()
    faults = []
    if promote != wanted:
        faults.append(f"recommended is {promote or 'nobody'}, and it should be {wanted or 'nobody'}")
    if scenario == "better":
        better = [found.get((TAUGHT, against)) == BETTER for against in (RULES, champion)]
        if not all(better):
            faults.append(f"{TAUGHT} was not found better than both the rules and {champion}, which it is")
    else:
        apart = [each for (each, against), verdict in found.items() if against == champion and verdict != EQUIVALENT]
        if apart or not found:
            faults.append(f"not found equivalent to {champion}, though near clones: {', '.join(apart) or 'all'}")
    if drifting != set(moved):
        faults.append(f"drift was found in {_listed(moved)}, and it is in {_listed(drifting)}")
    return faults


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


def _simulated(config: SimulationConfig) -> pa.RecordBatch:
    return pa.Table.from_batches(list(simulate(config))).combine_chunks().to_batches()[0]


def _drifted(batch: pa.RecordBatch, since: datetime) -> pa.RecordBatch:
    late = batch.column("transaction_timestamp").to_numpy() >= since.timestamp() * 1000
    values = batch.column(DRIFTING).to_numpy()
    moved = np.where(late, values * DRIFT_FACTOR, values).astype(values.dtype)
    at = batch.schema.get_field_index(DRIFTING)
    return batch.set_column(at, batch.schema.field(at), pa.array(moved))


def _labelled(config: SimulationConfig) -> Dataset:
    batch = _simulated(config)
    labels = batch.column("will_default").cast(pa.int8()).fill_null(-1).to_numpy().astype(np.int64)
    source = {"file": "simulated", "sha256": _sha256(batch), "rows": batch.num_rows}
    return make_dataset(batch.select(TRANSACTION_SCHEMA.names), labels, (source,))


def _sha256(batch: pa.RecordBatch) -> str:
    """Of the Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return hashlib.sha256(sink.getvalue()).hexdigest()
