"""One trial: score and sink as processes, steady traffic with a ledger, faults, and at the end the proof."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from consumer.clock import Deadline
from consumer.errors import Fatal, KafkaUnavailable
from consumer.services import clickhouse
from consumer.settings import Settings, load_settings
from consumer.stack.part import last_lines
from consumer.system.faults.progress import Progress
from consumer.system.ledger import Ledger, Proof, prove
from consumer.system.run import prepare
from consumer.system.supervisor import STOP_SECONDS, ServiceProcess, Supervisor, environment
from consumer.system.traffic import Traffic
from consumer.watch.lag import LagReader
from consumer.watch.reconcile.reconcile import Reconciliation, reconcile

Say = Callable[[str], None]

_POLL_SECONDS = 0.1
_START_SECONDS = 300.0
_RECOVER_SECONDS = 300.0
_CATCH_UP_SECONDS = 600.0


@dataclass(frozen=True)
class Ground:
    """Servers on which trials run, each trial with topics, groups and tables of its own."""

    kafka: str
    clickhouse: str
    """Without a database."""
    folder: Path
    """For logs."""
    partitions: int = 4
    replicas: int = 1

    def settings(self, name: str, **changes: Any) -> Settings:
        """Settings of a new trial, with its topics and tables made."""
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{name}-{uuid.uuid4().hex[:6]}"
        database = name.replace("-", "_")
        with clickhouse.connect(load_settings(clickhouse_url=SecretStr(self.clickhouse))) as client:
            client.command(f"CREATE DATABASE {database}")
        given = {
            "kafka_bootstrap_servers": self.kafka,
            "clickhouse_url": SecretStr(f"{self.clickhouse}/{database}"),
            "state_dir": self.folder,
            "topic_transactions": f"{name}.transactions",
            "topic_shadow_scores": f"{name}.shadow-scores",
            "topic_dead_letters": f"{name}.transactions.dlq",
            "topic_outcomes": f"{name}.outcomes",
            "topic_outcomes_dead_letters": f"{name}.outcomes.dlq",
            "topic_control": f"{name}.control",
            "topic_partitions": self.partitions,
            "topic_replication_factor": self.replicas,
            "score_group": f"{name}-score",
            "sink_group": f"{name}-sink",
            "score_metrics_port": 0,
            "sink_metrics_port": 0,
        }
        settings = load_settings(**(given | changes))
        prepare(settings)
        return settings


@dataclass(frozen=True)
class Fault:
    """One fault that was injected."""

    kind: str
    recovery_seconds: float
    """From the fault (of an outside part: from its end) until every partition was committed again."""


@dataclass(frozen=True)
class Outcome:
    """What came of one trial."""

    part: str
    events: int
    seconds: float
    faults: list[Fault]
    proof: Proof
    reconciled: Reconciliation
    notes: list[str] = field(default_factory=list)
    refusals_allowed: bool = False
    """Whether a rule may have refused good transactions: only where clocks are wrong."""

    @property
    def holds(self) -> bool:
        """Whether ledger and reconciler both agree that nothing was lost and nothing done twice."""
        proof = self.proof
        agreed = proof.holds_but_for_refusals if self.refusals_allowed else proof.holds
        return agreed and self.reconciled.holds and self.reconciled.produced == proof.acknowledged


class Trial:
    """A pipeline under traffic. Every wait raises Fatal when it takes too long or something ended that should run."""

    def __init__(
        self, settings: Settings, traffic: Traffic, ledger: Ledger, score: Progress, sink: Progress, say: Say
    ) -> None:
        self.settings, self.traffic, self.ledger = settings, traffic, ledger
        self.score, self.sink = score, sink
        self._say = say
        self.faults: list[Fault] = []
        self.notes: list[str] = []
        self._began = time.monotonic()
        self._processes: list[ServiceProcess] = []
        self._failure: Exception | None = None
        self._keeper: threading.Thread | None = None
        self._ending = threading.Event()

    def service(
        self, *arguments: str, settings: Settings | None = None, variables: dict[str, str] | None = None
    ) -> ServiceProcess:
        """A process of a service that is not yet started; the trial stops it at its end."""
        name = f"{self.settings.score_group}-{len(self._processes)}-{arguments[0]}.log"
        log = self.settings.state_dir / "logs" / name
        given = environment(settings or self.settings) | (variables or {})
        process = ServiceProcess(arguments, log, given)
        self._processes.append(process)
        return process

    def check(self) -> None:
        """Raises what went wrong meanwhile, if anything did."""
        self.traffic.check()
        if self._failure is not None:
            raise self._failure

    def supervise(self, *services: ServiceProcess) -> None:
        """Start services, and start them again when they are killed, as `bnpl-shadow run` does."""
        for each in services:
            each.start()
        self._keeper = threading.Thread(target=self._keep, args=(Supervisor(services),), name="supervisor", daemon=True)
        self._keeper.start()

    def _keep(self, supervisor: Supervisor) -> None:
        try:
            while not self._ending.wait(_POLL_SECONDS):
                supervisor.check()
        except Exception as error:  # noqa: BLE001 told by check()
            self._failure = error

    def until(self, condition: Callable[[], object], seconds: float, what: str) -> float:
        """Wait for it, and give the monotonic time when it was so."""
        deadline = Deadline.after(seconds)
        while not condition():
            self.check()
            if deadline.passed:
                told = "\n".join(f"    {line}" for each in self._processes for line in last_lines(each.log_file, 4))
                raise Fatal(f"not within {seconds:.0f} s: {what}; the services' last lines:\n{told}")
            time.sleep(_POLL_SECONDS)
        return time.monotonic()

    def wait_flowing(self) -> None:
        """Wait until every partition is being scored and stored."""
        now = time.monotonic()
        flowing = lambda: self.score.moved_since(now) and self.sink.moved_since(now)  # noqa: E731
        self.until(flowing, _START_SECONDS, "score and sink commit every partition")

    def recovered(self, kind: str, progress: Progress, since: float, after: float | None = None) -> None:
        """Wait until every partition was committed later than `after` (else `since`), and note how long the one that
        waited longest since `since` was not.
        """
        self.until(lambda: progress.moved_since(after or since), _RECOVER_SECONDS, f"commits after {kind}")
        self.keep(Fault(kind, progress.longest_pause(since)))

    def keep(self, fault: Fault) -> None:
        """Keep it for the report."""
        self.faults.append(fault)
        self._say(f"{fault.kind}: {fault.recovery_seconds:.1f} s")

    def rest(self, seconds: float) -> None:
        """Let traffic flow undisturbed."""
        deadline = Deadline.after(seconds)
        self.until(lambda: deadline.passed, seconds + 1, "time")

    def wait_caught_up(self) -> None:
        """Wait until both groups have nothing left to read."""
        self._wait_read(self.settings.score_group, self.settings.topic_transactions)
        self._wait_read(self.settings.sink_group, self.settings.topic_shadow_scores)

    def _wait_read(self, group: str, topic: str) -> None:
        with LagReader(self.settings, group, [topic]) as lag:
            self.until(lambda: _nothing_unread(lag), _CATCH_UP_SECONDS, f"{group} has caught up")

    def outcome(self, part: str, *, refusals_allowed: bool = False) -> Outcome:
        """Prove it; once the block of `trial` has ended."""
        proof, reconciled = prove(self.settings, self.ledger), reconcile(self.settings)
        seconds = time.monotonic() - self._began
        return Outcome(part, len(self.ledger), seconds, self.faults, proof, reconciled, self.notes, refusals_allowed)

    def stop(self) -> None:
        """Stop every process, the first one first."""
        self._ending.set()
        if self._keeper is not None:
            self._keeper.join()
        deadline = Deadline.after(STOP_SECONDS)
        for each in self._processes:
            each.send_stop()
        for each in self._processes:
            each.wait_stopped(deadline)


def _nothing_unread(lag: LagReader) -> bool:
    try:
        return not lag.look().unread
    except KafkaUnavailable:  # a coordinator that is coming back
        return False


@contextmanager
def trial(settings: Settings, rate: float, say: Say) -> Iterator[Trial]:
    """Traffic begins with the block. When that ends well, traffic stops, both groups catch up, and processes stop."""
    ledger = Ledger()
    with ExitStack() as ending:
        score = ending.enter_context(Progress(settings, settings.score_group, settings.topic_transactions))
        sink = ending.enter_context(Progress(settings, settings.sink_group, settings.topic_shadow_scores))
        traffic = Traffic(settings, rate, ledger)
        running = Trial(settings, traffic, ledger, score, sink, say)
        ending.callback(running.stop)
        with traffic:
            yield running
        running.wait_caught_up()
