"""What goes in, and when all of it has come out: checkouts and outcomes to their topics, and on into the tables."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import pyarrow as pa

from consumer.clock import Deadline
from consumer.contracts.transaction import EVENT_SCHEMA
from consumer.errors import Fatal
from consumer.services import clickhouse
from consumer.services.outcomes import OutcomeSender
from consumer.services.produce import TransactionSender
from consumer.system.run import System
from consumer.watch.lag import LagReader

_CATCH_UP_SECONDS = 120.0
_LOOK_EVERY_SECONDS = 0.1
_STORED = "SELECT (SELECT count() FROM shadow_scores FINAL), (SELECT count() FROM outcomes FINAL)"


@dataclass(frozen=True)
class Stored:
    """Rows of the tables, each once."""

    predictions: int
    outcomes: int


class Flow:
    """Sends to a running system and waits until every group has read all of it. A context manager, for one thread."""

    def __init__(self, system: System, others: Sequence[str] = ()) -> None:
        """`others` are groups beside score and sink that read transactions."""
        self._system = system
        self._ending = ExitStack()
        settings = system.settings
        self.checkouts, self.outcomes = TransactionSender(settings), OutcomeSender(settings)
        sources = [settings.topic_transactions]
        groups = [
            (settings.score_group, sources),
            *((each, sources) for each in others),
            # after score, whose events are counted in
            (settings.sink_group, [settings.topic_shadow_scores, settings.topic_outcomes]),
        ]
        self._lags = [self._ending.enter_context(LagReader(settings, *each)) for each in groups]

    def send(self, checkouts: pa.RecordBatch, outcomes: pa.RecordBatch | None = None) -> None:
        """Send all columns that an event has, and wait until the broker has acknowledged them. Raises KafkaUnavailable
        when it does not.
        """
        self.checkouts.send(checkouts.select(EVENT_SCHEMA.names))
        if outcomes is not None:
            self.outcomes.send(outcomes)
        for sender in (self.checkouts, self.outcomes):
            sender.flush()

    def wait(self) -> Stored:
        """What the tables hold once everything that was sent has gone all its way.

        Raises Fatal when a service ends by itself, or when two minutes later something is still missing.
        """
        deadline = Deadline.after(_CATCH_UP_SECONDS)
        for lag in self._lags:
            while unread := lag.look(deadline.remaining).unread:
                self._system.check()
                if deadline.passed:
                    raise Fatal(f"{unread:,} records were not read within {_CATCH_UP_SECONDS:.0f} s")
                time.sleep(_LOOK_EVERY_SECONDS)
        with clickhouse.connect(self._system.settings) as client, clickhouse.errors_named():
            return Stored(*client.query(_STORED).result_rows[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.close()
