"""Whether traffic has moved away from what the models were trained on."""

from __future__ import annotations

import altair as alt
import pandas as pd
import streamlit as st

from consumer.champion.report.wording import interval, number, percent
from consumer.dashboard import captions, charts, data
from consumer.dashboard.choice import Choice
from consumer.evaluation.drift.judge import PSI_ALARM, PSI_WARNING, FlagShift, Shift
from consumer.evaluation.drift.judge import Vintage as Calibrated
from consumer.services.drift.look import Drift

_STATES = ("ok", "warning", "ALARM")
_FEATURES_SHOWN = 15


def show(choice: Choice) -> None:
    found = data.drift(choice.artifact, choice.as_of.date())
    st.caption(_caption(found))
    for note in found.notes:
        st.warning(f"{note}." if choice.is_now else note)
    if not found.judged:
        st.info("Nothing can be judged in this week; choose another day in the sidebar.")
        return
    worst = _STATES[found.worst]
    alarms = [name for (_, name), state in found.states.items() if state == found.worst and state]
    st.markdown(f"Worst state: **{worst}**{' (' + ', '.join(alarms) + ')' if alarms else ''}.")
    _shifts("Features", found.features, found)
    _shifts("Scores", found.scores, found)
    _flags(found.flags, found)
    _calibrated(found.vintages, found.scores, choice)


def _caption(found: Drift) -> str:
    return (
        f"n = {found.rows:,} transactions of {found.first_day} to before {found.as_of} (UTC), against the training of "
        f"{found.version}: {found.source}. PSI against bins of training; it counts only when it is more than chance "
        f"(the "
        "critical value), and a state needs two windows in a row."
    )


def _shifts(title: str, shifts: list[Shift], found: Drift) -> None:
    st.subheader(title)
    frame = pd.DataFrame(
        [
            {
                "name": each.name,
                "state": _state(each),
                "psi": each.psi,
                "more than chance above": each.critical,
                "mean": each.mean,
                "mean in training": each.mean_in_training,
                "out of range": each.out_of_range,
                "rows": each.rows,
            }
            for each in shifts
        ]
    )
    measured = frame[frame["psi"].notna()].head(_FEATURES_SHOWN)
    if not measured.empty:
        domain = ["ok", "warning", "ALARM", "muted", "not judged"]
        palette = charts.palette()
        bars = (
            alt.Chart(measured)
            .mark_bar(size=11)
            .encode(
                x=alt.X("psi:Q", title="population stability index"),
                y=alt.Y("name:N", title=None, sort=None, axis=alt.Axis(labelLimit=320)),
                color=alt.Color(
                    "state:N",
                    title=None,
                    scale=alt.Scale(
                        domain=domain, range=[palette[1], palette[5], palette[2], charts.MUTED, charts.MUTED]
                    ),
                    legend=alt.Legend(orient="top"),
                ),
            )
        )
        marks = pd.DataFrame({"at": [PSI_WARNING, PSI_ALARM], "what": ["warning", "alarm"]})
        lines = alt.Chart(marks).mark_rule(color=charts.MUTED, strokeDash=[4, 3]).encode(x="at:Q")
        words = lines.mark_text(color=charts.MUTED, align="left", dx=3, baseline="top").encode(
            text="what:N", y=alt.value(0)
        )
        charts.show(
            alt.layer(bars, lines, words),
            f"{title} by population stability index, the first to look at on top: "
            + ", ".join(f"{row.name} {row.psi:.3f} {row.state}" for row in measured.head(5).itertuples(index=False)),
            f"n = {found.rows:,} transactions, {found.first_day} to before {found.as_of}; "
            f"{'the first ' + str(len(measured)) + ' of ' + str(len(frame)) if len(frame) > len(measured) else 'all'}, "
            "ordered by state, then by PSI times how much it moves the champion. The critical value stands for an "
            "interval.",
            frame,
        )
    for each in shifts:
        if each.not_measured:
            st.caption(f"{each.name}: {each.not_measured}.")


def _state(each: Shift | FlagShift) -> str:
    if isinstance(each, Shift) and each.muted:
        return "muted"
    return "not judged" if each.state is None else _STATES[each.state]


def _flags(flags: list[FlagShift], found: Drift) -> None:
    st.subheader("Flags")
    rows = [
        {
            "scorer": each.name,
            "state": _state(each),
            "flagged": percent(each.now.value, 2),
            "n": f"{each.now.rows:,}",
            "before": percent(each.base.value, 2) if each.base else "-",
            "of": each.against or "-",
            "difference": captions.interval_percent(each.low, each.high) if each.low is not None else "-",
        }
        for each in flags
    ]
    if not rows:
        st.info("No flag is stored of this week.")
        return
    captions.table(rows, "scorer")
    st.caption(
        f"{found.first_day} to before {found.as_of}; the interval is of the difference, 95 % of all scorers together."
    )


def _calibrated(weeks: list[Calibrated], scores: list[Shift], choice: Choice) -> None:
    st.subheader("Defaults against scores, by week")
    if not weeks:
        st.info("No week is old enough for its full term yet.")
        return
    frame = pd.DataFrame(
        [
            {
                "scorer": each.model,
                "week": each.week,
                "ratio": each.ratio,
                "low": each.low,
                "high": each.high,
                "rows": each.rows,
                "defaults": each.observed,
                "expected": each.expected,
            }
            for each in weeks
        ]
    )
    models = list(dict.fromkeys(frame["scorer"]))
    style = charts.Style([each.name for each in scores], models)
    last = weeks[-1].week
    x = alt.X("week:O", title="week of origination, its Monday (UTC)", axis=alt.Axis(labelAngle=0))
    drawn = charts.lines(
        frame, style, x, alt.Y("ratio:Q", title="defaults / expected (times)", scale=alt.Scale(zero=False)), points=True
    )
    newest = [f"{e.model} {number(e.ratio)} ({interval(e.low, e.high)})" for e in weeks if e.week == last]
    rows = int(frame.groupby("week")["rows"].max().sum())
    charts.show(
        alt.layer(charts.level(1.0), drawn),
        "Defaults over the sum of scores by week, by model; 1 is right",
        f"n = {rows:,} transactions of {frame['week'].nunique()} weeks, full term, as known on "
        f"{choice.as_of:%Y-%m-%d}; the newest: {'; '.join(newest)}, 95 % (exact Poisson). The others are in the table.",
        frame,
    )
