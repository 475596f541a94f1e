"""What runs now: rate, lag, decisions and scores, asked again every few seconds."""

from __future__ import annotations

import altair as alt
import numpy as np
import pandas as pd
import streamlit as st

from consumer.champion.report.wording import number, percent
from consumer.clock import utc_now
from consumer.dashboard import captions, charts, data, parts
from consumer.dashboard.choice import Choice
from consumer.evaluation.rates import wilson
from consumer.views.live import Live
from consumer.watch.lag_watch import LagWatch
from consumer.watch.status import LagReport

_REFRESH_SECONDS = 3
_PERIOD_SECONDS, _STEP_SECONDS = 600, 5
_RATE_SECONDS = 60
_CONFIDENCE = 0.95


def show(choice: Choice) -> None:
    """As of the machine's clock, whatever day is chosen."""
    if not choice.is_now:
        st.info("This page is of now; the chosen day is for the other pages.")
    _services()


@st.fragment(run_every=_REFRESH_SECONDS)
def _services() -> None:
    with parts.may_be_away("The lag"):
        _lag(data.lag_watches())
    with parts.may_be_away("What was scored"):
        _scored()


def _lag(watches: list[LagWatch]) -> None:
    st.header("Lag")
    rows = [_lag_row(each.report) for each in watches]
    captions.table(rows, "group")
    failed = [each.report.failed for each in watches if each.report.failed]
    for why in dict.fromkeys(failed):
        st.warning(f"Lag is as last seen: {why}")
    st.caption(
        "Messages that a group has yet to read, and for how long the oldest of them has waited. Of all partitions, "
        "now; `bnpl-shadow lag` has them one by one."
    )


def _lag_row(report: LagReport) -> dict[str, str]:
    if report.look is None:
        return {"group": report.group, "messages": "not known yet", "oldest waits": "-", "state": "-"}
    seconds = max((each.seconds(report.look.at) for each in report.partitions), default=0.0)
    worst = "not known yet" if report.worst is None else report.worst.name
    return {
        "group": report.group,
        "messages": f"{report.messages:,}",
        "oldest waits": f"{seconds:,.1f} s",
        "state": worst if report.look.has_members else f"{worst}; nobody reads",
    }


def _scored() -> None:
    found = data.now(_PERIOD_SECONDS, _STEP_SECONDS)
    if found is None:
        st.info("Nothing is stored yet. `bnpl-shadow produce FILE` sends transactions, score and sink do the rest.")
        return
    live, newest = found.live, found.newest
    st.header("Scored")
    ago = (utc_now() - newest.scored_at).total_seconds()
    minutes = _PERIOD_SECONDS // 60
    with st.container(horizontal=True, gap="large"):
        for label, value in {
            f"Events a second, last {_RATE_SECONDS} s": number(live.rate(_RATE_SECONDS), 1),
            f"Declined, last {minutes} min": percent(_share(live.declined, live.events)),
            f"High risk by the rules, last {minutes} min": percent(_share(live.flagged, live.events)),
            f"Champion, in mode {newest.mode}": newest.champion,
        }.items():
            st.metric(label, value, width="content")
    st.caption(
        f"n = {live.events:,} events scored from {live.since:%H:%M:%S} to {live.until:%H:%M:%S} "
        f"UTC{_interval('declined', live.declined, live.events)}{_interval('high risk', live.flagged, live.events)}. "
        f"The newest was scored at {newest.scored_at:%Y-%m-%d %H:%M:%S} UTC, {ago:,.0f} s ago; the table holds "
        f"{newest.rows:,} rows."
    )
    if not live.events:
        st.info(f"Nothing was scored in the last {_PERIOD_SECONDS // 60} minutes.")
        return
    _rate_chart(live)
    _score_table(live)


def _share(count: int, of: int) -> float | None:
    return count / of if of else None


def _interval(what: str, count: int, of: int) -> str:
    if not of:
        return ""
    low, high = wilson(np.array([count / of]), np.array([float(of)]), _CONFIDENCE)
    return f"; {what} {captions.interval_percent(float(low[0]), float(high[0]))} (95%)"


def _rate_chart(live: Live) -> None:
    seconds = live.step_seconds
    frame = pd.DataFrame(
        [
            {"time": each.begins, "events": what, "rate": count / seconds}
            for each in live.steps
            for what, count in (("approved", each.events - each.declined), ("declined", each.declined))
        ]
    )
    rules, model = charts.palette()[0], charts.palette()[2]
    chart = (
        alt.Chart(frame)
        .mark_bar(size=4)
        .encode(
            x=alt.X(
                "time:T",
                title="scored at (UTC)",
                scale=alt.Scale(type="utc", domain=[live.since, live.until]),
                axis=alt.Axis(format="%H:%M", tickCount=_PERIOD_SECONDS // 60),
            ),
            y=alt.Y("rate:Q", title="events a second"),
            color=alt.Color(
                "events:N",
                title=None,
                scale=alt.Scale(domain=["approved", "declined"], range=[rules, model]),
                legend=alt.Legend(orient="top"),
            ),
            order=alt.Order("events:O"),
        )
    )
    charts.show(
        chart,
        f"Events scored a second, by decision, in steps of {seconds} seconds: {live.rate(_RATE_SECONDS):.1f} in the "
        "last minute",
        f"n = {live.events:,} events, in steps of {seconds} s; counts, so without interval.",
        frame,
    )


def _score_table(live: Live) -> None:
    rows = [
        {
            "model": each.model,
            "events": f"{each.events:,}",
            "no score": f"{each.failed:,}",
            "flagged": percent(_share(each.flagged, each.events - each.failed)),
            "mean score": number(each.mean, 4),
            "standard error": number(each.standard_error, 5),
            "10 % below": number(each.tenth, 4),
            "median": number(each.median, 4),
            "10 % above": number(each.ninetieth, 4),
        }
        for each in live.scores
    ]
    st.header("Scores")
    captions.table(rows, "model")
    st.caption(
        f"n = {live.events:,} events, {live.since:%H:%M:%S} to {live.until:%H:%M:%S} UTC. Flagged: at the threshold "
        "that the model was exported with, which is not the rules' share; the page Rules against models compares at "
        "one share."
    )
