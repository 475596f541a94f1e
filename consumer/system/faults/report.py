"""What a run of faults found, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from consumer.system.faults.trial import Outcome


@dataclass(frozen=True)
class Report:
    machine: dict[str, str | int | float]
    other_work_share: float
    """CPU that other work took while it ran, of all cores."""
    rate: float
    outcomes: list[Outcome]
    skipped: dict[str, str]
    """Parts that did not run, and why."""

    @property
    def holds(self) -> bool:
        """Whether nothing was lost and nothing done twice, in any part."""
        return all(each.holds for each in self.outcomes)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"holds": self.holds, "recovery": self._recovery()}

    def _recovery(self) -> dict[str, dict[str, float]]:
        """By kind: how often, and the seconds from the fault until every partition was committed again."""
        seconds: dict[str, list[float]] = {}
        for outcome in self.outcomes:
            for fault in outcome.faults:
                seconds.setdefault(fault.kind, []).append(fault.recovery_seconds)
        return {
            kind: {"faults": len(each), "p50": round(median(each), 2), "max": round(max(each), 2)}
            for kind, each in seconds.items()
        }

    def lines(self) -> Iterator[str]:
        """Two Markdown tables, as docs/reliability.md keeps them, and the verdict."""
        yield "| part | events | faults | scored | dead letters | stored | lost | twice | seconds |"
        yield "|---|---|---|---|---|---|---|---|---|"
        for each in self.outcomes:
            proof = each.proof
            yield (
                f"| {each.part} | {each.events:,} | {len(each.faults)} | {proof.scored:,} | {proof.dead_lettered:,} "
                f"| {proof.stored:,} | {proof.lost} | {proof.twice} | {each.seconds:.0f} |"
            )
        yield ""
        yield "| fault | times | recovery p50 | max |"
        yield "|---|---|---|---|"
        for kind, figures in self._recovery().items():
            yield f"| {kind} | {figures['faults']} | {figures['p50']:.1f} s | {figures['max']:.1f} s |"
        yield ""
        for each in self.outcomes:
            yield from (f"{each.part}: {note}" for note in each.notes)
            if not each.holds:
                yield f"{each.part}: DOES NOT HOLD: {each.proof}; the reconciler: {each.reconciled}"
        for part, reason in self.skipped.items():
            yield f"{part}: skipped; {reason}"
        yield f"{self.rate:,.0f} events a second; other work took {self.other_work_share:.0%} of all cores meanwhile"
        yield "nothing lost, nothing twice" if self.holds else "IT DOES NOT HOLD"
