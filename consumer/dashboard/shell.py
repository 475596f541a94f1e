"""Sidebar and pages put together; whatever is away becomes a message, and the page tries again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import streamlit as st

from consumer.dashboard import parts
from consumer.dashboard.choice import Choice, pick
from consumer.dashboard.screens import (
    data_health,
    disagreements,
    drift,
    live,
    models,
    money,
    rules_against_models,
    vintages,
)
from consumer.errors import BnplError, NothingToEvaluate

PAGES: dict[str, tuple[str, Callable[[Choice], None]]] = {
    # address: (title, what draws it)
    "live": ("Live", live.show),
    "models": ("Models", models.show),
    "rules-against-models": ("Rules against models", rules_against_models.show),
    "vintages": ("Vintages and maturity", vintages.show),
    "disagreements": ("Disagreements", disagreements.show),
    "drift": ("Drift", drift.show),
    "money": ("Money", money.show),
    "data-health": ("Data health", data_health.show),
}

_STYLE = """<style>
[data-testid=stColumn] {min-width: min(100%, 17rem);}
[data-testid=stSidebarNavLink]:focus-visible {outline: 2px solid currentcolor;}
</style>"""
"""Columns in which a chart could not be read stand below each other; who goes by keyboard sees where he is."""


def run() -> None:
    """Draw the page that the address names."""
    st.set_page_config(page_title="BNPL shadow scoring", layout="wide")
    st.html(_STYLE)
    try:
        choice = pick()  # here and not in a page, so that it stays from page to page
    except BnplError as error:
        parts.away(error, "The dashboard")
        parts.ask_again(parts.RETRY_SECONDS)
        return
    pages = [
        st.Page(partial(draw, title, show, choice), title=title, url_path=address, default=address == "live")
        for address, (title, show) in PAGES.items()
    ]
    st.navigation(pages, expanded=True).run()


def draw(title: str, show: Callable[[Choice], None], choice: Choice) -> None:
    """One page, also where something that it needs is away."""
    st.title(title)
    parts.anything_away()  # what another page was told is past
    try:
        show(choice)
    except NothingToEvaluate as nothing:
        st.info(str(nothing))
    except BnplError as error:
        parts.away(error, "This page")
        parts.ask_again(parts.RETRY_SECONDS)
        return
    if parts.anything_away():
        parts.ask_again(parts.PART_RETRY_SECONDS)
