"""What the figures allow to be said of each model, under the policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from consumer.evaluation.comparison import Comparison, Contender, compare, weeks_to_decision
from consumer.evaluation.multiplicity import Look, corrected
from consumer.evaluation.outcomes import Outcomes
from consumer.evaluation.policy import Policy
from consumer.evaluation.sample import RULES

BETTER, WORSE, EQUIVALENT = "better", "worse", "equivalent"
CONTINUE, INCONCLUSIVE, NO_VERDICT = "continue", "inconclusive", "no verdict"


@dataclass(frozen=True)
class Verdict:
    """`better`, `worse`, `equivalent`, `continue` (a look is left), `inconclusive` (none is), or `no verdict`."""

    model: str
    against: str
    verdict: str
    why: str
    comparison: Comparison | None
    p_corrected: float | None
    p_equivalent_corrected: float | None
    weeks_needed: float | None
    """further weeks until a decision, at today's volume; None where none is in sight, or none is needed"""


@dataclass(frozen=True)
class Judgement:
    """All verdicts of one look, and what the next look must know of this one."""

    verdicts: list[Verdict]
    look: Look


@dataclass(frozen=True)
class Maturity:
    """How far the data have come."""

    week: int
    """whole weeks of mature transactions"""
    coverage: float

    def lacks(self, policy: Policy) -> list[str]:
        """Why nothing may be said yet; empty when something may."""
        reasons, weeks = [], f"{self.week} mature week{'s' * (self.week != 1)}"
        if self.week < policy.looks_at_weeks[0]:
            reasons.append(f"{weeks}, the first look is after {policy.looks_at_weeks[0]}")
        elif self.week < policy.looks_at_weeks[-1] and self.week not in policy.looks_at_weeks:
            reasons.append(f"{weeks}, which is not one of the policy's looks")
        if self.coverage < policy.minimum_coverage:
            reasons.append(f"outcomes cover {self.coverage:.1%}, {policy.minimum_coverage:.0%} are wanted")
        return reasons

    def looks_left(self, policy: Policy) -> int:
        return sum(week > self.week for week in policy.looks_at_weeks)


def judge(
    contenders: Mapping[str, Contender],
    left_out: Mapping[str, str],
    outcomes: Outcomes,
    maturity: Maturity,
    policy: Policy,
    earlier: Sequence[Look] = (),
) -> Judgement:
    """Every model against the rules, and every other one against the champion.

    `contenders` are the rules and the models that scored enough rows, `left_out` says why a model is not among them.
    `earlier` are the looks before this one; planned ones that are not given count as if they had shown nothing. Looks
    after the last planned one are paid for as well: each given one makes the correction stricter.
    """
    models = [name for name in contenders if name != RULES]
    before = [look for look in earlier if policy.looks_at_weeks[0] <= look.week < maturity.week]
    verdicts = []
    different: dict[str, dict[str, float]] = {}
    equivalent: dict[str, dict[str, float]] = {}
    for against in (RULES, policy.champion):
        opponents = [name for name in [*models, *left_out] if name != against]
        tests = max(len(opponents) * len(policy.looks_at_weeks), 1)
        if against not in contenders:
            why = f"{against} cannot be compared with: {left_out.get(against, 'it did not score these transactions')}"
            verdicts += [_none(model, against, None, why) for model in opponents]
            continue
        found = [compare(contenders[name], contenders[against], outcomes, policy) for name in models if name != against]
        different[against] = {each.model: 1.0 if each.p is None else each.p for each in found}
        equivalent[against] = {each.model: 1.0 if each.p_equivalent is None else each.p_equivalent for each in found}
        p = corrected(different[against], [look.different.get(against, {}) for look in before], tests)
        q = corrected(equivalent[against], [look.equivalent.get(against, {}) for look in before], tests)
        verdicts += [_verdict(each, p[each.model], q[each.model], tests, maturity, policy) for each in found]
        verdicts += [_none(model, against, None, left_out[model]) for model in left_out if model != against]
    return Judgement(verdicts, Look(maturity.week, different, equivalent))


def _verdict(
    found: Comparison, p: float, p_equivalent: float, tests: int, maturity: Maturity, policy: Policy
) -> Verdict:
    reasons = maturity.lacks(policy) + ([found.why] if found.why else [])
    weeks = weeks_to_decision(found.difference, maturity.week, tests, policy) if found.difference else None
    if reasons or found.difference is None:
        return _none(found.model, found.against, found, "; ".join(reasons), weeks)
    factor, margin = found.difference.estimate, policy.equivalence_margin
    shown = f"{factor:.2f} times the ratio of {found.against}, corrected p {p:.2g}"
    if p < policy.alpha and not 1 / margin <= factor <= margin:
        name = BETTER if factor > 1 else WORSE
        return Verdict(found.model, found.against, name, shown, found, p, p_equivalent, None)
    if p_equivalent < policy.alpha:
        why = f"{factor:.2f} times the ratio of {found.against}, within the margin of {margin:g} (p {p_equivalent:.2g})"
        return Verdict(found.model, found.against, EQUIVALENT, why, found, p, p_equivalent, None)
    left = maturity.looks_left(policy)
    why = f"{shown}: neither a difference beyond {margin:g} nor its absence is shown; {_wait(weeks)}"
    return Verdict(found.model, found.against, CONTINUE if left else INCONCLUSIVE, why, found, p, p_equivalent, weeks)


def _wait(weeks: float | None) -> str:
    if weeks is None:
        return "at today's volume that is more than ten years away, as the difference lies near the margin"
    return f"weeks still needed at today's volume: about {max(weeks, 1):.0f}"


def _none(model: str, against: str, found: Comparison | None, why: str, weeks: float | None = None) -> Verdict:
    return Verdict(model, against, NO_VERDICT, why, found, None, None, weeks)
