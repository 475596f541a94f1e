"""The simulated clock: each week's checkouts and the outcomes that become known in it, and what stands at its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from consumer.champion import dossier, evaluations
from consumer.champion.dossier import Verification
from consumer.champion.evaluate import Evaluated, evaluate_scope, read_terms
from consumer.champion.policies import register
from consumer.champion.report.html import write_html
from consumer.champion.report.markdown import markdown
from consumer.champion.scope import Scope
from consumer.contracts.control import Control
from consumer.contracts.horizons import Horizons
from consumer.research.season import TRAFFIC_WEEKS, Plan, missed, of_week, outcomes, traffic
from consumer.services import clickhouse
from consumer.services.drift.export import load_export
from consumer.services.drift.look import look, results
from consumer.services.drift.service import group_of
from consumer.services.drift.store import save_results
from consumer.system.run import System
from consumer.system.season.champion import promote, wait_counted
from consumer.system.season.flow import Flow, Stored
from consumer.watch.reconcile.reconcile import Reconciliation, reconcile

SERVICES = (["score"], ["sink"], ["drift", "--every", "1"])
"""What runs in a season."""


@dataclass(frozen=True)
class Week:
    """What stands at the end of a simulated week, in total."""

    number: int
    ends: datetime
    checkouts: int
    outcomes: int
    stored: Stored
    evaluated: Evaluated | None
    """None: no checkout is old enough yet."""
    told: dict[str, Any] | None
    """The same as a dossier has it, and as it is stored."""
    moved: tuple[str, ...] | None
    """Features that drift in the week's checkouts; None where there are none."""


@dataclass(frozen=True)
class Ending:
    """What the season came to."""

    weeks: list[Week]
    evaluated: Evaluated
    """The last look."""
    dossier: Path
    dossier_sha256: str
    report: Path
    verification: Verification
    """Of the dossier, once the promotion was made and more had come in."""
    promotion: Control | None
    counted: dict[str, int]
    """Checkouts after the promotion by the champion that their events count; empty without one."""
    reconciliation: Reconciliation
    faults: list[str]
    """What the season should have ended with and did not."""


class Season:
    """A plan, played on a running system whose topics and tables are empty."""

    def __init__(self, system: System, plan: Plan) -> None:
        """Raises ArtifactError for a policy, horizons or models that cannot be used."""
        self._system, self._plan = system, plan
        self._settings = system.settings
        self._terms = read_terms(self._settings, self._settings.artifact_version)
        self._horizons = Horizons.load(self._settings.horizons_file)
        self._export = load_export(self._settings)
        self.weeks = plan.weeks(self._horizons, self._terms.horizon.label)

    def play(self, show: Callable[[Week], None], say: Callable[[str], None] = lambda _: None) -> Ending:
        """Play all weeks, then promote whom the last look recommends. `show` gets each week, `say` each step.

        Raises Fatal when the system does not take in what is sent, Retryable when a part does not answer.
        """
        with clickhouse.connect(self._settings) as client:
            register(client, self._settings.policy_file, self._plan.week_start(1))
        say("simulating checkouts and outcomes")
        checkouts = traffic(self._plan)
        known = outcomes(self._plan, checkouts, self._horizons)
        weeks: list[Week] = []
        with Flow(self._system, [group_of(self._settings, self._export)]) as flow:
            for number in range(1, self.weeks + 1):
                weeks.append(self._week(number, flow, checkouts, known, say))
                show(weeks[-1])
            return self._end(flow, weeks, say)

    def _week(
        self, number: int, flow: Flow, checkouts: pa.RecordBatch, known: pa.RecordBatch, say: Callable[[str], None]
    ) -> Week:
        say(f"week {number}: sending and storing")
        plan, ends = self._plan, self._plan.week_end(number)
        flow.send(
            of_week(checkouts, "transaction_timestamp", plan, number), of_week(known, "observed_at", plan, number)
        )
        stored = flow.wait()
        say(f"week {number}: evaluating")
        mature = number > plan.wait_weeks(self._horizons, self._terms.horizon.label)
        evaluated, told = self._evaluate(ends) if mature else (None, None)
        return Week(
            number,
            ends,
            flow.checkouts.sent,
            flow.outcomes.sent,
            stored,
            evaluated,
            told,
            self._moved(ends) if number <= TRAFFIC_WEEKS else None,
        )

    def _evaluate(self, as_of: datetime) -> tuple[Evaluated, dict[str, Any]]:
        """As known then, and stored."""
        scope = Scope(as_of, self._settings.artifact_version)
        evaluated = evaluate_scope(self._settings, scope, self._terms)
        told = dossier.document(evaluated)
        with clickhouse.connect(self._settings) as client:
            evaluations.store(client, told, evaluated.curves)
        return evaluated, told

    def _moved(self, as_of: datetime) -> tuple[str, ...]:
        """Features that drift as of then; all that was measured is stored."""
        with clickhouse.connect(self._settings) as client:
            found = look(client, self._export, as_of.date())
            save_results(client, results(found))
        return tuple(each.name for each in found.features if each.state)

    def _end(self, flow: Flow, weeks: list[Week], say: Callable[[str], None]) -> Ending:
        evaluated, told = [(each.evaluated, each.told) for each in weeks if each.evaluated and each.told][-1]
        say("writing dossier and report")
        file, report = (self._settings.state_dir / name for name in ("dossier.json", "report.html"))
        file.write_bytes(dossier.to_bytes(told))
        file.with_suffix(".md").write_text(markdown(told))
        write_html(told, report)
        promotion: Control | None = None
        counted: dict[str, int] = {}
        if evaluated.promote:
            say(f"promoting {evaluated.promote}")
            why = evaluated.evaluation.recommendation.sentences[0]
            promotion = promote(self._settings, evaluated.promote, file.read_bytes(), why)
            counted = wait_counted(self._settings, flow, self._plan, self.weeks, evaluated.promote)
        say("verifying the dossier")
        written = dossier.load(file)
        verification = dossier.verify(self._settings, written.told)
        say("reconciling")
        reconciliation = reconcile(self._settings)
        faults = self._missed(evaluated, weeks) + _lost(flow, weeks[-1].stored, reconciliation, verification)
        return Ending(
            weeks,
            evaluated,
            file,
            written.sha256,
            report,
            verification,
            promotion,
            counted,
            reconciliation,
            faults,
        )

    def _missed(self, evaluated: Evaluated, weeks: list[Week]) -> list[str]:
        moved = {name for week in weeks for name in week.moved or ()}
        champion, verdicts = self._terms.policy.champion, evaluated.evaluation.verdicts
        faults = missed(self._plan.scenario, champion, verdicts, evaluated.promote, moved)
        return [evaluated.unfounded, *faults] if evaluated.unfounded else faults


def _lost(flow: Flow, stored: Stored, reconciliation: Reconciliation, verification: Verification) -> list[str]:
    """What is not where it should be, in words."""
    faults = []
    if not reconciliation.holds:
        faults.append("the checkouts do not reconcile")
    if reconciliation.produced != flow.checkouts.sent or reconciliation.scored != flow.checkouts.sent:
        faults.append(f"{flow.checkouts.sent:,} checkouts were sent, {reconciliation.scored:,} were scored")
    if stored.outcomes != flow.outcomes.sent:
        faults.append(f"{flow.outcomes.sent:,} outcomes were sent, {stored.outcomes:,} are stored")
    if verification.differences:
        faults.append(f"of the dossier {len(verification.differences)} numbers come out otherwise")
    return faults
