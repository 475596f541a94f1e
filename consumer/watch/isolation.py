"""The proof that no model reaches a decision: the same events scored while models fail in every way they can.

What is compared are bytes: of everything that the shadow event says but the models' own words, and of the scores of the
models that were left in peace. The rules, features, models and events are the real ones; only the fault is put in.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from threadpoolctl import threadpool_limits

from consumer.contracts.events import EventReader, EventWriter
from consumer.contracts.registry import schema_registry
from consumer.contracts.schemas import WriterSchemas, latest
from consumer.contracts.transaction import FIELDS, Limits, refuse_impossible
from consumer.errors import Fatal
from consumer.scoring.artifacts import ModelEntry, ModelSet, Scores, estimator_scores
from consumer.scoring.breaker import SWITCHED_OFF, TOO_SLOW, Budget, Matrix
from consumer.scoring.controller import ShadowModeController
from consumer.scoring.load import load_controller
from consumer.scoring.predictor import BNPLMultiModelPredictor
from consumer.scoring.shadow_event import Pseudonyms, ShadowEvents, Source
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
    "slow": {TOO_SLOW, SWITCHED_OFF},  # last: from then on its model is switched off
}
"""What may be put into a model, and what its event then says."""

_OF_MODELS = ("models", "champion_score", "consensus")
"""The columns of a shadow event that a model has a say in."""
_SCORED_AT = datetime(1970, 1, 1, tzinfo=UTC)
"""One time for all, so that the same events have the same digest whenever it is proved."""


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
    """SHA-256 of all that the events say but the models' own words."""
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

    @property
    def isolated(self) -> bool:
        return not any(each.differences for each in self.variants)


def prove_isolation(settings: Settings, last: int, progress: Progress = lambda *_: None) -> Proof:
    """Prove on up to `last` of the newest records in the topic of transactions, and the configured rules and models.

    Raises ArtifactError, KafkaUnavailable, or Fatal when there is no event to prove it on.
    """
    events = newest_events(settings, last)
    controller = load_controller(settings)
    make = partial(ShadowModeController, controller.rules)
    return prove(events, controller.predictor.model_set, make, Budget.of(settings), progress)


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
    events: Events, model_set: ModelSet, make: Make, budget: Budget, progress: Progress = lambda *_: None
) -> Proof:
    """Score `events` with healthy models, with each one failing in each way, and with all failing at once.

    `make` puts rules and models together: it is what is on trial. Takes about one `budget` for each slow model.
    """
    with threadpool_limits(1, "blas"):  # as the service does
        variants = []
        total = len(FAULTS) * len(model_set.models) + 2
        for variant in _variants(events, model_set, make, budget):
            variants.append(variant)
            progress(len(variants), total)
    return Proof(events.transactions.num_rows, events.refused, variants)


def _variants(events: Events, model_set: ModelSet, make: Make, budget: Budget) -> Iterator[Variant]:
    healthy = _score(make(BNPLMultiModelPredictor(model_set, budget)), events)
    yield Variant("healthy", {}, healthy.decisions, healthy.errors, [])
    for entry in model_set.models:
        with _Stage(events, model_set, make, budget, {entry.name}) as stage:
            for fault in FAULTS:
                yield stage.play(f"{entry.name} {fault}", {entry.name: fault}, healthy)
    names = [entry.name for entry in model_set.models]
    with _Stage(events, model_set, make, budget, set(names)) as stage:
        in_turn = [*FAULTS] * len(names)
        yield stage.play("all failing", dict(zip(names, in_turn, strict=False)), healthy)


@dataclass(frozen=True)
class _Said:
    decisions: str
    scores: Mapping[str, Scores]
    errors: Mapping[str, list[str]]


def _score(controller: ShadowModeController, events: Events) -> _Said:
    """Score in two batches: the second one meets models that the first one found too slow."""
    event_schema = EventWriter("shadow_event", latest("shadow_event").header).arrow_schema
    builder = ShadowEvents(controller, event_schema, Pseudonyms(None))
    decisions = hashlib.sha256()
    parts: dict[str, list[Scores]] = defaultdict(list)
    errors: dict[str, list[str]] = defaultdict(list)
    for rows in _halves(events.transactions.num_rows):
        batch = events.transactions.slice(rows.start, rows.stop - rows.start)
        shadow = controller.score_batch(batch)
        source = Source(events.source.topic, events.source.partitions[rows], events.source.offsets[rows])
        told = builder.build(batch, shadow, source, _SCORED_AT)
        decisions.update(told.drop_columns(list(_OF_MODELS)).serialize())
        for entry, scores in zip(shadow.predictions.models, shadow.predictions.scores, strict=True):
            parts[entry.name].append(scores)
        for name, error in shadow.predictions.errors.items():
            errors[name] = sorted({*errors[name], error})
    return _Said(decisions.hexdigest(), {name: np.concatenate(each) for name, each in parts.items()}, dict(errors))


def _halves(count: int) -> list[slice]:
    half = -(-count // 2)
    return [each for each in (slice(0, half), slice(half, count)) if each.start < each.stop]


class _Stage:
    """The models, with those in `suspects` ready to fail. A context manager: at its end what is slow is let go.

    A linear model among them is taken out of the matrix product that it cannot fail in, so the scores of the others are
    compared with those beside the healthy suspects.
    """

    def __init__(self, events: Events, model_set: ModelSet, make: Make, budget: Budget, suspects: set[str]) -> None:
        self._events = events
        self._suspects = {entry.name: _Suspect(entry) for entry in model_set.models if entry.name in suspects}
        entries = tuple(
            replace(entry, estimator=self._suspects.get(entry.name, entry.estimator)) for entry in model_set.models
        )
        self._controller = make(BNPLMultiModelPredictor(replace(model_set, models=entries), budget))

    def __enter__(self) -> _Stage:
        self._before = _score(self._controller, self._events)
        return self

    def __exit__(self, *_: object) -> None:
        for suspect in self._suspects.values():
            suspect.let_go.set()

    def play(self, name: str, faults: Mapping[str, Fault], healthy: _Said) -> Variant:
        for suspect, fault in faults.items():
            self._suspects[suspect].fault = fault
        said = _score(self._controller, self._events)
        return Variant(name, faults, said.decisions, said.errors, list(self._differences(said, faults, healthy)))

    def _differences(self, said: _Said, faults: Mapping[str, Fault], healthy: _Said) -> Iterator[str]:
        if {said.decisions, self._before.decisions} != {healthy.decisions}:
            yield "the decisions are other ones"
        for model, scores in said.scores.items():
            told = ", ".join(said.errors.get(model, ["no error"]))
            if model not in faults and scores.tobytes() != self._before.scores[model].tobytes():
                yield f"{model} scores otherwise ({told})"
            if model in faults and not (np.isnan(scores).all() and set(said.errors[model]) <= FAULTS[faults[model]]):
                yield f"{model} did not fail as it was made to ({told}): this proves nothing"


class _Suspect:
    """A model's estimator that scores as before until a fault is put into it."""

    classes_ = np.array([0, 1])

    def __init__(self, entry: ModelEntry) -> None:
        self._entry = entry
        self.fault: Fault | None = None
        self.let_go = threading.Event()

    def predict_proba(self, matrix: Matrix) -> Any:
        if self.fault == "raising":
            raise RuntimeError
        if self.fault == "slow":
            self.let_go.wait()
        scores = np.full(len(matrix), np.nan) if self.fault == "NaN" else estimator_scores(self._entry, matrix)
        return np.column_stack((1 - scores, scores))
