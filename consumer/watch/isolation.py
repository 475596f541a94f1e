"""The proof that no model reaches a decision: the same events scored while models fail in every way they can.

What is compared are bytes: of everything that the shadow event says but the models' own words, and of the scores of the
models that were left in peace. The rules, features, models and events are the real ones; only the fault is put in.

Where a promotion lets the champion decide, the decision that stands does depend on it. Then it is proved that the rules
decide the same all the same, that no other model reaches what stands, and that with a failing champion the rules' own
decision stands for every event.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import cycle
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from threadpoolctl import threadpool_limits

from consumer.contracts.events import EventReader, EventWriter
from consumer.contracts.registry import schema_registry
from consumer.contracts.schemas import WriterSchemas, latest
from consumer.contracts.transaction import FIELDS, Limits, refuse_impossible
from consumer.errors import Fatal
from consumer.scoring.activation import Activation, ruling
from consumer.scoring.artifacts import ModelEntry, ModelSet, Scores, estimator_scores
from consumer.scoring.breaker import SWITCHED_OFF, TOO_SLOW, Budget, Matrix
from consumer.scoring.controller import ShadowModeController
from consumer.scoring.load import load_controller
from consumer.scoring.predictor import BNPLMultiModelPredictor
from consumer.scoring.shadow_event import Pseudonyms, ShadowEvents, Source
from consumer.services import control
from consumer.services.loop import Batch
from consumer.settings import Settings
from consumer.watch.records import TopicReader

Make = Callable[[BNPLMultiModelPredictor], ShadowModeController]
Progress = Callable[[int, int], None]
"""Told how many variants are done, and of how many."""
Fault = Literal["raising", "NaN", "slow"]

FAULTS: Mapping[Fault, set[str]] = {
    "raising": {"RuntimeError"},
    "NaN": {"NotFinite"},
    "slow": {TOO_SLOW, SWITCHED_OFF},
}
"""What may be put into a model, and what its event then says."""

_OF_MODELS = ("models", "champion_score", "consensus")
"""The columns of a shadow event that a model has a say in."""
_OF_THE_CHAMPION = ("decision", "decided_by", "advisory")
"""Those that the champion has a say in where it decides."""
_SCORED_AT = datetime(1970, 1, 1, tzinfo=UTC)
"""One time for all, so that the same events have the same digest whenever it is proved."""
_PATIENT = Budget(600, 600)
"""Where nothing is made slow, a busy machine must not look like a slow model."""


@dataclass(frozen=True)
class Events:
    """Transactions that can be scored, where they were read, and how many of the newest records could not be used."""

    transactions: pa.RecordBatch
    source: Source
    refused: int = 0


@dataclass(frozen=True)
class Variant:
    """One way through the same events."""

    name: str
    faults: Mapping[str, Fault]
    """By model."""
    decisions: str
    """SHA-256 of all that the events say but the models' own words; where the champion decides, without what stands."""
    errors: Mapping[str, list[str]]
    """Why scores are missing, by model."""
    differences: list[str]
    """What is not as it was with healthy models. None may be."""


@dataclass(frozen=True)
class Proof:
    """`variants` begins with the healthy one, which the others are compared with."""

    events: int
    refused: int
    variants: list[Variant]
    activation: Activation
    """What ruled: the proof is of this mode."""

    @property
    def isolated(self) -> bool:
        return not any(each.differences for each in self.variants)


def prove_isolation(settings: Settings, last: int, progress: Progress = lambda *_: None) -> Proof:
    """Prove on up to `last` of the newest records in the topic of transactions, and the configured rules and models.

    Raises ArtifactError, KafkaUnavailable, or Fatal when there is no event to prove it on.
    """
    events = newest_events(settings, last)
    controller = load_controller(settings)
    model_set = controller.predictor.model_set
    activation = ruling(controller.at_rest, control.read(settings).log.history.values(), model_set)
    make = partial(ShadowModeController, controller.rules)
    return prove(events, model_set, make, Budget.of(settings), progress, activation)


