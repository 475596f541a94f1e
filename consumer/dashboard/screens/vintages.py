"""Defaults by week of origination, and how far each week can be judged."""

from __future__ import annotations

import altair as alt
import pandas as pd
import streamlit as st

from consumer.champion.report.wording import percent
from consumer.dashboard import captions, charts, data
from consumer.dashboard.choice import Choice
from consumer.errors import NothingToEvaluate
from consumer.views.vintages import Cell, Course, Vintage

_SETTLED, _OPEN = "settled", "not settled: will change"


def show(choice: Choice) -> None:
    try:
        weeks, courses = data.weeks(choice.artifact, choice.label, choice.as_of)
    except NothingToEvaluate:
        st.info(captions.none_scored(choice))
        return
    settled = sum(_is_settled(each) for each in weeks)
    st.caption(
        f"n = {sum(each.transactions for each in weeks):,} transactions of {len(weeks)} ISO weeks (UTC), {settled} "
        f"of them settled; label {choice.label} as known on {choice.as_of:%Y-%m-%d %H:%M} UTC. 95% intervals "
        "(Wilson)."
    )
    if settled < len(weeks):
        st.warning(
            f"Not settled, and drawn grey, are {len(weeks) - settled} of {len(weeks)} weeks: not all transactions of "
            f"them are old enough for {choice.label} yet, or less than {data.policy().minimum_coverage:.0%} of these "
            "have an outcome. Their rates will change."
        )
    _weeks(weeks, choice)
    _courses(courses, choice)


def _is_settled(each: Vintage | Cell) -> bool:
    return each.mature and (each.coverage or 0) >= data.policy().minimum_coverage


def _weeks(weeks: list[Vintage], choice: Choice) -> None:
    st.header("Default rate by week of origination")
    frame = pd.DataFrame(
        [
            {
                "week": each.week,
                "state": _SETTLED if _is_settled(each) else _OPEN,
                "rate": each.observed.rate,
                "low": each.observed.interval_low,
                "high": each.observed.interval_high,
                "transactions": each.transactions,
                "approved": each.approved,
                "old enough": each.old_enough,
                "observed": each.observed.rows,
                "defaults": each.observed.defaults,
                "coverage": each.coverage,
            }
            for each in weeks
        ]
    )
    known = frame[frame["rate"].notna()]
    if known.empty:
        st.info("No outcome is known of any week yet.")
    else:
        charts.show(
            _rates(frame),
            "Default rate by week of origination: "
            + ", ".join(f"{r.week} {r.rate:.1%} ({r.state})" for r in known.itertuples()),
            f"n = {int(known['observed'].sum()):,} approved transactions with a known outcome, "
            f"{known['week'].iloc[0]} to {known['week'].iloc[-1]}; label {choice.label}; 95% intervals.",
            known,
        )
    rows = [
        {
            "week": each.week,
            "state": _SETTLED if _is_settled(each) else _OPEN,
            "transactions": f"{each.transactions:,}",
            "approved": f"{each.approved:,}",
            "old enough": f"{each.old_enough:,}",
            "coverage": percent(each.coverage),
            "defaults": f"{each.observed.defaults:,}",
            "default rate": captions.rate(each.observed) if each.observed.rows else "none known yet",
        }
        for each in weeks
    ]
    captions.table(rows, "week")
    st.caption(
        "Old enough: approved, and the label with its grace is over. Coverage: how many of these have an outcome. "
        "Rate: of those with one."
    )


def _rates(frame: pd.DataFrame) -> charts.Drawn:
    """Weeks that are not settled stand on grey, also where nothing is known of them yet."""
    domain = [_SETTLED, _OPEN]
    colour = alt.Color(
        "state:N",
        title=None,
        scale=alt.Scale(domain=domain, range=[charts.palette()[1], charts.MUTED]),
        legend=alt.Legend(orient="top"),
    )
    shape = alt.Shape("state:N", title=None, scale=alt.Scale(domain=domain, range=["circle", "cross"]))
    x = alt.X("week:O", title="ISO week of origination (UTC)", axis=alt.Axis(labelAngle=0))
    ground = alt.Chart(frame).transform_filter(alt.datum.state == _OPEN).mark_rect(color=charts.MUTED, opacity=0.2)
    base = alt.Chart(frame).transform_filter("isValid(datum.rate)").encode(x=x, color=colour)
    reach = base.mark_rule(strokeWidth=2).encode(
        y=alt.Y("low:Q", title="default rate", axis=alt.Axis(format="%"), scale=alt.Scale(zero=False)), y2="high:Q"
    )
    return alt.layer(
        ground.encode(x=x), reach, base.mark_point(size=110, filled=True, opacity=1).encode(y="rate:Q", shape=shape)
    )


def _courses(courses: list[Course], choice: Choice) -> None:
    st.header("Defaulted by weeks since the transaction")
    frame = pd.DataFrame(
        [
            {
                "week": course.week,
                "since": cell.weeks_since,
                "state": _SETTLED if _is_settled(cell) else _OPEN,
                "rate": cell.defaulted.rate,
                "low": cell.defaulted.interval_low,
                "high": cell.defaulted.interval_high,
                "observed": cell.defaulted.rows,
                "defaults": cell.defaulted.defaults,
                "coverage": cell.coverage,
                "label": cell.label,
            }
            for course in courses
            for cell in course.cells
            if cell.defaulted.rate is not None
        ]
    )
    if frame.empty:
        st.info("No outcome is known of any week yet.")
        return
    domain = [_SETTLED, _OPEN]
    base = alt.Chart(frame).encode(
        x=alt.X("since:O", title="weeks since the transaction", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("week:O", title="ISO week of origination (UTC)"),
    )
    is_settled, is_open = (alt.datum.state == each for each in domain)
    ink = alt.condition(alt.datum.rate > float(frame["rate"].max()) * 0.6, alt.value("white"), alt.value("black"))
    settled, young = base.transform_filter(is_settled), base.transform_filter(is_open)
    chart = alt.layer(
        settled.mark_rect().encode(
            color=alt.Color(
                "rate:Q", title="defaulted", scale=alt.Scale(scheme="blues", domainMin=0), legend=alt.Legend(format="%")
            )
        ),
        young.mark_rect(color=charts.MUTED, opacity=0.35),
        settled.mark_text(fontSize=11).encode(text=alt.Text("rate:Q", format=".1%"), color=ink),
        young.mark_text(fontSize=11, fontStyle="italic", color=charts.palette()[0]).encode(
            text=alt.Text("rate:Q", format=".1%")
        ),
    )
    charts.show(
        chart,
        "Share defaulted by week of origination and weeks since the transaction; cells that will change are grey",
        "Of the transactions of a week whose outcome is known (n, defaults and 95% intervals in the table), as "
        f"known on {choice.as_of:%Y-%m-%d %H:%M} UTC. A cell is of the label that is due first at or after that "
        "time; grey: not the whole week is old enough for that label, or too few of it have an outcome yet, and what "
        "is known of it leans to what is known early.",
        frame,
    )
