"""What pages have in common: the evaluation that is shown, what is said of it, and parts that are away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import streamlit as st

from consumer.champion.evaluations import Stored
from consumer.champion.report.wording import headline, other_champion
from consumer.dashboard import captions, data
from consumer.dashboard.choice import Choice
from consumer.errors import BnplError, NothingToEvaluate

RETRY_SECONDS, PART_RETRY_SECONDS = 5, 30
_AWAY = "something is away"


def evaluation(choice: Choice) -> Stored | None:
    """The stored evaluation of the choice, introduced; None, and how to have one, when there is none."""
    found = data.evaluation(choice.artifact, choice.label, None if choice.is_now else choice.as_of)
    if found is None:
        known = "now" if choice.is_now else f"on {choice.as_of:%Y-%m-%d}"
        st.info(
            f"No evaluation of models {choice.artifact} by label {choice.label}, as known {known}, is stored. This "
            f"makes one: `{choice.command}`. While `bnpl-shadow evaluate --every` runs, there is one of now."
        )
        return None
    told = found.document
    st.caption(captions.of_evaluation(told))
    if not found.listed.is_whole:
        st.warning(f"Only of transactions {captions.bounds(found.listed)}: none of all transactions is stored.")
    if reasons := captions.unsettled(told):
        st.warning(f"Not settled: {'; '.join(reasons)}.")
    if (older := (choice.as_of - found.listed.as_of).days) > 0:
        st.warning(f"The newest that is stored is {older} days older than was asked. `{choice.command}` makes another.")
    if others := told["data"]["rows_of_other_rules"]:
        st.info(f"{others:,} transactions that were scored under other rules or features are not in it.")
    return found


def standing(told: Mapping[str, Any]) -> None:
    """What an evaluation comes to."""
    first, *others = headline(told)
    if told["recommendation"]["promote"]:
        st.success(first)
    else:
        st.info(first)
    for each in other_champion(told):
        st.warning(each)
    with st.expander("The verdicts, with their reasons"):
        for each in others:
            st.markdown(f"- {each}")


@contextmanager
def may_be_away(what: str) -> Iterator[None]:
    """A part of a page that says what is missing where its source does not answer; the rest of the page goes on."""
    try:
        yield
    except NothingToEvaluate as nothing:
        st.info(str(nothing))
    except BnplError as error:
        away(error, what)
        st.session_state[_AWAY] = True


def away(error: BnplError, what: str) -> None:
    """Say what is missing and what to do about it."""
    st.warning(f"{what} cannot be shown: {error}. `bnpl-shadow check` names every fault with its remedy.")


def anything_away() -> bool:
    """Whether a part of a page was since this was asked last."""
    return bool(st.session_state.pop(_AWAY, False))


def ask_again(seconds: int) -> None:
    """Run the whole page again after so long, until it is well."""

    @st.fragment(run_every=seconds)
    def wait() -> None:
        if st.session_state.pop("has waited", False):
            st.rerun()
        st.session_state["has waited"] = True
        st.caption(f"Asked again every {seconds} seconds: this page comes back by itself.")

    wait()
