"""What the services count of each batch, by columns: `consumer/metrics.py` says what each number means."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from consumer.contracts.avro import Decoded, Rejected
from consumer.contracts.events import LABEL_FIELDS
from consumer.errors import BnplError
from consumer.logs import get_logger
from consumer.metrics import Metrics, total
from consumer.services.feed import Lot
from consumer.services.loop import Batch
from consumer.services.rows import SCORES
from consumer.services.tally import Tally
from consumer.settings import Settings

if TYPE_CHECKING:  # the sink imports this module, and has no use for the two seconds and the memory of scikit-learn
    from consumer.scoring.activation import Activation, Standing
    from consumer.scoring.controller import Shadow, ShadowModeController
    from consumer.scoring.predictor import Predictions


class ScoreObserver:
    """Counts what the score service does. `publishing` runs in the committing thread, the rest in the loop's."""

    def __init__(self, metrics: Metrics, settings: Settings, controller: ShadowModeController) -> None:
        self._metrics = metrics
        self._settings = settings
        self._rule_set = controller.rules.version
        self._predictor = controller.predictor
        self._switched_off: frozenset[str] = frozenset()
        self._labels: Counter[str] = Counter()
        topic, published = settings.topic_shadow_scores, metrics.published
        self._log = get_logger("consumer.services.score")
        self.tally = Tally(
            self._log,
            "scored",
            {
                "records": lambda: total(metrics.records),
                "scored": lambda: total(published, result="ok"),
                "dead_letters": lambda: total(metrics.dead_letters),
            },
        )
        for result in ("ok", "failed"):
            published.labels(topic, result)
        for field in LABEL_FIELDS:  # this and the ages: so that the first one is seen to rise
            metrics.label_leaks.labels(field)
        metrics.event_age.observe("published", np.empty(0))
        for entry in controller.predictor.model_set.models:
            metrics.switched_off.labels(entry.name).set(0)

    def ruled(self, activation: Activation) -> None:
        """Who decides from the next batch on."""
        metrics, model_set = self._metrics, self._predictor.model_set
        metrics.control_info.clear()
        metrics.control_info.labels(activation.champion, activation.mode).set(1)
        metrics.control_revision.set(activation.revision)
        metrics.champion_share.set(activation.percent)
        metrics.model_info.clear()
        for entry in model_set.led_by[activation.champion]:
            metrics.model_info.labels(entry.name, entry.version, entry.role, entry.score_kind, model_set.digest).set(1)
        self._log.info(
            "who decides",
            mode=activation.mode,
            champion=activation.champion,
            percent=activation.percent,
            revision=activation.revision,
        )

    def read(self, batch: Batch, decoded: Decoded, labels_stripped: Mapping[str, int]) -> None:
        """One batch as it came in; `labels_stripped` are totals since the start."""
        topic = self._settings.topic_transactions
        self._metrics.records.labels(self._metrics.lane, topic).inc(len(batch.messages))
        _count_rejected(self._metrics, topic, decoded.rejected)
        if labels_stripped:
            for field, count in labels_stripped.items():
                self._metrics.label_leaks.labels(field).inc(count - self._labels[field])
            self._labels = Counter(labels_stripped)
            self.tally.named["labels_stripped"] = self._labels

    def scored(self, shadow: Shadow) -> None:
        """What rules and models said of it."""
        metrics, decisions = self._metrics, shadow.decisions
        metrics.batch_rows.observe(len(decisions.decision))
        ruled = dict(_counts(decisions.decision))
        for decision, count in ruled.items():
            metrics.decisions.labels(decision, self._rule_set).inc(count)
        for decision, decided_by, count in _standing(shadow.standing, ruled):
            metrics.standing.labels(decision, decided_by).inc(count)
        for reason, count in _counts(decisions.reason_codes.flatten()):
            metrics.reasons.labels(reason).inc(count)
        for (feature, value), count in shadow.features.unknown.items():
            metrics.unknown.labels(feature).inc(count)
            self.tally.add_named("unknown_categories", f"{feature}={value}", count)
        self._models(shadow.predictions, pc.equal(decisions.risk_flag, "high").to_numpy(zero_copy_only=False))
        self._breakers()
        self.tally.tell()

    def _models(self, predictions: Predictions, flagged_by_rules: npt.NDArray[np.bool_]) -> None:
        metrics = self._metrics
        for entry, scores in zip(predictions.models, predictions.scores, strict=True):
            metrics.scores.observe(entry.name, scores)
            if entry.name in predictions.errors:
                missing = int(np.isnan(scores).sum())
                metrics.model_errors.labels(entry.name, predictions.errors[entry.name]).inc(missing)
                self.tally.add_named("model_errors", entry.name, 1)
            if entry.flag_threshold is not None:
                flags = scores >= entry.flag_threshold
                agreeing = int((flags == flagged_by_rules).sum())
                metrics.flagged.labels(entry.name).inc(int(flags.sum()))
                metrics.agreement.labels(entry.name, "yes").inc(agreeing)
                metrics.agreement.labels(entry.name, "no").inc(len(flags) - agreeing)

    def _breakers(self) -> None:
        """Models that were switched off or came back with this batch: told once."""
        before, now = self._switched_off, self._predictor.switched_off
        if before == now:
            return
        for model in sorted(before ^ now):
            self._metrics.switched_off.labels(model).set(model in now)
            if model in now:
                self._log.error(
                    "model switched off",
                    model=model,
                    budget_ms=self._settings.model_budget_ms,
                    tried_again_after_seconds=self._settings.model_off_seconds,
                )
            else:
                self._log.warning("model back", model=model)
        self._switched_off = now

    @contextmanager
    def publishing(self, event_times: pa.Array) -> Iterator[None]:
        """Around the commit of a batch whose checkouts happened at `event_times` (int64 ms since 1970)."""
        metrics, count = self._metrics, len(event_times)
        ok = False
        try:
            with metrics.publish_seconds.time():
                yield
            ok = True
            _observe_age(metrics, "published", event_times)
        finally:
            metrics.published.labels(self._settings.topic_shadow_scores, "ok" if ok else "failed").inc(count)
            metrics.commits.labels(self._settings.score_group, "ok" if ok else "failed").inc()


