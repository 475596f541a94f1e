"""What stands beside every number: of how many rows, of which period, with which interval; and what is not settled."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import pandas as pd
import streamlit as st

from consumer.champion.evaluations import Listed
from consumer.champion.report.wording import interval, number, percent
from consumer.dashboard.choice import Choice
from consumer.evaluation.policy import Policy
from consumer.evaluation.rates import Rate
from consumer.evaluation.verdict import NO_VERDICT, Maturity

Told = Mapping[str, Any]
_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")


def of_evaluation(told: Told) -> str:
    """n, period and interval of an evaluation's figures."""
    rows = told["evaluation"]["rows"]
    return (
        f"n = {rows['evaluated']:,} evaluated transactions with {rows['defaults']:,} defaults of "
        f"{rows['customers']:,} customers, {period(told)}; {horizon(told)}. {confidence(told)} intervals."
    )


def period(told: Told) -> str:
    """Of the transactions: `2026-06-01 to 2026-07-12 (6 whole weeks)`."""
    first, last = evaluated_days(told)
    weeks = told["evaluation"]["rows"]["week"]
    whole = f"{weeks} whole week{'s' * (weeks != 1)}" if weeks else "no whole week is old enough yet"
    return f"{first:%Y-%m-%d} to {last:%Y-%m-%d} ({whole})"


def evaluated_days(told: Told) -> tuple[datetime, datetime]:
    """The first and the last day of the evaluated transactions."""
    began = datetime.fromisoformat(told["data"]["weeks_from"])
    return began, began + timedelta(weeks=max(told["evaluation"]["rows"]["week"], 1), days=-1)


def bounds(listed: Listed) -> str:
    """Of which transactions an evaluation was asked for."""
    told = (("since", listed.since), ("before", listed.until))
    return " and ".join(f"{word} {_moment(at.isoformat())}" for word, at in told if at)


def horizon(told: Told) -> str:
    return f"label {told['question']['label']} as known on {_moment(told['question']['as_of'])}"


def confidence(told: Told) -> str:
    return f"{1 - told['terms']['policy']['alpha']:.0%}"


def rate(told: Rate | Mapping[str, Any]) -> str:
    """`4.1% (3.9 to 4.3%), n = 8,120`."""
    each = told if isinstance(told, Mapping) else vars(told)
    if each["rate"] is None:
        return "no rows"
    return (
        f"{percent(each['rate'])} ({interval_percent(each['interval_low'], each['interval_high'])}), "
        f"n\u00a0=\u00a0{each['rows']:,}"
    )


def interval_percent(low: float | None, high: float | None) -> str:
    return interval(None if low is None else low * 100, None if high is None else high * 100, 1) + "%"


def money(value: float, low: float | None, high: float | None) -> str:
    return f"{number(value, 0)} ({interval(low, high, 0)})"


def none_scored(choice: Choice) -> str:
    before = "yet" if choice.is_now else f"of a transaction before {choice.as_of:%Y-%m-%d}; choose a later day"
    return f"No score by models {choice.artifact} is stored {before}."


def unsettled(told: Told) -> list[str]:
    """Why an evaluation's figures are not the last word; empty when they are."""
    policy = Policy.model_validate_json(json.dumps(told["terms"]["policy"]))
    rows = told["evaluation"]["rows"]
    maturity = Maturity(rows["week"], rows["coverage"])
    reasons = maturity.lacks(policy)
    if not reasons and (left := maturity.looks_left(policy)):
        reasons = [f"{left} of {len(policy.looks_at_weeks)} planned looks are still to come"]
    without = [each["model"] for each in told["verdicts"] if each["verdict"] == NO_VERDICT]
    if without and not maturity.lacks(policy):
        reasons.append(f"no verdict on {', '.join(dict.fromkeys(without))}")
    return reasons


def _moment(iso: str) -> str:
    at = datetime.fromisoformat(iso)
    return f"{at:%Y-%m-%d}" if at.time() == datetime.min.time() else f"{at:%Y-%m-%d %H:%M} UTC"


def table(rows: Sequence[Mapping[str, str]], index: str | list[str]) -> None:
    """A table of text that browsers and screen readers take for one. What comes from outside cannot be markup in it."""
    st.table(pd.DataFrame([{name: plain(value) for name, value in row.items()} for row in rows]).set_index(index))


def plain(text: str) -> str:
    """Text as Streamlit's Markdown shows it unchanged: CommonMark lets every ASCII punctuation be escaped."""
    return _PUNCTUATION.sub(r"\\\g<0>", text)
