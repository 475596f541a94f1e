"""The parts of a run of faults, one after the other, on servers of their own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from consumer.stack.local import LocalStack
from consumer.system.bench import machine
from consumer.system.faults.brokers import brokers
from consumer.system.faults.clock import clock, missing
from consumer.system.faults.crashes import crashes
from consumer.system.faults.extent import Extent
from consumer.system.faults.processes import kills, members, zombie
from consumer.system.faults.report import Report
from consumer.system.faults.store import clickhouse, outage
from consumer.system.faults.trial import Ground, Outcome, Say

Part = Callable[[Ground, Extent, Say], Outcome]

PARTS: dict[str, tuple[Part, ...]] = {
    "kills": (kills,),
    "crashes": (crashes,),
    "members": (partial(members, protocol="consumer"), partial(members, protocol="classic")),
    "zombie": (zombie,),
    "clickhouse": (clickhouse,),
    "outage": (outage,),
    "clock": (clock,),
    "brokers": (brokers,),
}


def run_faults(parts: Collection[str], extent: Extent, say: Say, *, busy_too: bool) -> Report:
    """Run `parts` (of PARTS) in their order; the others are not touched.

    Raises Fatal for a machine that is too small, or one that is busy unless `busy_too`, and when a part could not be
    carried through. What was lost or done twice raises nothing: the report says it.
    """
    skipped = {"clock": reason} if "clock" in parts and (reason := missing()) else {}
    outcomes = []
    with ExitStack() as ending:
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="bnpl-faults-")))
        machine.refuse_unfit(folder, busy_too=busy_too)
        others = machine.OtherWork()
        addresses = ending.enter_context(LocalStack(folder, 0, 0)).start(say)
        ground = Ground(addresses.kafka, addresses.clickhouse, folder)
        for name in (each for each in PARTS if each in parts and each not in skipped):
            for part in PARTS[name]:
                outcomes.append(part(ground, extent, partial(_say_of, name, say)))
                say(_verdict(outcomes[-1]))
        return Report(machine.describe(), others.share(), extent.rate, outcomes, skipped)


def _say_of(part: str, say: Say, line: str) -> None:
    say(f"{part}: {line}")


def _verdict(outcome: Outcome) -> str:
    proof = outcome.proof
    verdict = "holds" if outcome.holds else "DOES NOT HOLD"
    return f"{outcome.part}: {verdict}; {proof.acknowledged:,} events, lost {proof.lost}, twice {proof.twice}"