class SinkObserver:
    """Counts what the sink does. `inserting` runs in the inserting thread, the rest in the loop's."""

    def __init__(self, metrics: Metrics, tables: Sequence[str]) -> None:
        self._metrics = metrics
        self.tally = Tally(
            get_logger("consumer.services.sink"),
            "stored",
            {
                "records": lambda: total(metrics.records),
                "stored": lambda: total(metrics.rows, result="ok"),
                "dead_letters": lambda: total(metrics.dead_letters),
            },
        )
        for table in tables:
            for result in ("ok", "failed"):
                metrics.rows.labels(table, result)
            metrics.buffered.labels(table).set(0)

    def read(self, lot: Lot) -> None:
        """One batch of one feed as it came in."""
        topic = lot.feed.topic
        self._metrics.records.labels(self._metrics.lane, topic).inc(len(lot.batch.messages))
        _count_rejected(self._metrics, topic, lot.decoded.rejected)
        self.tally.tell()

    @contextmanager
    def inserting(self, lot: Lot) -> Iterator[None]:
        """Around the insert of its rows."""
        metrics, table, count = self._metrics, lot.feed.table.name, lot.rows.num_rows
        metrics.insert_rows.labels(table).observe(count)
        metrics.buffered.labels(table).inc(count)
        try:
            with metrics.insert_seconds.labels(table).time():
                yield
        except BnplError as error:
            metrics.rows.labels(table, "failed").inc(count)
            metrics.retries.labels(table, type(error).__name__).inc()
            raise
        finally:
            metrics.buffered.labels(table).dec(count)
        metrics.rows.labels(table, "ok").inc(count)
        metrics.last_insert.labels(table).set_to_current_time()
        if lot.feed.table is SCORES:  # an outcome is weeks younger than its checkout by its nature
            _observe_age(metrics, "stored", lot.decoded.batch.column("event_time"))


def _count_rejected(metrics: Metrics, topic: str, rejected: Sequence[Rejected]) -> None:
    for (stage, error), count in Counter((bad.stage, bad.reason.error) for bad in rejected).items():
        metrics.dead_letters.labels(topic, stage, error).inc(count)


def _observe_age(metrics: Metrics, point: str, event_times: pa.Array) -> None:
    ages = time.time() - event_times.to_numpy() / 1000
    metrics.event_age.observe(point, np.maximum(ages, 0))


def _standing(standing: Standing, ruled: Mapping[str, int]) -> Iterator[tuple[str, str, int]]:
    """Decisions that stand by who made them; `ruled` are those of the rules, which in shadow all stand."""
    if standing.mode == "shadow":
        yield from ((decision, "rules", count) for decision, count in ruled.items())
        return
    table = pa.table({"decision": standing.decision, "decided_by": standing.decided_by})
    counted = table.group_by(["decision", "decided_by"], use_threads=False).aggregate([([], "count_all")])
    for entry in counted.to_pylist():
        yield entry["decision"], entry["decided_by"], entry["count_all"]


def _counts(values: pa.Array) -> Iterator[tuple[str, int]]:
    for entry in pc.value_counts(values).to_pylist():
        yield entry["values"], entry["counts"]
