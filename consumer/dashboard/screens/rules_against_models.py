"""One slider re-thresholds rules and models at the same flagged share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from consumer.champion.evaluations import Stored
from consumer.champion.report.wording import interval, number, percent
from consumer.dashboard import captions, charts, data, parts
from consumer.dashboard.choice import Choice
from consumer.evaluation.thresholds import AtShare, Thresholds, thresholds


def show(choice: Choice) -> None:
    found = parts.evaluation(choice)
    if found is None:
        return
    _at_share(found, thresholds(found.document, data.curves(found.listed).shares))


@st.fragment
def _at_share(found: Stored, at_shares: Thresholds) -> None:
    told = found.document
    place = st.select_slider(
        "Share of transactions that each flags",
        options=list(range(len(at_shares.shares))),
        value=at_shares.own,
        format_func=lambda at: _share(at_shares, at),
        key=f"share of {found.listed.sha256}",
        help="Rules and models flag the same share, each its own highest scores. Arrow keys move it.",
    )
    at_share = at_shares.at(place)
    style = charts.Style([each.scorer for each in at_share])
    captions.table([_row(each) for each in at_share], "scorer")
    st.caption(f"{_how(at_shares, place)} {captions.of_evaluation(told)}")
    left, middle, right = st.columns(3)
    with left:
        st.header("Ratio")
        _ratios(at_share, style, told)
    with middle:
        st.header("Lift")
        _lifts(at_share, style, told)
    with right:
        st.header("Money")
        _money(at_share, style, told)
    st.header("Ratio at every share")
    _at_every_share(at_shares, place, style, told)


def _share(at_shares: Thresholds, at: int) -> str:
    share = percent(at_shares.shares[at], 2 if at == at_shares.own else 1)
    return f"{share}, the rules' own" if at == at_shares.own else share


def _how(at_shares: Thresholds, place: int) -> str:
    if place == at_shares.own:
        told = "At the rules' own share: the rules by their own flags, the figures are those of `bnpl-shadow evaluate`."
    else:
        told = (
            "At another share than their own the rules flag by their risk score. Intervals are widened for customers "
            "with several transactions as much as `evaluate` found at the rules' own share."
        )
    return f"{told} Shares are weighted: a row stands for 1 / approval propensity of them, so counts of rows differ."


def _row(each: AtShare) -> dict[str, str]:
    return {
        "scorer": each.scorer,
        "flagged": f"{each.flagged:,}",
        "ratio": _ratio(each),
        "lift": number(each.lift),
        "high band": captions.rate(each.high),
        "low band": captions.rate(each.low),
        "loss avoided": number(each.loss_avoided, 0),
        "margin forgone": number(each.margin_forgone, 0),
        "opportunity": captions.money(each.opportunity, each.opportunity_low, each.opportunity_high),
    }


def _ratio(each: AtShare) -> str:
    if each.ratio is None:
        return str(each.why)
    return f"{number(each.ratio)} ({interval(each.ratio_low, each.ratio_high)})"


def _ratios(at_share: list[AtShare], style: charts.Style, told: Mapping[str, Any]) -> None:
    known = [each for each in at_share if each.ratio is not None]
    if not known:
        st.info("Insufficient: too few defaults in the bands for any ratio.")
        return
    frame = pd.DataFrame(
        [{"scorer": e.scorer, "estimate": e.ratio, "low": e.ratio_low, "high": e.ratio_high} for e in known]
    )
    charts.show(
        charts.intervals(frame, style, "discrimination ratio (times)", {}),
        "Ratios at this share: " + ", ".join(f"{each.scorer} {each.ratio:.2f}" for each in known),
        captions.of_evaluation(told),
        frame,
    )


def _lifts(at_share: list[AtShare], style: charts.Style, told: Mapping[str, Any]) -> None:
    frame = pd.DataFrame(
        [
            {"scorer": e.scorer, "estimate": e.lift, "low": e.lift_low, "high": e.lift_high}
            for e in at_share
            if e.lift is not None
        ]
    )
    if frame.empty:
        st.info("Insufficient: nothing is flagged, or nothing defaulted.")
        return
    charts.show(
        charts.intervals(frame, style, "rate of flagged / of all (times)", {"all": 1.0}),
        "Lift at this share: " + ", ".join(f"{row.scorer} {row.estimate:.2f}" for row in frame.itertuples()),
        f"The interval is that of the high band's rate; that of all is taken as known. {captions.of_evaluation(told)}",
        frame,
    )


def _money(at_share: list[AtShare], style: charts.Style, told: Mapping[str, Any]) -> None:
    frame = pd.DataFrame(
        [
            {"scorer": e.scorer, "estimate": e.opportunity, "low": e.opportunity_low, "high": e.opportunity_high}
            for e in at_share
        ]
    )
    economics = told["terms"]["policy"]["economics"]
    charts.show(
        charts.intervals(frame, style, "opportunity (currency)", {"as decided": 0.0}, ",.0f"),
        "Opportunity at this share: " + ", ".join(f"{each.scorer} {each.opportunity:,.0f}" for each in at_share),
        f"Against what was decided, had each declined what it flags: margin {percent(economics['margin'])}, loss "
        f"given default {percent(economics['loss_given_default'], 0)}. {captions.of_evaluation(told)}",
        frame,
    )


def _at_every_share(at_shares: Thresholds, place: int, style: charts.Style, told: Mapping[str, Any]) -> None:
    frame = pd.DataFrame(
        [
            {
                "scorer": each.scorer,
                "share": at_shares.shares[at],
                "ratio": each.ratio,
                "low": each.ratio_low,
                "high": each.ratio_high,
                "opportunity": each.opportunity,
            }
            for at in range(len(at_shares.shares))
            for each in at_shares.at(at)
            if each.ratio is not None
        ]
    )
    if frame.empty:
        st.info("Insufficient: too few defaults in the bands for any ratio.")
        return
    drawn = charts.lines(
        frame,
        style,
        alt.X("share:Q", title="share flagged", axis=alt.Axis(format="%")),
        alt.Y("ratio:Q", title="discrimination ratio (times)", scale=alt.Scale(zero=False)),
        points=False,
    )
    here = (
        alt.Chart(pd.DataFrame({"share": [at_shares.shares[place]]})).mark_rule(color=charts.MUTED).encode(x="share:Q")
    )
    charts.show(
        alt.layer(here, drawn),
        f"Discrimination ratio by flagged share; the line stands at {percent(at_shares.shares[place], 2)}",
        "Many ratios on one page: the best of them is too good. Intervals are in the table. "
        f"{captions.of_evaluation(told)}",
        frame,
    )
