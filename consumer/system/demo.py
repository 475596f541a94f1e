"""The demo: the whole system on simulated checkouts, watched while it runs and proved at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pyarrow as pa
from clickhouse_connect.driver.client import Client

from consumer.clock import Deadline, utc_now
from consumer.errors import Fatal
from consumer.research.simulate import SimulationConfig, simulate
from consumer.services import clickhouse
from consumer.services.produce import Pace, TransactionSender
from consumer.settings import Settings
from consumer.system.run import System
from consumer.watch.lag import LagReader
from consumer.watch.reconcile.reconcile import Reconciliation, reconcile

_CATCH_UP_SECONDS = 60.0
_LOOK_EVERY_SECONDS = 0.5
_DAYS = 30
_RUBBISH_EVERY = 2_000
_TOTALS = """
SELECT count(), countIf(business_decision = 'decline'), countIf(business_risk_flag = 'high') FROM shadow_scores FINAL
"""
_MEAN_SCORES = """
SELECT model, avg(score) FROM shadow_scores FINAL ARRAY JOIN models.name AS model, models.score AS score
GROUP BY model ORDER BY model
"""


@dataclass(frozen=True)
class Progress:
    """What can be seen from outside while it runs."""

    to_send: int
    sent: int = 0
    all_acknowledged: bool = False
    stored: int = 0
    stored_per_second: float = 0.0
    declined: int = 0
    flagged_high: int = 0
    score_lag: int = 0
    sink_lag: int = 0
    mean_scores: dict[str, float] = field(default_factory=dict)

    @property
    def caught_up(self) -> bool:
        """All is in the topic, and both groups have read to the end."""
        return self.all_acknowledged and not self.score_lag and not self.sink_lag


class Demo:
    """Sends `events` simulated transactions at `rate` a second, some of them rubbish, and watches the system."""

    def __init__(self, system: System, events: int, rate: float, seed: int = 0) -> None:
        self._system = system
        self._settings: Settings = system.settings
        self._events, self._rate, self._seed = events, rate, seed
        self._sender = TransactionSender(self._settings)
        self._stop = threading.Event()
        self._acknowledged = False
        self._failure: Exception | None = None

    def run(self, show: Callable[[Progress], None]) -> Reconciliation:
        """Send, show, wait until all is stored, and reconcile.

        Raises Fatal when a service ends by itself or when a minute after the last event something is still missing.
        """
        sending = threading.Thread(target=self._send, daemon=True)
        sending.start()
        try:
            self._watch(show)
        finally:
            self._stop.set()
            sending.join(5)
        result = reconcile(self._settings)
        if result.produced != self._events:
            raise Fatal(f"{self._events:,} transactions were sent and {result.produced:,} are in the topic")
        if result.waiting_for_score or result.waiting_for_sink:
            raise Fatal(f"all was read, yet {result.waiting_for_score}+{result.waiting_for_sink} are on their way")
        return result

    def _send(self) -> None:
        try:
            start = (utc_now() - timedelta(days=_DAYS + 1)).date()
            pace = Pace(self._rate)
            for batch in simulate(SimulationConfig(self._events, self._seed, start, _DAYS, outcomes=False)):
                for piece in pace.slices(batch):
                    if self._stop.is_set():
                        return
                    self._sender.send(self._with_rubbish(piece))
            self._sender.flush()
            self._acknowledged = True
        except Exception as error:  # noqa: BLE001 told by the thread that watches
            self._failure = error

    def _with_rubbish(self, piece: pa.RecordBatch) -> pa.RecordBatch:
        """Now and then an amount below zero: real traffic is never clean."""
        at = piece.schema.get_field_index("amount")
        amounts = piece.column(at).to_numpy().copy()
        amounts[(self._sender.sent + pa.array(range(len(amounts))).to_numpy()) % _RUBBISH_EVERY == 0] *= -1
        return piece.set_column(at, piece.schema.field(at), pa.array(amounts))

    def _watch(self, show: Callable[[Progress], None]) -> None:
        settings = self._settings
        progress, looked_at = Progress(self._events), time.monotonic()
        deadline: Deadline | None = None
        with (
            clickhouse.connect(settings) as client,
            LagReader(settings, settings.score_group, [settings.topic_transactions]) as score,
            LagReader(settings, settings.sink_group, [settings.topic_shadow_scores]) as sink,
        ):
            while not progress.caught_up:
                time.sleep(_LOOK_EVERY_SECONDS)
                self._system.check()
                if self._failure:
                    raise self._failure
                seconds, looked_at = time.monotonic() - looked_at, time.monotonic()
                progress = self._look(client, score, sink, progress, seconds)
                show(progress)
                if progress.all_acknowledged:
                    deadline = deadline or Deadline.after(_CATCH_UP_SECONDS)
                    if deadline.passed:
                        raise Fatal(f"not caught up {_CATCH_UP_SECONDS:.0f} s after the last event: {progress}")

    def _look(self, client: Client, score: LagReader, sink: LagReader, before: Progress, seconds: float) -> Progress:
        acknowledged, sent = self._acknowledged, self._sender.sent  # before the lag is asked, which then includes them
        score_lag, sink_lag = (group.look(_CATCH_UP_SECONDS).unread for group in (score, sink))
        with clickhouse.errors_named():
            ((stored, declined, high),) = client.query(_TOTALS).result_rows
            means = {str(model): float(mean) for model, mean in client.query(_MEAN_SCORES).result_rows}
        return replace(
            before,
            sent=sent,
            all_acknowledged=acknowledged,
            stored=stored,
            stored_per_second=(stored - before.stored) / seconds,
            declined=declined,
            flagged_high=high,
            score_lag=score_lag,
            sink_lag=sink_lag,
            mean_scores=means,
        )
