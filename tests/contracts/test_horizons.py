"""Label horizons: what the shipped file says, when a transaction is due and old enough, and which files are refused."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consumer.contracts.horizons import FULL_TERM, Horizons
from consumer.errors import ArtifactError
from consumer.settings import Settings

SHIPPED = Settings().horizons_file
BOUGHT = datetime(2026, 6, 1, 12, tzinfo=UTC)
BOUGHT_MS = int(BOUGHT.timestamp() * 1000)


def test_the_shipped_file_names_the_four_horizons_and_says_which_it_is() -> None:
    horizons = Horizons.load(SHIPPED)
    assert horizons.labels == ("first_payment", "d28", "d42", "full_term")
    assert horizons.version == "horizons_v1"
    assert horizons.sha256 == hashlib.sha256(SHIPPED.read_bytes()).hexdigest()


def test_a_label_is_due_after_its_days_and_the_full_term_after_every_instalment() -> None:
    horizons = Horizons.load(SHIPPED)
    plans = np.array([1, 4, 6, 12])
    due = {label: horizons.due_days(label, plans).tolist() for label in horizons.labels}
    assert due == {"first_payment": [14] * 4, "d28": [28] * 4, "d42": [42] * 4, "full_term": [14, 56, 84, 168]}


@pytest.mark.parametrize(("label", "days"), [("first_payment", 21), ("d28", 35), ("d42", 49), (FULL_TERM, 63)])
def test_a_transaction_is_mature_once_due_day_and_grace_are_over(label: str, days: int) -> None:
    horizons = Horizons.load(SHIPPED)
    times = np.array([BOUGHT_MS, BOUGHT_MS + 1, BOUGHT_MS - 1])
    mature = horizons.mature(label, times, np.full(3, 4), BOUGHT + timedelta(days=days))
    assert mature.tolist() == [True, False, True]


def changed(change: Callable[[Any], None]) -> bytes:
    content = json.loads(SHIPPED.read_text())
    change(content)
    return json.dumps(content).encode()


def drop_full_term(content: Any) -> None:
    content["horizons"].pop()


def repeat_a_label(content: Any) -> None:
    content["horizons"].append(copy.deepcopy(content["horizons"][1]))


def two_lengths(content: Any) -> None:
    content["horizons"][0]["days_per_instalment"] = 14


def no_length(content: Any) -> None:
    del content["horizons"][2]["days"]


def negative_grace(content: Any) -> None:
    content["horizons"][1]["grace_days"] = -1


def days_as_text(content: Any) -> None:
    content["horizons"][1]["days"] = "28"


def unknown_field(content: Any) -> None:
    content["horizons"][1]["weeks"] = 4


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (drop_full_term, "no horizon has the label full_term"),
        (repeat_a_label, "labels are used twice: d28"),
        (two_lengths, "horizons.0: .*exactly one of days and days_per_instalment"),
        (no_length, "horizons.2: .*exactly one of days and days_per_instalment"),
        (negative_grace, "horizons.1.grace_days"),
        (days_as_text, "horizons.1.days"),
        (unknown_field, "horizons.1.weeks"),
    ],
    ids=lambda each: getattr(each, "__name__", None),
)
def test_a_file_that_cannot_be_meant_is_refused_by_the_field(change: Callable[[Any], None], told: str) -> None:
    with pytest.raises(ArtifactError, match=told):
        Horizons(changed(change))


def test_a_fault_names_the_file_and_an_unknown_label_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"nowhere\.json cannot be read: No such file"):
        Horizons.load(tmp_path / "nowhere.json")
    (tmp_path / "broken.json").write_bytes(b"{")
    with pytest.raises(ArtifactError, match=r"broken\.json: the horizons cannot be used"):
        Horizons.load(tmp_path / "broken.json")
    with pytest.raises(ArtifactError, match="has no horizon d30; it has first_payment, d28, d42, full_term"):
        Horizons.load(SHIPPED).due_days("d30", [4])
