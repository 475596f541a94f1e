"""Whether traffic has moved away from what the models were trained on."""

from __future__ import annotations

import altair as alt
import pandas as pd
import streamlit as st

from consumer.champion.report.wording import interval, number, percent
from consumer.dashboard import captions, charts, data
from consumer.dashboard.choice import Choice
from consumer.evaluation.drift.judge import PSI_ALARM, PSI_WARNING, FlagShift, Shift
from consumer.services.drift.look import Drift

_STATES = ("ok", "warning", "ALARM")
_MUTED, _OPEN = "muted", "not judged"
_FEATURES_SHOWN = 15
_ROW, _AXES = 24, 90
"""Pixels of a bar with its gap, and of what stands around them."""


def show(choice: Choice) -> None:
    asked = choice.as_of.date()
    found = as_asked = data.drift(choice.artifact, asked)
    if not found.judged and (newest := data.newest_drift(choice.artifact, asked)):
        st.info(f"Nothing can be judged in the week before {asked}. This is the newest that could be, before {newest}.")
        found = data.drift(choice.artifact, newest)
    st.caption(_caption(found))
    for note in found.notes:
        st.warning(f"{note}." if choice.is_now else note)
    if found.judged:
        worst = _STATES[found.worst]
        alarms = [name for (_, name), state in found.states.items() if state == found.worst and state]
        st.markdown(f"Worst state: **{worst}**{' (' + ', '.join(alarms) + ')' if alarms else ''}.")
        _shifts("Features", found.features, found)
        _shifts("Scores", found.scores, found)
        _flags(found.flags, found)
    else:
        st.info("Nothing can be judged in this week; choose another day in the sidebar.")
    _calibrated(as_asked)


def _caption(found: Drift) -> str:
    return (
        f"n = {found.rows:,} transactions of {found.first_day} to before {found.as_of} (UTC), against the training "
        f"of {found.version}: {found.source}. PSI against bins of training; it counts only when it is more than "
        "chance (the critical value), and a state needs two windows in a row."
    )


def _shifts(title: str, shifts: list[Shift], found: Drift) -> None:
    st.header(title)
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
    measured = frame[frame["psi"].notna() & (frame["state"] != _MUTED)].head(_FEATURES_SHOWN)
    if not measured.empty:
        charts.show(
            _bars(measured),
            f"{title} by population stability index, the first to look at on top: "
            + ", ".join(f"{row.name} {row.psi:.3f} {row.state}" for row in measured.head(5).itertuples(index=False)),
            f"n = {found.rows:,} transactions, {found.first_day} to before {found.as_of}; {len(measured)} of "
            f"{len(frame)}, the first to look at on top. What is muted moves by construction and stands in the "
            "table. The critical value there takes the place of an interval.",
            frame,
            height=_ROW * len(measured) + _AXES,
        )
    for each in shifts:
        if each.not_measured:
            st.caption(f"{each.name}: {each.not_measured}.")


def _bars(measured: pd.DataFrame) -> charts.Drawn:
    """Told by colour, and by a word at the end of each bar."""
    domain, palette = [*_STATES, _OPEN], charts.palette()
    colours = [*(palette[at] for at in (1, 5, 2)), charts.MUTED]
    top = max(float(measured["psi"].max()), PSI_ALARM) * 1.15
    base = alt.Chart(measured).encode(
        x=alt.X("psi:Q", title="population stability index", scale=alt.Scale(domain=[0, top])),
        y=alt.Y("name:N", title=None, sort=None, axis=alt.Axis(labelLimit=320)),
        color=alt.Color("state:N", title=None, scale=alt.Scale(domain=domain, range=colours), legend=None),
    )
    marks = pd.DataFrame({"at": [PSI_WARNING, PSI_ALARM], "what": ["warning", "alarm"]})
    lines = alt.Chart(marks).mark_rule(color=charts.MUTED, strokeDash=[4, 3]).encode(x="at:Q")
    words = lines.mark_text(color=charts.MUTED, align="left", dx=3, baseline="bottom")
    states = base.mark_text(align="left", dx=4).encode(text="state:N")
    return alt.layer(base.mark_bar(size=12), states, lines, words.encode(text="what:N", y=alt.value(-2)))


def _state(each: Shift | FlagShift) -> str:
    if isinstance(each, Shift) and each.muted:
        return _MUTED
    return _OPEN if each.state is None else _STATES[each.state]


def _flags(flags: list[FlagShift], found: Drift) -> None:
    st.header("Flags")
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
        f"{found.first_day} to before {found.as_of}; the interval is of the difference, 95% of all scorers together."
    )


def _calibrated(found: Drift) -> None:
    weeks = found.vintages
    st.header("Defaults against scores, by week")
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
    style = charts.Style([each.name for each in found.scores], models)
    last = weeks[-1].week
    x = alt.X("week:O", title="week of origination, its Monday (UTC)", axis=alt.Axis(labelAngle=0))
    drawn = charts.lines(
        frame, style, x, alt.Y("ratio:Q", title="defaults / expected (times)", scale=alt.Scale(zero=False)), points=True
    )
    newest = [f"{e.model} {number(e.ratio)} ({interval(e.low, e.high)})" for e in weeks if e.week == last]
    rows = int(frame.groupby("week")["rows"].max().sum())
    reach = alt.Chart(frame).mark_rule().encode(x=x, y="low:Q", y2="high:Q", color=style.colour())
    charts.show(
        alt.layer(charts.level(1.0), reach, drawn),
        "Defaults over the sum of scores by week, by model; 1 is right",
        f"n = {rows:,} transactions of {frame['week'].nunique()} weeks, full term, as known on {found.as_of}; young "
        f"weeks hold short plans only, so they are not settled. The newest: {'; '.join(newest)}, 95% (exact Poisson). "
        "Numbers are in the table.",
        frame,
    )
