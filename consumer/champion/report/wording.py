"""Figures in words and few digits, as every report says them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NONE = "-"


def number(value: float | None, digits: int = 2) -> str:
    """Fixed digits; a dash where there is none."""
    return NONE if value is None else f"{value:,.{digits}f}"


def percent(value: float | None, digits: int = 1) -> str:
    return NONE if value is None else f"{value:.{digits}%}"


def interval(low: float | None, high: float | None, digits: int = 2) -> str:
    """`1.90 to 4.17`; a bound that is not finite is open."""
    if low is None and high is None:
        return NONE
    return f"{number(low, digits)} to {'∞' if high is None else number(high, digits)}"


def ratio(told: dict[str, Any]) -> str:
    """A discrimination ratio with its interval, or why there is none."""
    if told["estimate"] is None:
        return str(told["why"])
    return f"{number(told['estimate'])} ({interval(told['interval_low'], told['interval_high'])})"


def headline(told: Mapping[str, Any]) -> list[str]:
    """What the dossier comes to, in sentences."""
    said = told["recommendation"]
    first, *others = said["sentences"]
    others += other_champion(told)
    if said["unfounded"]:
        return [
            f"Nobody may be promoted on this: {said['unfounded']}.",
            f"The figures alone would say: {first}",
            *others,
        ]
    return [first, *others]


def other_champion(told: Mapping[str, Any]) -> list[str]:
    """A warning where the policy compares with another model than the one in force; dossiers of before know of none."""
    rules, named = told.get("in_force"), told["terms"]["policy"]["champion"]
    if not rules or rules["champion"] in (None, named):
        return []
    return [
        f"Mind that the champion in force is {rules['champion']} (revision {rules['revision']}), and the policy "
        f"compares with {named}: nothing here says whether a model is better than {rules['champion']}."
    ]


def rows_line(told: dict[str, Any]) -> str:
    """How much was looked at."""
    rows, question = told["evaluation"]["rows"], told["question"]
    return (
        f"label {question['label']} as known on {question['as_of'][:10]}: {rows['transactions']:,} transactions of "
        f"{rows['week']} whole weeks are old enough, {rows['approved']:,} were approved, "
        f"{percent(rows['coverage'])} of these have an outcome, {rows['evaluated']:,} were evaluated "
        f"({rows['defaults']:,} defaults, {rows['customers']:,} customers)"
    )
