"""Several models and several looks: one error rate for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """The p-values of one look before correction, by (what is compared against, model): later looks need them."""

    week: int
    different: dict[str, dict[str, float]]
    equivalent: dict[str, dict[str, float]]


def holm(p: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down adjusted p-values."""
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, at in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, min((len(p) - rank) * p[at], 1.0))
        adjusted[at] = largest
    return adjusted


def corrected(now: Mapping[str, float], earlier: Sequence[Mapping[str, float]], tests: int) -> dict[str, float]:
    """The p-values of this look by model, adjusted for all `tests` that the policy plans.

    Looks and models of which nothing is known yet stand in with p = 1: what is rejected so is also rejected once they
    are known, so the error rate over all looks is Holm's.
    """
    known = [*now.values(), *(p for look in earlier for p in look.values())]
    padded = known + [1.0] * max(tests - len(known), 0)
    return dict(zip(now, holm(padded), strict=False))
