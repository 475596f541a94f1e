"""Where models disagree, down to one transaction and what made its scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from consumer.champion.evaluations import Stored
from consumer.champion.report.wording import number, percent
from consumer.dashboard import captions, charts, data, parts
from consumer.dashboard.choice import Choice
from consumer.watch.trace.story import Form, Prediction, Trace

_SHOWN = 100
_REASONS = 8


def show(choice: Choice) -> None:
    found = parts.evaluation(choice)
    if found is not None:
        _ledger(found.document)
        _agreement(found.document)
        _alone(found)
    st.header("One transaction")
    asked = st.text_input(
        "Transaction id",
        key="transaction",
        bind="query-params",
        help="Any that was scored, of the list above or another.",
    )
    if asked:
        _one(asked.strip(), choice, found)


def _ledger(told: Mapping[str, Any]) -> None:
    st.header("Flagged by exactly one model")
    rows = [
        {
            "model": each["model"],
            "transactions": f"{each['rate']['rows']:,}",
            "defaults": f"{each['rate']['defaults']:,}",
            "default rate": captions.rate(each["rate"]),
            "amount": number(each["amount"], 0),
        }
        for each in told["evaluation"]["disagreements"]
    ]
    if not rows:
        st.info("No model could be compared.")
        return
    captions.table(rows, "model")
    st.caption(f"At the rules' share. {captions.of_evaluation(told)}")


def _agreement(told: Mapping[str, Any]) -> None:
    with st.expander("How alike they are, pair by pair"):
        rows = [
            {
                "pair": f"{each['a']} and {each['b']}",
                "equal flags": percent(each["equal_flags"]),
                "Cohen's kappa": number(each["kappa"]),
                "rank correlation": number(each["spearman"], 3),
            }
            for each in told["evaluation"]["agreements"]
        ]
        if not rows:
            st.info("There are no two models to compare.")
            return
        captions.table(rows, "pair")
        st.caption(f"Without intervals: for looking, not for deciding. {captions.of_evaluation(told)}")


def _alone(found: Stored) -> None:
    models = [each["model"] for each in found.document["evaluation"]["disagreements"]]
    if not models:
        return
    model = st.selectbox("Flagged by this model alone", models, key="alone", bind="query-params") or models[0]
    alone = data.flagged_alone(found, model, _SHOWN)
    if not alone:
        st.info(f"No transaction is flagged by {model} alone.")
        return
    frame = pd.DataFrame(
        [
            {
                "transaction": each.transaction_id,
                "time (UTC)": each.event_time.replace(tzinfo=None),
                "amount": each.amount,
                "instalments": each.installments,
                f"score of {model}": each.score,
                "above its threshold": each.distance,
                "rules": each.rules_flag,
                "rules' score": each.rules_score,
                "defaulted": "yes" if each.defaulted else "no",
            }
            for each in alone
        ]
    )
    st.dataframe(
        frame,
        hide_index=True,
        height=280,
        on_select=_take,
        selection_mode="single-row",
        key=f"alone {model}",
        alt=f"Transactions that only {model} flags, the farthest above its threshold first",
    )
    st.session_state["alone ids"] = frame["transaction"].tolist()
    st.session_state["alone key"] = f"alone {model}"
    st.caption(
        f"The {len(alone)} farthest above the threshold of {model}, choose one to see it below. "
        f"{captions.of_evaluation(found.document)}"
    )


def _take() -> None:
    """The row that was chosen becomes the transaction that is shown."""
    rows = st.session_state[st.session_state["alone key"]].selection.rows
    if rows:
        st.session_state["transaction"] = st.session_state["alone ids"][rows[0]]


def _one(transaction_id: str, choice: Choice, found: Stored | None) -> None:
    trace = data.transaction(transaction_id)
    if trace is None:
        st.info(
            f"No score of {captions.plain(transaction_id)} is stored. `bnpl-shadow trace` also searches the topics."
        )
        return
    prediction = _of_artifact(trace, choice.artifact)
    if prediction is None or prediction.row is None:
        st.info(
            f"{captions.plain(transaction_id)} was not scored by models {choice.artifact}; choose others in the "
            "sidebar."
        )
        return
    row = prediction.row
    if prediction.recorded["event_time"] >= choice.as_of and not choice.is_now:
        st.info(f"{captions.plain(transaction_id)} is not of before the chosen day.")
        return
    why = captions.plain(", ".join(row["reason_codes"]) or "no reason")
    st.markdown(
        f"**{captions.plain(transaction_id)}**, {row['event_time']:%Y-%m-%d %H:%M} UTC: amount "
        f"{number(row['amount'])} in {row['installment_count']} instalments. The rules say "
        f"{row['business_decision']}, risk {row['business_risk_flag']} ({number(row['business_risk_score'], 3)}): "
        f"{why}; decided by {row['decided_by']}."
    )
    captions.table(_scores(row, found), "model")
    st.caption(
        "n = 1 transaction: scores as recorded, thresholds as the evaluation above found them; nothing is estimated."
    )
    _outcomes(transaction_id, choice)
    _reasons(prediction, trace)


def _of_artifact(trace: Trace, artifact: str) -> Prediction | None:
    """The newest event's."""
    for sending in reversed(trace.sendings):
        for each in sending.predictions:
            if each.recorded["artifact_version"] == artifact:
                return each
    return None


