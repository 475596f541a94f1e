"""What the routes work with: made once a process, shared by all requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import pyarrow as pa

from consumer.api.store import Store, Threads
from consumer.contracts.horizons import Horizons
from consumer.contracts.transaction import Limits
from consumer.errors import ArtifactError, KafkaUnavailable, Retryable
from consumer.evaluation.policy import load_policy
from consumer.metrics import Metrics
from consumer.scoring.controller import ShadowModeController
from consumer.scoring.load import load_controller
from consumer.services.control import ControlFollower
from consumer.services.drift.export import Export, load_export
from consumer.services.outcomes import OutcomeSender
from consumer.settings import Settings
from consumer.views.models import research_facts
from consumer.watch.lag import topics_by_group
from consumer.watch.lag_watch import LagWatch

_KAFKA_SECONDS = 8.0
_GRACE_SECONDS = 4.0
_SCORING_SECONDS = 20.0


class OutcomesOut:
    """Outcomes onto their topic, one request after the other; each is done when the broker has acknowledged it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._sender: OutcomeSender | None = None
        late = partial(KafkaUnavailable, "no acknowledgement in time")
        self._threads = Threads(1, _KAFKA_SECONDS + _GRACE_SECONDS, late)

    async def send(self, batch: pa.RecordBatch) -> None:
        """Raises KafkaUnavailable when not all of it was acknowledged in time: it may be sent again as it is."""
        await self._threads.run(partial(self._send, batch))

    def _send(self, batch: pa.RecordBatch) -> None:
        sender = self._sender or OutcomeSender(self._settings, patience=_KAFKA_SECONDS)
        self._sender = None  # kept only when this goes well
        sender.send(batch)
        sender.flush()
        self._sender = sender


@dataclass
class Parts:
    """Models, views and connections of one API process."""

    settings: Settings
    metrics: Metrics
    controller: ShadowModeController
    research: dict[str, dict[str, Any]]
    limits: Limits
    """Which transactions and outcomes are let in: as the services let them in."""
    horizons: Horizons
    label: str
    """The policy's label: what is meant when a request names none."""
    export: Export | str
    """What drift is measured against, or why there is nothing."""
    control: ControlFollower
    lags: list[LagWatch]
    store: Store
    outcomes: OutcomesOut
    scoring: Threads

    @property
    def away(self) -> dict[str, str]:
        """Which outside parts do not answer now, and why; for logs and not for clients."""
        kafka = next((watch.report.failed for watch in self.lags if watch.report.failed), None)
        return {name: why for name, why in (("kafka", kafka), ("clickhouse", self.store.fault)) if why}

    def show_who_decides(self) -> None:
        """In the metrics, as score processes show it: who has not taken a promotion over is found by it."""
        if self.control.known:
            now = self.control.newest()
            self.metrics.control_revision.set(now.revision)
            self.metrics.control_info.clear()
            self.metrics.control_info.labels(now.champion, now.mode).set(1)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follows who decides, lag and ClickHouse while the block runs."""
        with ExitStack() as stack:
            stack.callback(self.store.close)
            stack.enter_context(self.control.following())
            for watch in self.lags:
                watch.start()
                stack.callback(watch.stop)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.store.watch)
                yield
                tasks.cancel_scope.cancel()


def make_parts(settings: Settings) -> Parts:
    """Prove and load the models and everything else. Raises Fatal that names what cannot be used."""
    metrics, controller = Metrics("api"), load_controller(settings)
    silence = settings.api_control_max_silence_seconds
    control = ControlFollower(settings, controller.predictor.model_set, metrics, silence)
    return Parts(
        settings=settings,
        metrics=metrics,
        controller=controller,
        research=research_facts(settings),
        limits=Limits.of(settings),
        horizons=Horizons.load(settings.horizons_file),
        label=load_policy(settings.policy_file)[0].label_horizon,
        export=_export(settings),
        control=control,
        lags=[LagWatch(settings, group, topics) for group, topics in topics_by_group(settings).items()],
        store=Store(settings),
        outcomes=OutcomesOut(settings),
        scoring=Threads(1, _SCORING_SECONDS, partial(Retryable, "the models are busy")),
    )


def _export(settings: Settings) -> Export | str:
    try:
        return load_export(settings)
    except ArtifactError as error:
        return str(error)
