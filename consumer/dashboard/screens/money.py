"""What each policy would have earned or lost against what was decided, and how that hangs on the economics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from consumer.champion.evaluations import Stored
from consumer.champion.report.wording import number, percent
from consumer.dashboard import captions, charts, data, parts
from consumer.dashboard.choice import Choice
from consumer.evaluation.money import Economics
from consumer.evaluation.thresholds import Thresholds, thresholds


def show(choice: Choice) -> None:
    found = parts.evaluation(choice)
    if found is not None:
        policies = st.container()
        _sensitivity(found.document)  # needs no counting, so it stands while that takes place
        with policies, parts.may_be_away("What each would have earned"):
            _policies(found, thresholds(found.document, data.curves(found.listed).shares))
    _as_stored(choice)


@st.fragment
def _policies(found: Stored, at_shares: Thresholds) -> None:
    st.header("Had each declined what it flags")
    given = at_shares.economics
    left, right = st.columns(2)
    # keys of the policy's own values: an evaluation by another policy begins with those of that one
    margin = left.number_input(
        "Margin, % of the amount", 0.0, 100.0, given.margin * 100, 0.5, key=f"margin {given.margin}",
        help="Earned when it is repaid.",
    )  # fmt: skip
    loss = right.number_input(
        "Loss given default, % of the amount", 0.0, 100.0, given.loss_given_default * 100, 5.0,
        key=f"loss {given.loss_given_default}", help="Lost when it defaults.",
    )  # fmt: skip
    economics = Economics(margin=margin / 100, loss_given_default=loss / 100)
    is_given = (round(economics.margin, 6), round(economics.loss_given_default, 6)) == (
        given.margin,
        given.loss_given_default,
    )
    at_share = at_shares.at(at_shares.own, given if is_given else economics)
    rows = [
        {
            "scorer": each.scorer,
            "would decline": f"{each.flagged:,}",
            "loss avoided": number(each.loss_avoided, 0),
            "margin forgone": number(each.margin_forgone, 0),
            "opportunity": captions.money(each.opportunity, each.opportunity_low, each.opportunity_high),
        }
        for each in at_share
    ]
    captions.table(rows, "scorer")
    frame = pd.DataFrame(
        [
            {"scorer": e.scorer, "estimate": e.opportunity, "low": e.opportunity_low, "high": e.opportunity_high}
            for e in at_share
        ]
    )
    whose = "the policy's economics, as `bnpl-shadow evaluate`" if is_given else "economics of your own"
    charts.show(
        charts.intervals(
            frame,
            charts.Style([each.scorer for each in at_share]),
            "opportunity (in the currency of the amounts)",
            {"as decided": 0.0},
            ",.0f",
        ),
        "Opportunity: " + ", ".join(f"{each.scorer} {each.opportunity:,.0f}" for each in at_share),
        f"At the rules' share, by {whose}: profit of a policy that declines its high band, less the profit of what "
        f"was decided. Only of what was approved; no forecast. {captions.of_evaluation(found.document)}",
        frame,
    )


def _sensitivity(told: Mapping[str, Any]) -> None:
    st.header("Sensitivity")
    scorers = told["evaluation"]["scorers"]
    rows = []
    for at, scenario in enumerate(scorers["rules"]["money"]["sensitivity"]):
        row = {"margin": percent(scenario["margin"]), "loss given default": percent(scenario["loss_given_default"])}
        row |= {name: number(each["money"]["sensitivity"][at]["opportunity"], 0) for name, each in scorers.items()}
        rows.append(row)
    captions.table(rows, ["margin", "loss given default"])
    st.caption(
        "The opportunity when both economics are half, as given, and one and a half times as large. Points without "
        f"intervals: the sensitivity is the range. {captions.of_evaluation(told)}"
    )


def _as_stored(choice: Choice) -> None:
    st.header("Column opportunity_cost of shadow_predictions")
    found = data.opportunities(choice.artifact, choice.as_of)
    if not found:
        st.info(captions.none_scored(choice))
        return
    rows = [
        {
            "champion": each.champion,
            "from": f"{each.first:%Y-%m-%d}",
            "to": f"{each.last:%Y-%m-%d}",
            "transactions": f"{each.transactions:,}",
            "not known (yet)": f"{each.unknown:,}",
            "champion and decision differ": f"{each.differing:,}",
            "sum": number(each.total, 0),
        }
        for each in found
    ]
    captions.table(rows, "champion")
    st.caption(
        "Had the champion of the time decided by the threshold it was exported with, against what was decided. "
        f"Transactions before {choice.as_of:%Y-%m-%d %H:%M} UTC with the outcomes known then, as "
        "`shadow_predictions_as_of` has it; by the economics in force now. A sum over what is known, so without "
        "interval."
    )
