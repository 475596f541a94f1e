"""The plots of a report, as SVG to stand in an HTML page."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_SIZE = (7.0, 3.6)
_STYLE: Any = {
    "svg.hashsalt": "bnpl",  # ids inside the SVG: the same figures give the same bytes
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
}
_RULES_COLOUR = "#444444"
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's: told apart by the colour-blind too."""

Scorers = dict[str, dict[str, Any]]


def ratios(told: dict[str, Any]) -> str:
    """Discrimination ratios with intervals, against the targets."""

    def draw(axes: Axes) -> None:
        scorers, targets = told["evaluation"]["scorers"], told["terms"]["targets"]
        known = [(name, each["ratio"]) for name, each in scorers.items() if each["ratio"]["estimate"] is not None]
        for at, (name, ratio) in enumerate(known):
            low, high = ratio["interval_low"], ratio["interval_high"] or ratio["estimate"]
            axes.plot([low, high], [at, at], color=_colour(scorers, name), linewidth=2)
            axes.plot(ratio["estimate"], at, "o", color=_colour(scorers, name))
        axes.set_yticks(range(len(known)), [name for name, _ in known])
        axes.invert_yaxis()
        for value, meaning in (
            (targets["minimum"], "minimum"),
            (targets["acceptable"][0], "acceptable"),
            (targets["success"], "success"),
        ):
            axes.axvline(value, color="#999999", linestyle="--", linewidth=1)
            axes.annotate(meaning, (value, 1.01), xycoords=("data", "axes fraction"), ha="center", fontsize=7)
        axes.set_xlabel("default rate of the high band / of the low band")

    return _svg(draw)


def vintages(told: dict[str, Any]) -> str:
    """Default rate by week of origination."""

    def draw(axes: Axes) -> None:
        weeks = [each for each in told["evaluation"]["vintages"] if each["observed"]["rate"] is not None]
        rate = [each["observed"]["rate"] for each in weeks]
        errors = [
            [each["observed"]["rate"] - each["observed"]["interval_low"] for each in weeks],
            [each["observed"]["interval_high"] - each["observed"]["rate"] for each in weeks],
        ]
        axes.errorbar([each["week"] for each in weeks], rate, errors, fmt="o-", color=_RULES_COLOUR, capsize=3)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("default rate")
        axes.tick_params(axis="x", rotation=45)

    return _svg(draw)


def lifts(told: dict[str, Any]) -> str:
    """Default rate of each tenth of a score over that of all."""

    def draw(axes: Axes) -> None:
        _lines(axes, told, lambda each: [(decile["decile"], decile["lift"]) for decile in each["deciles"]])
        axes.axhline(1, color="#999999", linewidth=1)
        axes.set_xlabel("tenth of the score, the highest first")
        axes.set_ylabel("lift")

    return _svg(draw)


def calibrations(told: dict[str, Any]) -> str:
    """Default rate against mean score, by tenths, of scores that claim to be probabilities."""

    def draw(axes: Axes) -> None:
        top = 0.0

        def points(each: dict[str, Any]) -> list[tuple[float, float | None]]:
            nonlocal top
            if each["calibration"] is None:
                return []
            found = [(decile["mean_score"], decile["rate"]["rate"]) for decile in each["deciles"]]
            top = max([top, *(max(score, rate or 0) for score, rate in found)])
            return found

        _lines(axes, told, points)
        axes.plot([0, top], [0, top], color="#999999", linewidth=1)
        axes.set_xlabel("mean score")
        axes.set_ylabel("default rate")

    return _svg(draw)


def _lines(
    axes: Axes, told: dict[str, Any], points: Callable[[dict[str, Any]], list[tuple[float, float | None]]]
) -> None:
    scorers: Scorers = told["evaluation"]["scorers"]
    for name, each in scorers.items():
        known = [(x, y) for x, y in points(each) if y is not None]
        if known:
            axes.plot(*zip(*known, strict=True), "o-", markersize=3, label=name, color=_colour(scorers, name))
    axes.legend(frameon=False)


def _colour(scorers: Scorers, name: str) -> str:
    at = list(scorers).index(name)
    return _RULES_COLOUR if name == "rules" else _COLOURS[(at - 1) % len(_COLOURS)]


def _svg(draw: Callable[[Axes], None]) -> str:
    with rc_context(_STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        draw(figure.subplots())
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    whole = text.getvalue()
    return whole[whole.index("<svg") :]
