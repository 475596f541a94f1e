"""How charts look: one colour, dash and shape a scorer wherever it appears, axes with units, a text and a table each.

Colours are Okabe and Ito's, which the colour-blind tell apart; dashes and shapes tell the same in greyscale. The dark
theme has lighter ones of the same hues.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from consumer.evaluation.sample import RULES

_LIGHT = ("#444444", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b07d00", "#56b4e9")
_DARK = ("#d0d0d0", "#4ea8de", "#ff8c42", "#2ec4a0", "#e6a5c9", "#f0c445", "#9bd7ff")
_DASHES = ([1, 0], [7, 3], [2, 2], [9, 3, 2, 3], [4, 4], [12, 3], [1, 3])
_SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right")
MUTED = "#8a8a8a"
"""What is not settled, and lines to compare with."""
HEIGHT = 300
_LINE = 12
Drawn = Any
"""A chart of Altair's, whose classes mypy cannot tell apart."""
DEFAULTED, OTHER = "defaulted", "did not default"


def is_dark() -> bool:
    """Of the visitor's theme."""
    return st.context.theme.type == "dark"


def palette() -> tuple[str, ...]:
    return _DARK if is_dark() else _LIGHT


class Style:
    """The marks of scorers, the rules first: those of a name are the same in every chart of the same models."""

    def __init__(self, models: Sequence[str], in_legend: Sequence[str] | None = None) -> None:
        """`in_legend`: those that a chart shows; without it all."""
        self.names = [RULES, *(each for each in models if each != RULES)]
        self._in_legend = [each for each in self.names if in_legend is None or each in in_legend]

    def colour(self, legend: bool = True) -> alt.Color:
        return alt.Color("scorer:N", title=None, scale=self._scale(palette()), legend=self._legend(legend))

    def dash(self) -> alt.StrokeDash:
        return alt.StrokeDash("scorer:N", title=None, scale=self._scale(_DASHES), legend=self._legend(True))

    def shape(self, legend: bool = True) -> alt.Shape:
        return alt.Shape("scorer:N", title=None, scale=self._scale(_SHAPES), legend=self._legend(legend))

    def _scale(self, marks: Sequence[Any]) -> alt.Scale:
        return alt.Scale(domain=self.names, range=[marks[at % len(marks)] for at in range(len(self.names))])

    def _legend(self, wanted: bool) -> alt.Legend | None:
        return alt.Legend(orient="top", symbolSize=120, symbolStrokeWidth=2, values=self._in_legend) if wanted else None


def show(chart: Drawn, alt_text: str, caption: str, table: pd.DataFrame, height: int = HEIGHT) -> None:
    """A chart with what it shows in words, its caption, and its numbers as a table."""
    # Streamlit moves the first and the last label inwards also where there is room: off what they name
    st.altair_chart(chart.properties(height=height).configure_axisDiscrete(labelFlush=False), alt=alt_text)
    st.caption(caption)
    with st.expander("As a table"):
        st.dataframe(table, hide_index=True, alt=alt_text)


def intervals(frame: pd.DataFrame, style: Style, title: str, marks: dict[str, float], fmt: str = ".2f") -> Drawn:
    """Estimate, low and high of each scorer on a line of its own; `marks` are values to compare with, by name."""
    base = alt.Chart(frame).encode(
        y=alt.Y("scorer:N", title=None, sort=style.names, axis=alt.Axis(labelFontSize=13)),
        color=style.colour(legend=False),
    )
    reach = base.mark_rule(strokeWidth=3).encode(
        x=alt.X("low:Q", title=title, scale=alt.Scale(zero=False), axis=alt.Axis(format=fmt)), x2="high:Q"
    )
    points = base.mark_point(size=130, filled=True, opacity=1).encode(
        x="estimate:Q",
        shape=style.shape(legend=False),
        tooltip=["scorer:N", *(alt.Tooltip(f"{name}:Q", format=fmt) for name in ("estimate", "low", "high"))],
    )
    layers = [reach, points]
    if marks:
        layers = [*_marked(marks), *layers]
    return alt.layer(*layers)


def _marked(marks: dict[str, float]) -> list[alt.Chart]:
    frame = pd.DataFrame({"at": list(marks.values()), "what": list(marks)})
    lines = alt.Chart(frame).mark_rule(color=MUTED, strokeDash=[4, 3]).encode(x="at:Q")
    words = [
        alt.Chart(frame[at : at + 1])
        .mark_text(color=MUTED, align="left", dx=3, baseline="bottom", fontSize=11)
        .encode(x="at:Q", y=alt.value(-2 - at % 2 * _LINE), text="what:N")  # neighbours in two lines
        for at in range(len(frame))
    ]
    return [lines, *words]


def lines(frame: pd.DataFrame, style: Style, x: alt.X, y: alt.Y, *, points: bool) -> Drawn:
    """A line a scorer, of columns scorer and those of the axes."""
    base = alt.Chart(frame).encode(x=x, y=y, color=style.colour())
    drawn = base.mark_line(strokeWidth=2).encode(strokeDash=style.dash())
    if not points:
        return alt.layer(drawn)
    return alt.layer(drawn, base.mark_point(size=60, filled=True, opacity=1).encode(shape=style.shape()))


def level(value: float) -> Drawn:
    """A horizontal line to compare with."""
    return alt.Chart(pd.DataFrame({"y": [value]})).mark_rule(color=MUTED, strokeDash=[4, 3]).encode(y="y:Q")


def diagonal(top: float) -> Drawn:
    frame = pd.DataFrame({"x": [0.0, top], "y": [0.0, top]})
    return alt.Chart(frame).mark_line(color=MUTED, strokeDash=[4, 3]).encode(x="x:Q", y="y:Q")
