"""Faults of our own processes: killed ones, members that come and go, zombies.

kills    SIGKILL of score or sink, at random, while their supervisor brings back what was killed
members  one score process, then three, then another one alone, by both protocols of Kafka's groups
zombie   a score process that hangs is replaced by another of the same name, and wakes; and one that is started while
         another of its name runs
"""

from __future__ import annotations

import random
import signal
import time

from consumer.errors import Fatal
from consumer.stack.part import last_lines
from consumer.system.faults.extent import Extent
from consumer.system.faults.progress import Progress
from consumer.system.faults.trial import Ground, Outcome, Say, Trial, trial
from consumer.system.supervisor import ServiceProcess

_START_SECONDS = 300.0
_END_SECONDS = 120.0
_FENCED = "another instance with the same transactional id took over"
_TRANSACTION_SECONDS = 5
"""Short in part zombie: one that hangs for longer cannot tell by its transaction alone that it was replaced."""
_SMALL_BATCHES = 1000
"""Many commits, so that a fault finds one under way."""


def kills(ground: Ground, extent: Extent, say: Say) -> Outcome:
    settings = ground.settings("kills", batch_max_records=_SMALL_BATCHES)
    chance = random.Random(extent.seed)  # noqa: S311 no secret
    with trial(settings, extent.rate, say) as running:
        score, sink = running.service("score"), running.service("sink")
        running.supervise(score, sink)
        running.wait_flowing()
        victims = [(score, running.score), (sink, running.sink)] * extent.rounds
        chance.shuffle(victims)  # each of them equally often, in an order nobody planned
        for victim, progress in victims:
            running.rest(chance.uniform(0.2, 1) * extent.calm_seconds)
            _kill(running, victim, progress)
    return running.outcome("kills")


def _kill(running: Trial, victim: ServiceProcess, progress: Progress) -> None:
    before, killed = victim.pid, time.monotonic()
    victim.signal(signal.SIGKILL)
    replaced = running.until(lambda: victim.pid not in (None, before), _START_SECONDS, f"{victim.name} is replaced")
    running.recovered(f"{victim.name} killed", progress, killed, replaced)


def members(ground: Ground, extent: Extent, say: Say, protocol: str) -> Outcome:
    settings = ground.settings("members", batch_max_records=_SMALL_BATCHES, group_protocol=protocol)
    with trial(settings, extent.rate, say) as running:
        running.supervise(running.service("sink"))
        oldest = _instance(running, "a")
        running.wait_flowing()
        for _ in range(extent.rounds):
            second, third = (_join(running, name, protocol) for name in ("b", "c"))
            for leaver in (oldest, second):
                running.rest(extent.calm_seconds / 5)
                _leave(running, leaver, protocol)
            oldest = third
    return running.outcome(f"members, {protocol}")


def _join(running: Trial, name: str, protocol: str) -> ServiceProcess:
    began = time.monotonic()
    member = _instance(running, name)
    has_share = _wait_share(running, member)
    running.recovered(f"member joined ({protocol})", running.score, began, has_share)
    return member


def _leave(running: Trial, member: ServiceProcess, protocol: str) -> None:
    began = time.monotonic()
    member.send_stop()
    ended = running.until(lambda: member.pid is None, _END_SECONDS, "a member has left")
    running.recovered(f"member left ({protocol})", running.score, began, ended)


def zombie(ground: Ground, extent: Extent, say: Say) -> Outcome:
    settings = ground.settings(
        "zombie", batch_max_records=_SMALL_BATCHES, transaction_timeout_ms=_TRANSACTION_SECONDS * 1000
    )
    with trial(settings, extent.rate, say) as running:
        running.supervise(running.service("sink"))
        current = _instance(running, "one")
        running.wait_flowing()
        for _ in range(extent.rounds):
            for hangs in (True, False):
                running.rest(extent.calm_seconds / 5)
                current = _replace(running, current, hangs=hangs)
    return running.outcome("zombie")


def _replace(running: Trial, old: ServiceProcess, *, hangs: bool) -> ServiceProcess:
    """Start a second process of the same name; one that `hangs` meanwhile wakes when the second is at work."""
    kind, began = "zombie woke" if hangs else "second of a name", time.monotonic()
    if hangs:
        old.signal(signal.SIGSTOP)
    successor = _instance(running, "one")
    has_share = _wait_share(running, successor)
    if hangs:
        running.until(lambda: running.score.moved_since(has_share), _START_SECONDS, "its successor commits")
        running.rest(max(0.0, began + _TRANSACTION_SECONDS + 1 - time.monotonic()))
        old.signal(signal.SIGCONT)
    _require_fenced(running, old)
    running.recovered(kind, running.score, began, has_share)
    return successor


def _require_fenced(running: Trial, process: ServiceProcess) -> None:
    running.until(lambda: process.pid is None, _END_SECONDS, "the older process of the name has ended")
    told = "\n".join(last_lines(process.log_file, 10))
    if process.exit_code != 1 or _FENCED not in told:
        raise Fatal(f"a fenced process ended with code {process.exit_code} and said:\n{told}")


def _instance(running: Trial, name: str) -> ServiceProcess:
    """A score process that nobody brings back."""
    process = running.service("score", "--instance", f"{running.settings.score_group}-{name}")
    process.start()
    return process


def _wait_share(running: Trial, member: ServiceProcess) -> float:
    """When it has partitions, by its own log."""

    def has_share() -> bool:
        said = last_lines(member.log_file, 20)
        return any("assigned " in line and "assigned nothing" not in line for line in said)

    return running.until(has_share, _START_SECONDS, "a new member has partitions")
