"""The leaderboard, and how each score lies, orders and fits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from consumer.champion.report.wording import interval, number, ratio
from consumer.dashboard import captions, charts, data, parts
from consumer.dashboard.choice import Choice
from consumer.evaluation.curves import Distribution, Roc
from consumer.evaluation.sample import RULES

Told = Mapping[str, Any]


def show(choice: Choice) -> None:
    found = parts.evaluation(choice)
    if found is None:
        return
    told = found.document
    parts.standing(told)
    style = charts.Style(list(told["evaluation"]["scorers"]))
    st.header("Leaderboard")
    _leaderboard(told, style)
    left, right = st.columns(2)
    with left:
        _lift(told, style)
    with right:
        _calibration(told, style)
    with parts.may_be_away("What is counted from its rows"):
        curves = data.curves(found.listed)
        left, right = st.columns(2)
        with left:
            _roc(curves.roc, told, style)
        with right:
            _distribution(curves.distributions, told)


def _leaderboard(told: Told, style: charts.Style) -> None:
    scorers, targets = told["evaluation"]["scorers"], told["terms"]["targets"]
    verdicts = {(each["model"], each["against"]): each["verdict"] for each in told["verdicts"]}
    champion = told["terms"]["policy"]["champion"]
    rows = [
        {
            "scorer": name,
            "ratio": ratio(each["ratio"]),
            "level": each["level"] or "-",
            "against the rules": verdicts.get((name, RULES), "-"),
            f"against {champion}": verdicts.get((name, champion), "-"),
            "AUC": _figure(each["ranking"], "auc", "auc_low", "auc_high", 3),
            "KS": number(each["ranking"]["ks"], 3),
            "observed / expected": _observed_expected(each["calibration"]),
            "high band": captions.rate(each["ratio"]["high"]),
        }
        for name, each in _by_ratio(scorers)
    ]
    captions.table(rows, "scorer")
    for model, why in told["evaluation"]["left_out"].items():
        st.warning(f"{model} is left out: {why}.")
    known = [
        {
            "scorer": name,
            "estimate": r["estimate"],
            "low": r["interval_low"],
            "high": r["interval_high"] or r["estimate"],
        }
        for name, each in scorers.items()
        if (r := each["ratio"])["estimate"] is not None
    ]
    meaning = "Ratio: default rate of the high band over that of the low band, at the rules' share."
    caption = f"{meaning} {captions.of_evaluation(told)}"
    if not known:
        st.caption(f"No ratio can be given yet. {caption}")
        return
    marks = {"minimum": targets["minimum"], "acceptable": targets["acceptable"][0], "success": targets["success"]}
    frame = pd.DataFrame(known)
    charts.show(
        charts.intervals(frame, style, "discrimination ratio (times)", marks),
        "Discrimination ratios with intervals: " + ", ".join(f"{e['scorer']} {e['estimate']:.2f}" for e in known),
        caption,
        frame,
    )


def _by_ratio(scorers: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted(scorers.items(), key=lambda each: -(each[1]["ratio"]["estimate"] or 0.0))


def _figure(told: Told, name: str, low: str, high: str, digits: int) -> str:
    if told[name] is None:
        return "-"
    return f"{number(told[name], digits)} ({interval(told[low], told[high], digits)})"


def _observed_expected(calibration: Told | None) -> str:
    """Of probabilities alone."""
    if calibration is None:
        return "no probability"
    return _figure(calibration["observed_expected"], "estimate", "interval_low", "interval_high", 2)


def _roc(curves: list[Roc], told: Told, style: charts.Style) -> None:
    st.header("ROC")
    if not curves:
        st.info("No curve: all evaluated transactions defaulted, or none did.")
        return
    frame = pd.DataFrame(
        [
            {"scorer": each.scorer, "others": x, "defaulters": y}
            for each in curves
            for x, y in zip(each.others, each.defaulters, strict=True)
        ]
    )
    drawn = charts.lines(
        frame,
        style,
        alt.X("others:Q", title="share of the others flagged", axis=alt.Axis(format="%")),
        alt.Y("defaulters:Q", title="share of defaulters flagged", axis=alt.Axis(format="%")),
        points=False,
    )
    aucs = {name: each["ranking"] for name, each in told["evaluation"]["scorers"].items()}
    said = "; ".join(f"{name} {_figure(each, 'auc', 'auc_low', 'auc_high', 3)}" for name, each in aucs.items())
    charts.show(
        alt.layer(charts.diagonal(1.0), drawn),
        f"ROC curves. Area under each: {said}",
        f"Area: {said}. {captions.of_evaluation(told)}",
        frame,
    )


def _lift(told: Told, style: charts.Style) -> None:
    st.header("Lift")
    frame = pd.DataFrame(
        [
            {
                "scorer": name,
                "tenth": each["decile"],
                "lift": each["lift"],
                "rows": each["rate"]["rows"],
                "defaults": each["rate"]["defaults"],
                "rate": each["rate"]["rate"],
                "low": each["rate"]["interval_low"],
                "high": each["rate"]["interval_high"],
            }
            for name, figures in told["evaluation"]["scorers"].items()
            for each in figures["deciles"]
            if each["lift"] is not None
        ]
    )
    if frame.empty:
        st.info("No lift: no evaluated transaction defaulted.")
        return
    drawn = charts.lines(
        frame,
        style,
        alt.X("tenth:O", title="tenth of the score, the highest first", axis=alt.Axis(labelAngle=0)),
        alt.Y("lift:Q", title="default rate / that of all (times)"),
        points=True,
    )
    top = frame[frame["tenth"] == 1]
    said = ", ".join(f"{row.scorer} {row.lift:.2f}" for row in top.itertuples())
    charts.show(
        alt.layer(charts.level(1.0), drawn),
        f"Lift by tenths of each score; in the first tenth: {said}",
        f"Each point: a tenth, {int(frame['rows'].min()):,} transactions or more; intervals of the rates are in the "
        f"table. {captions.of_evaluation(told)}",
        frame,
    )


def _calibration(told: Told, style: charts.Style) -> None:
    st.header("Calibration")
    frame = pd.DataFrame(
        [
            {
                "scorer": name,
                "score": each["mean_score"],
                "rate": each["rate"]["rate"],
                "low": each["rate"]["interval_low"],
                "high": each["rate"]["interval_high"],
                "rows": each["rate"]["rows"],
                "defaults": each["rate"]["defaults"],
            }
            for name, figures in told["evaluation"]["scorers"].items()
            if figures["calibration"] is not None
            for each in figures["deciles"]
        ]
    )
    if frame.empty:
        st.info("No model claims that its score is a probability.")
        return
    style = charts.Style(style.names, list(dict.fromkeys(frame["scorer"])))
    x = alt.X("score:Q", title="mean score of a tenth (probability)", axis=alt.Axis(format="%"))
    drawn = charts.lines(
        frame, style, x, alt.Y("rate:Q", title="default rate of it", axis=alt.Axis(format="%")), points=True
    )
    bars = alt.Chart(frame).mark_rule().encode(x=x, y="low:Q", y2="high:Q", color=style.colour())
    charts.show(
        alt.layer(charts.diagonal(float(frame[["score", "high"]].max().max())), bars, drawn),
        "Default rate against mean score, by tenths; on the dashed line the scores are right",
        "Only of what the rules approved: a model that fits all applicants need not fit these. "
        f"{captions.of_evaluation(told)}",
        frame,
    )


def _distribution(found: list[Distribution], told: Told) -> None:
    st.header("Score distribution")
    names = [each.scorer for each in found]
    champion = told["terms"]["policy"]["champion"]
    chosen = st.selectbox("Scorer", names, names.index(champion) if champion in names else 0, key="distribution_of")
    each = next(each for each in found if each.scorer == chosen)
    frame = pd.DataFrame(
        [
            {"score": begin, "end": end, "what": what, "share": share}
            for what, shares in ((charts.DEFAULTED, each.defaulters), (charts.OTHER, each.others))
            for begin, end, share in zip(each.begins, each.ends, shares, strict=True)
        ]
    )
    palette, domain = charts.palette(), [charts.DEFAULTED, charts.OTHER]
    legend = alt.Legend(orient="top")
    chart = (
        alt.Chart(frame)
        .mark_line(interpolate="step-after", strokeWidth=2)
        .encode(
            x=alt.X("score:Q", title=f"score of {chosen}"),
            y=alt.Y("share:Q", title="share of each kind", axis=alt.Axis(format="%")),
            color=alt.Color(
                "what:N", title=None, scale=alt.Scale(domain=domain, range=[palette[2], palette[1]]), legend=legend
            ),
            strokeDash=alt.StrokeDash(
                "what:N", title=None, scale=alt.Scale(domain=domain, range=[[1, 0], [6, 3]]), legend=legend
            ),
        )
    )
    rows = told["evaluation"]["rows"]
    charts.show(
        chart,
        f"Distribution of the scores of {chosen} among {rows['defaults']:,} defaulted transactions and the others",
        f"The outermost bins hold what lies beyond; shares, without intervals. {captions.of_evaluation(told)}",
        frame,
    )
