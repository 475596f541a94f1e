"""What pages ask for, kept for a while: every question goes to `consumer/views/`, or to what watches the services.

Whatever is away raises the errors of `consumer/errors.py`; nothing of an error is kept.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import streamlit as st
from clickhouse_connect.driver.client import Client

from consumer.champion import evaluations
from consumer.champion.evaluations import Listed, Stored
from consumer.clock import utc_now
from consumer.contracts.horizons import Horizons
from consumer.evaluation.curves import Curves
from consumer.evaluation.policy import Policy, load_policy
from consumer.services.clickhouse import PATIENT_SECONDS, connect
from consumer.services.drift.export import Export, load_export
from consumer.services.drift.look import Drift, look
from consumer.services.drift.store import newest_result
from consumer.services.kafka import bootstrap_servers
from consumer.settings import Settings, load_settings
from consumer.views import data_health, disagreements, money
from consumer.views import live as live_view
from consumer.views.vintages import Course, Vintage, vintages_and_courses
from consumer.watch.lag import topics_by_group
from consumer.watch.lag_watch import LagWatch
from consumer.watch.outcomes import LabelCounts, count_outcomes
from consumer.watch.reconcile.reconcile import Reconciliation, reconcile
from consumer.watch.trace.story import Trace
from consumer.watch.trace.trace import trace

SOON, LATER = 15, 300
"""Seconds after which an answer is asked for again."""
_LETTERS_SHOWN = 20


@st.cache_resource(show_spinner=False)
def settings() -> Settings:
    """As the environment of the server has them."""
    return load_settings()


@contextmanager
def _clickhouse(seconds: int | None = None) -> Iterator[Client]:
    """A client for one question; pages run in threads of their own."""
    with connect(settings(), seconds) as client:
        yield client


@st.cache_resource(show_spinner=False)
def horizons() -> Horizons:
    return Horizons.load(settings().horizons_file)


@st.cache_resource(show_spinner=False)
def policy() -> Policy:
    """As configured; an evaluation names its own."""
    return load_policy(settings().policy_file)[0]


@st.cache_data(ttl=SOON, show_spinner=False)
def stored(until: datetime) -> list[data_health.Identity]:
    with _clickhouse(PATIENT_SECONDS) as client:
        return data_health.stored(client, until)


@st.cache_data(ttl=SOON, show_spinner=False)
def artifact_versions() -> list[str]:
    """Those that scored what is stored."""
    with _clickhouse() as client:
        return data_health.artifact_versions(client)


# evaluations


@st.cache_data(ttl=SOON, show_spinner=False)
def evaluation(artifact: str, label: str, as_of: datetime | None) -> Stored | None:
    """The newest stored one that is not of a later time; of all for None."""
    with _clickhouse() as client:
        return evaluations.newest(client, artifact, label, as_of or utc_now())


@st.cache_data(max_entries=20, show_spinner=False)
def curves(listed: Listed) -> Curves:
    """What is drawn of the rows of a stored evaluation."""
    with _clickhouse() as client:
        return evaluations.curves_of(client, listed)


def flagged_alone(found: Stored, model: str, most: int) -> list[disagreements.Alone]:
    return _flagged_alone(found.listed.sha256, model, most, found.document)


@st.cache_data(max_entries=50, show_spinner="Looking for lone flags")
def _flagged_alone(sha256: str, model: str, most: int, _document: Mapping[str, Any]) -> list[disagreements.Alone]:
    with _clickhouse(PATIENT_SECONDS) as client:
        return disagreements.flagged_alone(client, _document, model, most)


@st.cache_data(ttl=LATER, max_entries=20, show_spinner="Adding up opportunity costs")
def opportunities(artifact: str, as_of: datetime) -> list[money.Opportunity]:
    with _clickhouse(PATIENT_SECONDS) as client:
        return money.opportunities(client, artifact, as_of)


# one transaction


@st.cache_data(ttl=SOON, show_spinner="Following the transaction")
def transaction(transaction_id: str) -> Trace | None:
    """None when nothing of it is stored. What else is away is named in the trace."""
    with _clickhouse() as client:
        if not disagreements.is_stored(client, transaction_id):
            return None
    return trace(settings(), transaction_id)


@st.cache_data(ttl=SOON, show_spinner=False)
def outcomes(transaction_id: str, as_of: datetime) -> list[disagreements.KnownOutcome]:
    with _clickhouse() as client:
        return disagreements.outcomes_of(client, transaction_id, as_of)


# weeks and drift


@st.cache_data(ttl=LATER, max_entries=20, show_spinner="Counting by week")
def weeks(artifact: str, label: str, as_of: datetime) -> tuple[list[Vintage], list[Course]]:
    with _clickhouse(PATIENT_SECONDS) as client:
        return vintages_and_courses(client, horizons(), label, as_of, artifact)


@st.cache_resource(show_spinner="Loading the export")
def export(artifact: str) -> Export:
    """What drift is measured against."""
    return load_export(settings().model_copy(update={"artifact_version": artifact, "artifact_sha256": None}))


@st.cache_data(ttl=LATER, max_entries=20, show_spinner="Measuring drift")
def drift(artifact: str, as_of: date) -> Drift:
    """Of the last full week before a day."""
    with _clickhouse(PATIENT_SECONDS) as client:
        return look(client, export(artifact), as_of)


@st.cache_data(ttl=SOON, max_entries=20, show_spinner=False)
def newest_drift(artifact: str, until: date) -> date | None:
    """The newest day that drift could be measured as of, by the service or a season."""
    with _clickhouse() as client:
        return newest_result(client, export(artifact).reference.digest, until)


# the running services


@dataclass(frozen=True)
class Now:
    """What was scored last; `live` is of the minutes before `until`."""

    newest: live_view.Newest
    live: live_view.Live


@st.cache_data(ttl=2, show_spinner=False)
def now(seconds: int, step_seconds: int) -> Now | None:
    """None while nothing is stored."""
    with _clickhouse() as client:
        newest = live_view.newest(client)
        return None if newest is None else Now(newest, live_view.live(client, utc_now(), seconds, step_seconds))


def lag_watches() -> list[LagWatch]:
    """Score and sink, watched in threads of their own from the first call to the end of the process."""
    return _lag_watches(bootstrap_servers(settings()))


def _stop(watches: list[LagWatch]) -> None:
    for each in watches:
        each.stop()


@st.cache_resource(show_spinner=False, max_entries=1, on_release=_stop)
def _lag_watches(servers: str) -> list[LagWatch]:
    """At these servers: a local stack may come back on other ports."""
    given = settings().model_copy(update={"kafka_bootstrap_servers": servers})
    watches = [LagWatch(given, group, topics) for group, topics in topics_by_group(given).items()]
    for each in watches:
        each.start()
    atexit.register(_stop, watches)
    return watches


@st.cache_data(ttl=LATER, show_spinner="Reading dead letters")
def dead_letters(topic: str, days: int) -> data_health.DeadLetters:
    """What of this dead-letter topic was refused in the last days."""
    given = settings().model_copy(update={"topic_dead_letters": topic})
    return data_health.dead_letters(given, utc_now() - timedelta(days=days), _LETTERS_SHOWN)


@st.cache_data(ttl=LATER, show_spinner="Matching outcomes")
def outcome_counts() -> list[LabelCounts]:
    return count_outcomes(settings())


@st.cache_data(ttl=SOON, show_spinner=False)
def failed_scores(until: datetime) -> list[data_health.FailedScores]:
    with _clickhouse(PATIENT_SECONDS) as client:
        return data_health.failed_scores(client, until)


def reconciled(hours: int) -> Reconciliation:
    """Asked anew each time."""
    return reconcile(settings(), since=utc_now() - timedelta(hours=hours))