def newest_events(settings: Settings, last: int) -> Events:
    """What can be used of up to `last` of the newest records, the same number of each partition."""
    topic = settings.topic_transactions
    with TopicReader(settings) as reader:
        reader.topics()  # a broker that is away is told as such
        messages = reader.newest(topic, -(-last // len(reader.held(topic))))[:last]
    if not messages:
        raise Fatal(f"{topic} is empty, and a proof needs events: send some by `bnpl-shadow produce`")
    registry = schema_registry(settings)
    try:
        decoded = EventReader(WriterSchemas("transaction", registry), FIELDS).read([each.value() for each in messages])
    finally:
        if registry is not None:
            registry.close()
    decoded = refuse_impossible(decoded, Limits.of(settings))
    if not decoded.batch.num_rows:
        reasons = "; ".join(reason for reason, _ in Counter(str(bad.reason) for bad in decoded.rejected).most_common(3))
        raise Fatal(
            f"none of the newest {len(messages)} records of {topic} can be used ({reasons}): raise --last, or see who "
            "sends them"
        )
    batch, rows = Batch.of(messages), decoded.positions
    source = Source(topic, batch.partitions[rows], batch.offsets[rows])
    return Events(decoded.batch, source, len(decoded.rejected))


def prove(
    events: Events,
    model_set: ModelSet,
    make: Make,
    budget: Budget,
    progress: Progress = lambda *_: None,
    activation: Activation | None = None,
) -> Proof:
    """Score `events` with healthy models, with each one failing in each way, and with all failing at once.

    `make` puts rules and models together: it is what is on trial. Takes about one `budget` for each slow model.
    `activation`: who decides; None is the set's own champion in shadow.
    """
    activation = activation or Activation(model_set.champion)
    names = [entry.name for entry in model_set.models]
    trials: dict[str, dict[str, Fault]] = {f"{name} {fault}": {name: fault} for name in names for fault in FAULTS}
    trials["all failing"] = dict(zip(names, cycle(FAULTS), strict=False))
    with threadpool_limits(1, "blas"):  # as the service does
        trial = _Trial(events, model_set, make, budget, activation)
        variants = [trial.healthy]
        for name, faults in trials.items():
            progress(len(variants), len(trials) + 1)
            variants.append(trial.of(name, faults))
    return Proof(events.transactions.num_rows, events.refused, variants, activation)


class _Trial:
    """Scores the same events by models that fail and by models that do not."""

    def __init__(self, events: Events, model_set: ModelSet, make: Make, budget: Budget, activation: Activation) -> None:
        self._events, self._model_set, self._make, self._budget = events, model_set, make, budget
        self._activation = activation
        said = self._score(model_set, budget)
        self.healthy = Variant("healthy", {}, said.decisions, said.errors, [])

    def of(self, name: str, faults: Mapping[str, Fault]) -> Variant:
        """A linear model that is to fail is taken out of the matrix product that it cannot fail in, so the others'
        scores are compared with those beside the same model, well.
        """
        models = self._model_set.models
        suspects = {each.name: _Suspect(each, faults[each.name]) for each in models if each.name in faults}
        entries = tuple(replace(each, estimator=suspects.get(each.name, each.estimator)) for each in models)
        suspected = replace(self._model_set, models=entries)
        before = self._score(suspected, _PATIENT)
        try:
            after = self._score(suspected, self._budget if "slow" in faults.values() else _PATIENT, suspects.values())
        finally:
            for suspect in suspects.values():
                suspect.let_go.set()
        differences = [*self._changes(faults, before, after), *_without_effect(faults, after)]
        return Variant(name, faults, after.decisions, after.errors, differences)

    def _score(self, model_set: ModelSet, budget: Budget, failing: Iterable[_Suspect] = ()) -> _Said:
        """`failing` do so once they are loaded: before, they would not have been let in."""
        controller = self._make(BNPLMultiModelPredictor(model_set, budget))
        for suspect in failing:
            suspect.fails = True
        return _score(controller, self._events, self._activation)

    def _changes(self, faults: Mapping[str, Fault], before: _Said, after: _Said) -> Iterator[str]:
        if {before.decisions, after.decisions} != {self.healthy.decisions}:
            yield "the decisions are other ones"
        yield from self._changes_of_what_stands(faults, before, after)
        for model, scores in after.scores.items():
            if model not in faults and scores.tobytes() != before.scores[model].tobytes():
                yield f"{model} scores otherwise ({after.told(model)})"

    def _changes_of_what_stands(self, faults: Mapping[str, Fault], before: _Said, after: _Said) -> Iterator[str]:
        if self._activation.champion in faults:
            if after.not_by_rules:
                yield f"{self._activation.champion} fails, and {after.not_by_rules} decisions are not the rules'"
        elif before.standing != after.standing:
            yield "a model that is not champion reaches what stands"


def _without_effect(faults: Mapping[str, Fault], after: _Said) -> Iterator[str]:
    """A proof by faults that did not happen is none. Where one model is slow the others may be found so as well."""
    for model, fault in faults.items():
        expected = FAULTS[fault] | (FAULTS["slow"] if "slow" in faults.values() else set())
        if not np.isnan(after.scores[model]).all() or not expected.issuperset(after.errors[model]):
            yield f"{model} did not fail as it was made to ({after.told(model)}): this proves nothing"


@dataclass(frozen=True)
class _Said:
    decisions: str
    scores: Mapping[str, Scores]
    errors: Mapping[str, list[str]]
    standing: str
    """SHA-256 of which decisions stand, and whose they are."""
    not_by_rules: int
    """Decisions that stand and are the champion's, or others than the rules'."""

    def told(self, model: str) -> str:
        return ", ".join(self.errors.get(model, ["no error"]))


def _score(controller: ShadowModeController, events: Events, activation: Activation) -> _Said:
    """Score in two batches: the second one meets models that the first one found too slow."""
    event_schema = EventWriter("shadow_event", latest("shadow_event").header).arrow_schema
    builder = ShadowEvents(controller, event_schema, Pseudonyms(None))
    decisions, standing, not_by_rules = hashlib.sha256(), hashlib.sha256(), 0
    hidden = _OF_MODELS if activation.mode == "shadow" else (*_OF_MODELS, *_OF_THE_CHAMPION)
    parts: dict[str, list[Scores]] = defaultdict(list)
    errors: dict[str, list[str]] = defaultdict(list)
    for rows in _halves(events.transactions.num_rows):
        batch = events.transactions.slice(rows.start, rows.stop - rows.start)
        shadow = controller.score_batch(batch, activation=activation)
        source = Source(events.source.topic, events.source.partitions[rows], events.source.offsets[rows])
        told = builder.build(batch, shadow, source, _SCORED_AT)
        decisions.update(told.drop_columns(list(hidden)).serialize())
        standing.update(told.select(list(_OF_THE_CHAMPION)).serialize())
        not_by_rules += _not_by_rules(told)
        for entry, scores in zip(shadow.predictions.models, shadow.predictions.scores, strict=True):
            parts[entry.name].append(scores)
        for name, error in shadow.predictions.errors.items():
            errors[name] = sorted({*errors[name], error})
    scores = {name: np.concatenate(each) for name, each in parts.items()}
    return _Said(decisions.hexdigest(), scores, dict(errors), standing.hexdigest(), not_by_rules)


def _not_by_rules(told: pa.RecordBatch) -> int:
    others = pc.not_equal(told.column("decision"), told.column("business_decision"))
    theirs = pc.equal(told.column("decided_by"), "champion")
    return int(pc.sum(pc.or_(others, theirs)).as_py() or 0)


def _halves(count: int) -> list[slice]:
    half = -(-count // 2)
    return [each for each in (slice(0, half), slice(half, count)) if each.start < each.stop]


class _Suspect:
    """A model's estimator that scores as ever until it is told to fail."""

    classes_ = np.array([0, 1])

    def __init__(self, entry: ModelEntry, fault: Fault) -> None:
        self._entry, self._fault = entry, fault
        self.fails = False
        self.let_go = threading.Event()

    def predict_proba(self, matrix: Matrix) -> Any:
        scores = estimator_scores(self._entry, matrix)
        if self.fails:
            match self._fault:
                case "raising":
                    raise RuntimeError
                case "NaN":
                    scores = np.full(len(matrix), np.nan)
                case "slow":
                    self.let_go.wait()
        return np.column_stack((1 - scores, scores))