def _scores(row: Mapping[str, Any], found: Stored | None) -> list[dict[str, str]]:
    scorers = found.document["evaluation"]["scorers"] if found else {}
    rows = []
    for at, model in enumerate(row["models.name"]):
        score = row["models.score"][at]
        threshold = (scorers.get(model) or {}).get("threshold")
        rows.append(
            {
                "model": model,
                "score": number(score, 4) if score is not None else f"none: {row['models.error'][at]}",
                "threshold at the rules' share": number(threshold["score"], 4) if threshold else "-",
                "flagged there": "-" if threshold is None or score is None else _yes(score >= threshold["score"]),
                "threshold of the export": _yes(row["models.flag"][at]),
            }
        )
    return rows


def _yes(value: bool | None) -> str:
    return "-" if value is None else "flagged" if value else "not flagged"


def _outcomes(transaction_id: str, choice: Choice) -> None:
    known = data.outcomes(transaction_id, choice.as_of)
    when = f"as known on {choice.as_of:%Y-%m-%d %H:%M} UTC"
    if not known:
        st.info(f"No outcome of it, {when}: declined, too young, or not told yet.")
        return
    rows = [
        {
            "label": each.label,
            "version": str(each.version),
            "outcome": charts.DEFAULTED if each.defaulted else charts.OTHER,
            "after days": "-" if each.days_to_resolution is None else str(each.days_to_resolution),
            "loss": number(each.loss_amount),
            "observed": f"{each.observed_at:%Y-%m-%d %H:%M}",
            "source": each.source,
        }
        for each in known
    ]
    captions.table(rows, "label")
    st.caption(f"Outcomes {when}; of a label the highest version counts.")


def _reasons(prediction: Prediction, trace: Trace) -> None:
    st.header("What made its scores")
    again = prediction.recomputed
    if again is None:
        away = "; ".join(trace.away.values())
        st.info(
            f"No reasons: {away or prediction.not_recomputed}. Features are not stored, so they are made again from "
            "Kafka."
        )
        return
    forms = {model: form for model, form in again.forms.items() if form is not None}
    if not forms:
        st.info("No reasons: none of the models is linear.")
        return
    alone = st.session_state.get("alone")  # whose lone flags are looked at above
    models = list(forms)
    model = st.selectbox("Model", models, models.index(alone) if alone in forms else 0) or models[0]
    _contributions(model, forms[model])


def _contributions(model: str, form: Form) -> None:
    frame = pd.DataFrame(
        [
            {"feature": name, "value": value, "contribution": value * weight}
            for name, value, weight in form.contributions[:_REASONS]
        ]
    )
    palette = charts.palette()
    chart = (
        alt.Chart(frame)
        .mark_bar()
        .encode(
            x=alt.X("contribution:Q", title="coefficient × value (log-odds, or score for a plain regression)"),
            y=alt.Y("feature:N", title=None, sort=None, axis=alt.Axis(labelLimit=320)),
            color=alt.condition(alt.datum.contribution > 0, alt.value(palette[2]), alt.value(palette[1])),
            tooltip=["feature", "value", alt.Tooltip("contribution", format="+.3f")],
        )
    )
    charts.show(
        chart,
        f"What moves the score of {model} most: "
        + ", ".join(f"{row.feature} {row.contribution:+.2f}" for row in frame.itertuples()),
        f"The {len(frame)} largest of {len(form.contributions)} features; to the right raises the score. n = 1 "
        "transaction.",
        frame,
    )
