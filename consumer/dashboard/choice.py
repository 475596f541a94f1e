"""The sidebar: what all pages are of. The choice stands in the page's address, so that it can be sent to others."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time

import streamlit as st

from consumer.clock import utc_now
from consumer.dashboard import data
from consumer.errors import BnplError

_SERVES_MINUTES = 5
_ARTIFACT = "artifact"


@dataclass(frozen=True)
class Choice:
    """As known when, by which label, of which models."""

    as_of: datetime
    """Midnight (UTC) at which the chosen day begins, as `bnpl-shadow evaluate --as-of` takes it. When none is chosen,
    the last full five minutes: an answer serves for as long.
    """
    is_now: bool
    label: str
    artifact: str

    @property
    def command(self) -> str:
        """What makes the evaluation that pages show."""
        as_of = "" if self.is_now else f" --as-of {self.as_of:%Y-%m-%d}"
        return f"bnpl-shadow evaluate --artifact {self.artifact} --label {self.label}{as_of} --store"


def pick() -> Choice:
    """Draw the pickers; gives what they say."""
    with st.sidebar:
        day: date | None = st.date_input(
            "As known on",
            value=None,
            max_value=utc_now().date(),
            format="YYYY-MM-DD",
            key="as_of",
            bind="query-params",
            help="What was known when this day began (UTC). Empty: what is known now.",
        )
        configured = data.settings().artifact_version
        artifact = _select("Models", _versions(configured), configured, _ARTIFACT, "An exported model set.")
        labels, decides = list(data.horizons().labels), data.policy().label_horizon
        label = _select("Label horizon", labels, decides, "label", "Until when a default counts.")
    if day is None:
        now = utc_now()
        now = now.replace(minute=now.minute // _SERVES_MINUTES * _SERVES_MINUTES, second=0, microsecond=0)
        return Choice(now, True, label, artifact)
    return Choice(datetime.combine(day, time(), UTC), False, label, artifact)


def _select(name: str, options: list[str], default: str, key: str, help_text: str) -> str:
    chosen = st.selectbox(name, options, options.index(default), key=key, bind="query-params", help=help_text)
    return chosen or default


def _versions(configured: str) -> list[str]:
    """The configured version, and those that scored what is stored; without ClickHouse the one that was chosen, which
    no longer being offered would lose.
    """
    try:
        others = data.artifact_versions()
    except BnplError:  # the page says what is missing
        chosen = st.session_state.get(_ARTIFACT) or st.query_params.get(_ARTIFACT)
        others = [chosen] if chosen else []
    return list(dict.fromkeys([configured, *others]))
