"""Whether what the other pages stand on is whole."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from consumer.champion.report.wording import percent
from consumer.dashboard import captions, data, parts
from consumer.dashboard.choice import Choice
from consumer.watch.reconcile.reconcile import KINDS, Reconciliation

_LETTER_DAYS = 14
_HOURS = {"the last hour": 1, "the last day": 24, "the last 14 days": 14 * 24}


def show(choice: Choice) -> None:
    if _stored(choice):
        _failed(choice)
    st.header("Dead letters")
    settings = data.settings()
    with parts.may_be_away("Dead letters"):
        _dead_letters(settings.topic_dead_letters, "")
        _dead_letters(settings.topic_outcomes_dead_letters, " --of outcomes")
    with parts.may_be_away("Outcomes"):
        _outcomes()
    with parts.may_be_away("Unknown categories"):
        _unknown(choice)
    _reconcile()


def _stored(choice: Choice) -> bool:
    """Whether there is any."""
    st.header("Stored scores")
    rows = [
        {
            "models": each.artifact_version,
            "rules": each.rule_set_version,
            "features": each.feature_spec_version,
            "rows": f"{each.rows:,}",
            "first transaction": f"{each.first:%Y-%m-%d %H:%M}",
            "last transaction": f"{each.last:%Y-%m-%d %H:%M}",
            "last scored": f"{each.last_scored:%Y-%m-%d %H:%M:%S}",
        }
        for each in data.stored(choice.as_of)
    ]
    if not rows:
        before = "yet" if choice.is_now else "of a transaction before the chosen day"
        st.info(f"No score is stored {before}.")
        return False
    captions.table(rows, "models")
    st.caption(
        f"Transactions before {choice.as_of:%Y-%m-%d %H:%M} UTC, as stored now, whenever they were scored; rows that "
        "are still to be merged count twice."
    )
    return True


def _failed(choice: Choice) -> None:
    st.header("Scores that models did not give")
    found = data.failed_scores(choice.as_of)
    if not found:
        st.markdown("None: every model scored every stored transaction.")
        return
    rows = [
        {
            "models": each.artifact_version,
            "model": each.model,
            "error": each.error,
            "rows": f"{each.rows:,}",
            "last": f"{each.last_scored:%Y-%m-%d %H:%M:%S}",
        }
        for each in found
    ]
    captions.table(rows, "models")
    st.caption(
        f"Of transactions before {choice.as_of:%Y-%m-%d %H:%M} UTC, as stored now. The errors: docs/architecture.md."
    )


def _dead_letters(topic: str, option: str) -> None:
    """`option` is the one by which `bnpl-shadow dlq` takes this topic."""
    found = data.dead_letters(topic, _LETTER_DAYS)
    if not found.kinds:
        st.markdown(f"None in {found.topic} in the last {_LETTER_DAYS} days.")
        return
    kinds = [
        {
            "stage": each.stage,
            "reason": each.error,
            "state": each.state,
            "letters": f"{each.letters:,}",
            "first": f"{each.first:%Y-%m-%d %H:%M:%S}",
            "last": f"{each.last:%Y-%m-%d %H:%M:%S}",
        }
        for each in found.kinds
    ]
    captions.table(kinds, "stage")
    st.caption(
        f"n = {found.total:,} letters of {found.topic}, refused in the last {_LETTER_DAYS} days, whatever day is "
        "chosen."
    )
    with st.expander(f"The newest of {topic}"):
        newest = [
            {
                "letter": each.place,
                "refused (UTC)": each.arrived.replace(tzinfo=None),
                "reason": each.error,
                "state": each.state,
                "why": each.message,
            }
            for each in found.newest
        ]
        st.dataframe(pd.DataFrame(newest), hide_index=True, alt=f"The newest dead letters of {topic}")
        st.caption(
            f"`bnpl-shadow dlq show LETTER{option}` tells all of one, `bnpl-shadow dlq replay{option}` sends them "
            "again."
        )


def _outcomes() -> None:
    st.header("Outcomes and their transactions")
    rows = [
        {
            "label": each.label,
            "transactions": f"{each.outcomes:,}",
            "defaulted": percent(each.defaulted / each.outcomes),
            "matched": f"{each.matched:,}",
            "without prediction": f"{each.orphaned:,}",
            "of declined": f"{each.declined:,}",
            "corrected": f"{each.corrected:,}",
            "cured": f"{each.cured:,}",
            "told again": f"{each.repeated:,}",
        }
        for each in data.outcome_counts()
    ]
    if not rows:
        st.info("No outcome is stored. `bnpl-shadow outcomes load FILE` sends some.")
        return
    captions.table(rows, "label")
    st.caption("All that is stored now, whatever day is chosen; counts, so without intervals.")


def _unknown(choice: Choice) -> None:
    st.header("Categories that training did not have")
    found = data.drift(choice.artifact, choice.as_of.date()).unseen
    if not found:
        st.markdown("None was counted before the chosen day.")
        return
    rows = [
        {
            "column": each.column,
            "value": each.value,
            "transactions": f"{each.count:,}",
            "first day": f"{each.first_day}",
            "last day": f"{each.last_day}",
        }
        for each in found
    ]
    captions.table(rows, "column")
    st.caption(f"Counted by `bnpl-shadow drift --every` until {choice.as_of:%Y-%m-%d}.")


@st.fragment
def _reconcile() -> None:
    st.header("Reconcile")
    st.caption(
        "Compares topics and table by identity. It reads all of them for the time that is asked, and moves nothing."
    )
    since = st.selectbox("Transactions of", list(_HOURS), key="reconcile")
    if st.button("Reconcile") and since:
        with parts.may_be_away("The reconciliation"), st.spinner("Reading topics and table"):
            _tell(data.reconciled(_HOURS[since]), since)


def _tell(found: Reconciliation, since: str) -> None:
    counts = ", ".join(f"{kind.replace('_', ' ')} {getattr(found, kind):,}" for kind in KINDS)
    told = (
        f"Of {since}: produced {found.produced:,}, scored {found.scored:,}, dead-lettered {found.dead_lettered:,}, "
        f"stored {found.stored:,}; on their way {found.waiting_for_score:,} to score, {found.waiting_for_sink:,} to "
        f"sink. {counts}."
    )
    if found.holds:
        st.success(f"It adds up. {told}")
    else:
        st.error(f"It does not add up. {told} `bnpl-shadow reconcile` names each.")
