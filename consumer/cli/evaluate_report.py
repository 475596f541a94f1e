"""An evaluation as text."""

from __future__ import annotations

from io import StringIO
from typing import Any

from rich.console import Console
from rich.table import Table

from consumer.champion.report.wording import headline, interval, number, percent, ratio, rows_line

_WIDTH = 150


def report(told: dict[str, Any]) -> str:
    """The figures that decide; the dossier and the HTML report have all of them."""
    text = StringIO()
    out = Console(file=text, width=_WIDTH, highlight=False)
    out.print(rows_line(told), soft_wrap=True)
    for table in (_scorers(told), _observability(told), _verdicts(told)):
        out.print()
        out.print(table)
    out.print()
    for sentence in headline(told):
        out.print(sentence, soft_wrap=True)
    for model, why in told["evaluation"]["left_out"].items():
        out.print(f"{model} was left out: {why}", soft_wrap=True)
    return text.getvalue().rstrip("\n")


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="")
    for at, heading in enumerate(headings):
        table.add_column(heading, justify="left" if at == 0 else "right", overflow="fold")
    return table


def _scorers(told: dict[str, Any]) -> Table:
    table = _table("", "high", "medium", "low", "ratio (95 %)", "AUC (95 %)", "Gini", "KS", "Brier", "O/E", "slope")
    for name, each in told["evaluation"]["scorers"].items():
        bands, ranked, calibrated = each["ratio"], each["ranking"], each["calibration"] or {}
        expected = calibrated.get("observed_expected") or {}
        table.add_row(
            name,
            *(percent(bands[band]["rate"], 2) for band in ("high", "medium", "low")),
            ratio(bands),
            f"{number(ranked['auc'], 3)} ({interval(ranked['auc_low'], ranked['auc_high'], 3)})",
            number(ranked["gini"], 3),
            number(ranked["ks"], 3),
            number(calibrated.get("brier"), 4),
            number(expected.get("estimate"), 2),
            number(calibrated.get("slope"), 2),
        )
    return table


def _observability(told: dict[str, Any]) -> Table:
    table = _table(
        "",
        "flags",
        "never seen",
        "ratio if none of these defaults",
        "if all do",
        "money against what was decided (95 %)",
    )
    for name, each in told["evaluation"]["scorers"].items():
        seen, money = each["observability"], each["money"]
        none, everything = (seen[bound] and seen[bound]["ratio"] for bound in ("none_defaults", "all_default"))
        table.add_row(
            name,
            f"{seen['flagged']:,}",
            percent(seen["unobservable_share"]),
            number(none),
            number(everything),
            f"{number(money['opportunity'], 0)} ({interval(money['interval_low'], money['interval_high'], 0)})",
        )
    return table


def _verdicts(told: dict[str, Any]) -> Table:
    table = _table("", "against", "verdict", "corrected p", "p of equivalence", "weeks still needed")
    for each in told["verdicts"]:
        table.add_row(
            each["model"],
            each["against"],
            each["verdict"],
            number(each["p_corrected"], 4),
            number(each["p_equivalent_corrected"], 4),
            number(each["weeks_needed"], 0),
        )
    return table
