"""Every metric that the services export, in one closed list: `docs/metrics.md` repeats it, `/metrics` is held to it.

Base units; a label holds a name from a closed set, never an id. `lane` is what a process does: `shadow` scores,
`sink` stores, `reconcile` proves, `drift` compares with training, `evaluate` with outcomes, `api` answers. Each exports
the whole list; what a lane has no use for stays empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for every counter, which nobody reads

Lane = Literal["shadow", "sink", "reconcile", "drift", "evaluate", "api"]
Labels = tuple[str, ...]

STAGES = (
    "idle",  # waited for records, and none came
    "poll",  # waited for records and read them
    "decode",  # bytes to columns, and what may be let in
    "rules",
    "features",
    "predict",
    "encode",  # columns to shadow events
    "commit",  # waited for the previous batch's commit, or insert
    "produce",  # handed events and dead letters to the client
    "observe",  # counted all of this
    "retry",  # waited for an outside part to come back
)
_AGES = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_SCORES = (0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1)
_ROWS = (1, 10, 100, 300, 1000, 3000, 10_000, 30_000)
_REQUEST_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20)
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The metrics of one process, in a registry of their own. An attribute is a metric of the same name."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)

        # consumer
        self.records = self._counter("bnpl_consumer_records_total", "Records read, good and bad.", "lane", "topic")
        self.assigned = self._gauge("bnpl_consumer_assigned_partitions", "Partitions of this member.", "group", "topic")
        self.rebalances = self._counter(
            "bnpl_consumer_rebalances_total", "Rebalance callbacks: assign, revoke or lost.", "group", "kind"
        )
        self.commits = self._counter("bnpl_consumer_commits_total", "Offset commits: ok or failed.", "group", "result")
        self.lost_records = self._counter(
            "bnpl_records_lost_to_retention_total",
            "Offsets that retention deleted before the group read them.",
            "group",
            "topic",
        )
        self.last_poll = self._gauge(
            "bnpl_consumer_last_poll_timestamp_seconds", "When the loop last asked for records.", "lane"
        )
        self.lag = Snapshot(
            {
                "bnpl_consumer_lag_messages": (
                    "Offsets between what the group committed and the partition's end. Every member shows all "
                    "partitions of its group: take max by (group, topic, partition).",
                    _PARTITION,
                ),
                "bnpl_consumer_lag_seconds": (
                    "Age of the oldest record that is not committed; 0 for none.",
                    _PARTITION,
                ),
                "bnpl_consumer_partition_status": ("0 OK, 1 WARN, 2 STOP, 3 STALL, 4 REWIND, 5 EXPIRED.", _PARTITION),
                "bnpl_consumer_drain_eta_seconds": (
                    "Seconds until the group has caught up at its rate; +Inf while it does not catch up.",
                    ("group", "topic"),
                ),
                "bnpl_topic_partitions": ("Partitions of a topic that this service reads.", ("topic",)),
            }
        )
        self.registry.register(self.lag)

        # stages
        self.stage_seconds = self._counter(
            "bnpl_stage_seconds_total", f"Time of the loop by stage: {', '.join(STAGES)}.", "lane", "stage"
        )

        # decide and score
        self.decisions = self._counter("bnpl_decisions_total", "Decisions by the rules.", "decision", "rule_set")
        self.reasons = self._counter("bnpl_decision_reasons_total", "Reason codes of decisions.", "reason")
        self.batch_rows = self._histogram("bnpl_predict_batch_rows", "Transactions scored at once.", _ROWS)
        self.scores = self._columns("bnpl_model_score", "Scores by model.", _SCORES, "model")
        self.flagged = self._counter("bnpl_model_flagged_total", "Scores at or above a model's flag.", "model")
        self.agreement = self._counter(
            "bnpl_model_rules_agreement_total", "Whether model and rules both flag, or both do not.", "model", "agree"
        )
        self.model_errors = self._counter("bnpl_model_errors_total", "Scores not made, by reason.", "model", "error")
        self.switched_off = self._gauge(
            "bnpl_model_switched_off", "1 while a model is left out because a call took too long.", "model"
        )
        self.model_info = self._gauge(
            "bnpl_model_info",
            "1 for each loaded model; sha256 is that of its set's manifest.",
            "model",
            "version",
            "role",
            "score_kind",
            "sha256",
        )
        # who decides
        self.control_info = self._gauge(
            "bnpl_control_info", "1 for the champion and the mode that rule this process.", "champion", "mode"
        )
        self.control_revision = self._gauge(
            "bnpl_control_revision", "Revision of the control record that rules this process; 0 for none."
        )
        self.champion_share = self._gauge(
            "bnpl_champion_decides_percent",
            "Share of customers that the champion decides: 0 in shadow.",
        )
        self.standing = self._counter(
            "bnpl_standing_decisions_total",
            "Decisions that stand, by who made them: rules, champion or fallback.",
            "decision",
            "decided_by",
        )
        self.control_skipped = self._counter(
            "bnpl_control_skipped_total",
            "Control records passed over: rubbish, by its reason, and models that are not loaded.",
            "error",
        )

        # input
        self.unknown = self._counter("bnpl_feature_unknown_total", "Categories no training data had.", "feature")
        self.label_leaks = self._counter(
            "bnpl_label_leak_fields_total", "Records that carried a label; it was stripped.", "field"
        )

        # publish
        self.published = self._counter(
            "bnpl_publish_total",
            "Shadow events: committed (ok), or to be made again (failed).",
            "topic",
            "result",
        )
        self.publish_seconds = self._histogram(
            "bnpl_publish_duration_seconds",
            "The end of a Kafka transaction: offsets and commit, also a failed one.",
            _SECONDS,
        )
        self.publish_queue = self._gauge("bnpl_publish_queue_messages", "Events and letters not yet acknowledged.")

        # sink
        self.rows = self._counter("bnpl_sink_rows_total", "Rows inserted: ok or failed.", "table", "result")
        self.insert_seconds = self._histogram(
            "bnpl_sink_insert_duration_seconds", "One insert, also a failed one.", _SECONDS, "table"
        )
        self.insert_rows = self._histogram("bnpl_sink_batch_rows", "Rows of one insert.", _ROWS, "table")
        self.retries = self._counter("bnpl_sink_retries_total", "Inserts to be tried again.", "table", "error")
        self.buffered = self._gauge("bnpl_sink_buffer_rows", "Rows read and not yet acknowledged.", "table")
        self.last_insert = self._gauge(
            "bnpl_sink_last_success_timestamp_seconds", "When ClickHouse last acknowledged rows.", "table"
        )

        # end to end
        self.event_age = self._columns(
            "bnpl_event_age_seconds", "From the checkout to here: published or stored.", _AGES, "point"
        )

        # dead letters
        self.dead_letters = self._counter("bnpl_dlq_records_total", "Records refused.", "topic", "stage", "error")
        self.dead_letter_failures = self._counter("bnpl_dlq_produce_failures_total", "Dead letters not acknowledged.")
        self.halted = self._gauge("bnpl_lane_halted", "1 once a fault that will not pass stops the loop.", "lane")
        self.halted.labels(lane).set(0)

        # watchdog
        self.stuck = self._counter(
            "bnpl_lane_stuck_total", "Times that a loop was found stuck; the log has the stacks of all threads.", "lane"
        )
        self.stuck.labels(lane)

        # proof
        self.reconcile_faults = self._gauge(
            "bnpl_reconcile_faults", "What did not add up at the last look, by kind.", "kind"
        )
        self.reconcile_in_flight = self._gauge(
            "bnpl_reconcile_in_flight_records", "What this lane had yet to do at the last look.", "lane"
        )
        self.reconciled_at = self._gauge(
            "bnpl_reconcile_last_success_timestamp_seconds",
            "When the last reconciliation ended that could ask everything, whatever it found; 0 for none yet.",
        )
        self.outcomes = self._gauge(
            "bnpl_outcomes",
            "Outcomes by label at the last reconciliation: matched, orphaned (no prediction) or declined (never "
            "financed); of these corrected and cured; and repeated, records that told nothing new.",
            "label",
            "state",
        )
        self.reconcile_seconds = self._gauge("bnpl_reconcile_duration_seconds", "How long that one took.")
        self.reconcile_failures = self._counter(
            "bnpl_reconcile_failures_total", "Reconciliations that could not ask everything."
        )

        # drift
        self.drift = Snapshot(
            {
                "bnpl_drift_psi": (
                    "Population stability index of the last full week against training; kind is feature or score.",
                    ("kind", "name"),
                ),
                "bnpl_drift_state": (
                    "0 none, 1 warning, 2 alarm, in two windows in a row; kind is feature, score or flag. Absent while "
                    "it cannot be judged.",
                    ("kind", "name"),
                ),
                "bnpl_feature_out_of_range_ratio": (
                    "Share of the last full week that lies outside what training had.",
                    ("feature",),
                ),
                "bnpl_drift_window_rows": ("Transactions of the last full week that were counted.", ()),
            }
        )
        self.registry.register(self.drift)
        self.drift_rows = self._counter(
            "bnpl_drift_counted_rows_total", "Transactions counted into bins, again after a failure too."
        )
        self.drift_failures = self._counter(
            "bnpl_drift_failures_total", "Measurements of drift that ClickHouse did not answer."
        )

        # outcomes
        scorer = ("model", "label")
        self.evaluation = Snapshot(
            {
                "bnpl_discrimination_ratio": (
                    "Default rate of the high band over that of the low one, of the rules and of each model at their "
                    "share; bound is estimate, low or high (95 %). Absent below the policy's minimum of defaults.",
                    ("model", "label", "bound"),
                ),
                "bnpl_model_auc": ("Area under the ROC curve, of the rules too.", scorer),
                "bnpl_model_brier": ("Brier score of scores that claim to be probabilities.", scorer),
                "bnpl_model_oe_ratio": ("Observed defaults over those that the scores expect.", scorer),
                "bnpl_outcome_coverage_ratio": (
                    "Share of the approved transactions that are old enough whose outcome is known.",
                    ("label",),
                ),
                "bnpl_evaluated_transactions": ("What these figures are of.", ("label",)),
                "bnpl_evaluation_as_of_timestamp_seconds": ("As known when.", ("label",)),
            }
        )
        self.registry.register(self.evaluation)
        self.evaluate_failures = self._counter(
            "bnpl_evaluate_failures_total", "Evaluations that ClickHouse did not answer."
        )

        # repeated jobs
        self.job_success = self._gauge(
            "bnpl_job_last_success_timestamp_seconds", "When a repeated job last did all of its work.", "job"
        )

        # api
        self.api_requests = self._counter(
            "bnpl_api_requests_total",
            "Requests answered, by route (none: no such route) and class of status: 2xx, 3xx, 4xx, 5xx.",
            "route",
            "method",
            "status",
        )
        self.api_seconds = self._histogram(
            "bnpl_api_request_duration_seconds", "One request, from its head to the end of its answer.",
            _REQUEST_SECONDS, "route",
        )  # fmt: skip
        self.api_in_flight = self._gauge("bnpl_api_requests_in_flight", "Requests that are being answered.")
        self.api_refused = self._counter(
            "bnpl_api_refused_total", "Requests refused, by the name of their problem.", "reason"
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, bounds: Sequence[float], *labels: str) -> Histogram:
        return Histogram(name, text, labels, registry=self.registry, buckets=bounds)

    def _columns(self, name: str, text: str, bounds: Sequence[float], label: str) -> ColumnHistogram:
        histogram = ColumnHistogram(name, text, bounds, label)
        self.registry.register(histogram)
        return histogram


_PARTITION = ("group", "topic", "partition")


class Snapshot(Collector):
    """Gauges that are replaced all at once: what the newest look did not see is gone, and nothing is half replaced."""

    def __init__(self, declared: Mapping[str, tuple[str, Labels]]) -> None:
        """`declared`: help and label names by metric name."""
        self._declared = declared
        self._read: Callable[[], Mapping[str, Iterable[tuple[Labels, float]]]] = dict

    def read_from(self, read: Callable[[], Mapping[str, Iterable[tuple[Labels, float]]]]) -> None:
        """`read` gives (label values, value) by metric name, and is called from the thread that serves a scrape."""
        self._read = read

    def collect(self) -> Iterator[GaugeMetricFamily]:
        found = self._read()
        for name, (text, labels) in self._declared.items():
            family = GaugeMetricFamily(name, text, labels=labels)
            for values, number in found.get(name, ()):
                family.add_metric(values, number)
            yield family


class ColumnHistogram(Collector):
    """A histogram that takes a column at a time; one thread observes, others may read."""

    def __init__(self, name: str, text: str, bounds: Sequence[float], label: str) -> None:
        self._name, self._text, self._label = name, text, label
        self._bounds = np.array(bounds, np.float64)
        self._series: dict[str, tuple[NDArray[np.int64], float]] = {}

    def observe(self, label: str, values: NDArray[Any]) -> None:
        """Count N numbers; those that are not finite are left out."""
        values = values[np.isfinite(values)]
        places = np.searchsorted(self._bounds, values, side="left")
        counts, total = self._series.get(label, (0, 0.0))
        counts = counts + np.bincount(places, minlength=len(self._bounds) + 1)
        self._series[label] = counts, total + float(values.sum())  # replaced whole: a reader never sees half of it

    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily(self._name, self._text, labels=[self._label])
        bounds = [*map(str, self._bounds.tolist()), "+Inf"]
        for label, (counts, total) in list(self._series.items()):
            family.add_metric([label], list(zip(bounds, np.cumsum(counts).tolist(), strict=True)), total)
        yield family


class StageClock:
    """Gives each stretch of a loop's time to the stage that took it; the stretches add up to the whole."""

    def __init__(self, metrics: Metrics) -> None:
        self._counters = {stage: metrics.stage_seconds.labels(metrics.lane, stage) for stage in STAGES}
        self._last = perf_counter()

    def start(self) -> None:
        """Forget the time until now."""
        self._last = perf_counter()

    def lap(self, stage: str) -> None:
        """The time since the last lap was `stage`."""
        now = perf_counter()
        self._counters[stage].inc(now - self._last)
        self._last = now


def total(counter: Counter, **labels: str) -> int:
    """The sum of a counter over its series, or over those that have these labels."""
    (family,) = counter.collect()
    series = (each for each in family.samples if each.name.endswith("_total"))
    return int(sum(each.value for each in series if labels.items() <= each.labels.items()))


def markdown_table() -> str:
    """The list as `docs/metrics.md` shows it."""
    lines = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for name, kind, labels, text in declared():
        lines.append(f"| `{name}` | {kind} | {', '.join(labels)} | {text} |")
    return "\n".join(lines)


def declared() -> Iterator[tuple[str, str, Labels, str]]:
    """(name, kind, labels, help) of every metric of ours, in order."""
    metrics = Metrics("shadow")
    for collector in vars(metrics).values():
        if isinstance(collector, Snapshot):
            yield from ((name, "gauge", labels, text) for name, (text, labels) in collector._declared.items())
        elif isinstance(collector, ColumnHistogram):
            yield collector._name, "histogram", (collector._label,), collector._text
        elif isinstance(collector, (Counter, Gauge, Histogram)):
            (family,) = collector.describe()
            suffix = "_total" if family.type == "counter" else ""
            yield family.name + suffix, family.type, collector._labelnames, family.documentation
