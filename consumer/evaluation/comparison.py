"""Two scorers on the same rows: the figures and p-values that a verdict is taken from."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import ndtri

from consumer.evaluation.bands import Bands
from consumer.evaluation.outcomes import Outcomes
from consumer.evaluation.policy import Policy
from consumer.evaluation.ratio import (
    Difference,
    Discordant,
    Linearised,
    Ratio,
    difference,
    discordant,
    ends,
    equivalence,
    ratio,
)

LONGEST_WAIT_WEEKS = 520


@dataclass(frozen=True)
class Contender:
    """The rules or a model, as they banded the evaluated rows."""

    name: str
    bands: Bands
    ratio: Ratio
    linearised: Linearised | None

    @classmethod
    def of(cls, name: str, bands: Bands, outcomes: Outcomes, policy: Policy) -> Contender:
        return cls(name, bands, *ratio(bands, outcomes, policy.minimum_defaults, policy.confidence))


@dataclass(frozen=True)
class Comparison:
    """`model` against another. Everything but the discordant rows is None where one of the ratios is insufficient."""

    model: str
    against: str
    discordant: Discordant
    difference: Difference | None
    equivalence_interval: tuple[float, float] | None
    """of the factor between the ratios, at 1 - 2α"""
    p: float | None
    """of no difference, two-sided, before any correction"""
    p_equivalent: float | None
    """of a difference beyond the margin, before any correction"""
    why: str | None


def compare(a: Contender, b: Contender, outcomes: Outcomes, policy: Policy) -> Comparison:
    """A against B.

    The linearised test counts all three bands, weights and customers, but leans on a normal approximation: with few
    discordant defaults, as between near clones, it rejects too often. There the exact test must reject as well, so the
    larger of both p-values counts. Few of them also make the error too small to believe in equality; for that, two more
    are assumed on either side, as Agresti & Coull (1998) do for a share.
    """
    alone = discordant(a.bands, b.bands, outcomes.defaulted)
    if a.linearised is None or b.linearised is None:
        why = "; ".join(f"{each.name}: {each.ratio.why}" for each in (a, b) if each.ratio.why)
        return Comparison(a.name, b.name, alone, None, None, None, None, why)
    found = difference(a.linearised, b.linearised, outcomes, policy.confidence)
    p = max(found.p, alone.p) if alone.defaults < policy.exact_below else found.p
    error = math.hypot(found.standard_error, 2 / min(each.ratio.high.defaults for each in (a, b)))
    return Comparison(
        a.name,
        b.name,
        alone,
        found,
        ends(found.logarithm, error, 1 - 2 * policy.alpha),
        p,
        equivalence(found.logarithm, error, policy.equivalence_margin),
        None,
    )


def weeks_to_decision(found: Difference, week: int, tests: int, policy: Policy) -> float | None:
    """Further weeks, at the volume so far, until the verdict that a difference as large as this one deserves is given
    with the policy's power: better or worse when it lies beyond the margin, else equivalent. No decision is before the
    first look.

    The variance falls as 1 / weeks; the test is the strictest of Holm's, α / tests. None for more than ten years: the
    difference lies near the margin, so that neither will be shown.
    """
    a_week, margin, size = (
        found.standard_error**2 * max(week, 1),
        math.log(policy.equivalence_margin),
        abs(found.logarithm),
    )
    alpha = policy.alpha / tests
    if size > margin:
        power = ndtri(policy.power)
        errors = max((ndtri(1 - alpha / 2) + power) / size, power / (size - margin))
    elif size < margin:
        errors = (ndtri(1 - alpha) + ndtri((1 + policy.power) / 2)) / (margin - size)
    else:
        return None
    weeks = a_week * float(errors) ** 2
    return max(weeks - week, policy.looks_at_weeks[0] - week, 0.0) if weeks <= LONGEST_WAIT_WEEKS else None
