"""What shadow_predictions and `outcomes status` say of outcomes, against their definitions written in Python."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from pydantic import SecretStr

from consumer.services import economics
from consumer.services.migrate import migrate
from consumer.settings import Settings
from consumer.watch.check.clickhouse import check_clickhouse
from consumer.watch.outcomes import LabelCounts, count_outcomes

START = datetime(2026, 6, 1, tzinfo=UTC)
MARGIN, LOSS = 0.05, 0.5
LABELS = ("first_payment", "d28", "d42", "full_term")


@dataclass(frozen=True)
class Prediction:
    transaction_id: str
    artifact_version: str = "v1"
    amount: float = 100.0
    checkout_decision: str | None = None
    business_decision: str = "approve"
    champion_flag: bool | None = False

    @property
    def prediction_id(self) -> str:
        return f"{self.transaction_id}.{self.artifact_version}"

    @property
    def declined(self) -> bool:
        return (self.checkout_decision or self.business_decision) == "decline"


@dataclass(frozen=True)
class Outcome:
    transaction_id: str
    label: str = "d28"
    defaulted: bool = True
    days: int | None = 14
    version: int = 1
    observed: int = 30
    """Days after START."""
    offset: int = 0


Known = tuple[bool | None, int | None]


def last_told(outcomes: Iterable[Outcome]) -> dict[tuple[str, str], Outcome]:
    last: dict[tuple[str, str], Outcome] = {}
    for each in sorted(outcomes, key=lambda o: (o.version, o.observed, o.offset)):
        last[each.transaction_id, each.label] = each
    return last


def known(transaction_id: str, outcomes: Iterable[Outcome]) -> Known:
    current = [each for (owner, _), each in last_told(outcomes).items() if owner == transaction_id]
    bad = [each for each in current if each.defaulted]
    if bad:
        return True, min((each.days for each in bad if each.days is not None), default=None)
    for each in current:
        if each.label == "full_term":
            return False, each.days
    return None, None


def profit(declined: bool, amount: float, defaulted: bool) -> float:
    if declined:
        return 0.0
    return -LOSS * amount if defaulted else MARGIN * amount


def opportunity(prediction: Prediction, defaulted: bool | None) -> float | None:
    if prediction.business_decision == "decline":
        champion_declines = True
    elif prediction.champion_flag is None:
        return None
    else:
        champion_declines = prediction.champion_flag
    if champion_declines == prediction.declined:
        return 0.0
    if prediction.declined or defaulted is None:
        return None
    amount = prediction.amount
    return profit(champion_declines, amount, defaulted) - profit(prediction.declined, amount, defaulted)


def counted(predictions: list[Prediction], outcomes: list[Outcome]) -> dict[str, LabelCounts]:
    """The same as `outcomes status`; each record of the topic is in `outcomes` once."""
    financed: dict[str, bool] = defaultdict(bool)
    for each in predictions:
        financed[each.transaction_id] |= not each.declined
    found = {each.label: LabelCounts(each.label, *[0] * 8) for each in outcomes}
    last = last_told(outcomes)
    for (owner, label), current in last.items():
        told = [each for each in outcomes if (each.transaction_id, each.label) == (owner, label)]
        # of one key the last record replaced the others: what they said is not known any more
        kept = {(each.version, each.observed): each for each in sorted(told, key=lambda o: o.offset)}.values()
        versions = {each.version for each in told}
        counts = found[label]
        found[label] = replace(
            counts,
            outcomes=counts.outcomes + 1,
            defaulted=counts.defaulted + current.defaulted,
            matched=counts.matched + (owner in financed and financed[owner]),
            orphaned=counts.orphaned + (owner not in financed),
            declined=counts.declined + (owner in financed and not financed[owner]),
            corrected=counts.corrected + (len(versions) > 1),
            cured=counts.cured + (not current.defaulted and any(each.defaulted for each in kept)),
            repeated=counts.repeated + len(told) - len(versions),
        )
    return found


@pytest.fixture
def tables(clickhouse: Client) -> Client:
    migrate(clickhouse, Settings().migrations_dir)
    economics.record(clickhouse, Settings(margin=MARGIN, loss_given_default=LOSS))
    return clickhouse


def insert_predictions(client: Client, predictions: list[Prediction]) -> None:
    rows = [
        {
            "prediction_id": each.prediction_id,
            "transaction_id": each.transaction_id,
            "artifact_version": each.artifact_version,
            "event_time": START,
            "amount": each.amount,
            "checkout_decision": each.checkout_decision,
            "business_decision": each.business_decision,
            "models.name": ["logistic", "ridge"],
            "models.version": ["1", "1"],
            "models.role": ["challenger", "champion"],
            "models.score": [0.1, None],
            "models.score_kind": ["", ""],
            "models.flag": [not each.champion_flag, each.champion_flag],
            "models.error": [None, None],
            "champion": "ridge",
        }
        for each in predictions
    ]
    names = list(rows[0])
    client.insert("shadow_scores", [[row[name] for name in names] for row in rows], column_names=names)


def insert_outcomes(client: Client, outcomes: list[Outcome]) -> None:
    names = ["transaction_id", "label", "defaulted", "days_to_resolution", "observed_at", "source", "version"]
    rows = [
        [
            each.transaction_id,
            each.label,
            each.defaulted,
            each.days,
            START + timedelta(days=each.observed),
            "ledger",
            each.version,
            0,
            each.offset,
        ]
        for each in outcomes
    ]
    client.insert("outcomes", rows, column_names=[*names, "outcome_partition", "outcome_offset"])


def seen(client: Client) -> dict[str, tuple[Any, ...]]:
    """prediction_id → actual_default, days_to_resolution, opportunity_cost."""
    columns = "prediction_id, actual_default, days_to_resolution, opportunity_cost"
    rows = client.query(f"SELECT {columns} FROM shadow_predictions").result_rows
    assert len({row[0] for row in rows}) == len(rows)
    return {row[0]: tuple(row[1:]) for row in rows}


def status(url: str) -> dict[str, LabelCounts]:
    return {each.label: each for each in count_outcomes(Settings(clickhouse_url=SecretStr(url)))}


APPROVED, DECLINED = Prediction("t"), Prediction("t", business_decision="decline")
FLAGGED = Prediction("t", champion_flag=True)
BAD, GOOD = Outcome("t"), Outcome("t", label="full_term", defaulted=False, days=56)


@pytest.mark.parametrize(
    ("prediction", "outcomes", "expected"),
    [
        (APPROVED, [], (None, None, 0.0)),
        (APPROVED, [BAD], (True, 14, 0.0)),
        (APPROVED, [replace(GOOD, label="d42", days=None)], (None, None, 0.0)),
        (APPROVED, [GOOD], (False, 56, 0.0)),
        (APPROVED, [GOOD, BAD], (True, 14, 0.0)),
        (FLAGGED, [], (None, None, None)),
        (FLAGGED, [BAD], (True, 14, LOSS * 100)),
        (FLAGGED, [GOOD], (False, 56, -MARGIN * 100)),
        (FLAGGED, [BAD, replace(BAD, version=2, defaulted=False, days=None)], (None, None, None)),
        (FLAGGED, [BAD, replace(BAD, version=2, defaulted=False, days=None), GOOD], (False, 56, -MARGIN * 100)),
        (FLAGGED, [replace(BAD, version=2), replace(BAD, defaulted=False, observed=90)], (True, 14, LOSS * 100)),
        (FLAGGED, [BAD, replace(BAD, label="first_payment", days=13)], (True, 13, LOSS * 100)),
        (FLAGGED, [replace(BAD, days=None)], (True, None, LOSS * 100)),
        (DECLINED, [], (None, None, 0.0)),
        (DECLINED, [BAD], (True, 14, 0.0)),
        (replace(DECLINED, champion_flag=None), [], (None, None, 0.0)),
        (replace(APPROVED, champion_flag=None), [BAD], (True, 14, None)),
        (replace(APPROVED, checkout_decision="decline"), [BAD], (True, 14, None)),
        (replace(FLAGGED, checkout_decision="decline"), [BAD], (True, 14, 0.0)),
        (replace(DECLINED, checkout_decision="approve"), [BAD], (True, 14, LOSS * 100)),
        (replace(DECLINED, checkout_decision="approve"), [GOOD], (False, 56, -MARGIN * 100)),
    ],
)
def test_the_oracle_says_what_the_page_says(
    prediction: Prediction, outcomes: list[Outcome], expected: tuple[Any, ...]
) -> None:
    told = known("t", outcomes)
    assert (*told, opportunity(prediction, told[0])) == expected


def made_up(seed: int) -> tuple[list[Prediction], list[Outcome]]:
    draw = random.Random(seed)
    predictions = [
        Prediction(
            f"t{number}",
            version,
            draw.choice((80.0, 120.0)),
            draw.choice((None, None, "approve", "decline")),
            draw.choice(("approve", "approve", "decline")),
            draw.choice((True, False, None)),
        )
        for number in range(400)
        for version in draw.choice((("v1",), ("v1", "v2")))
    ]
    outcomes = [
        Outcome(
            f"t{draw.randrange(450)}",  # some are of transactions without a prediction
            draw.choice(LABELS),
            bad := draw.random() < 0.4,
            draw.choice((14, 28)) if bad else draw.choice((None, 56)),
            draw.choice((1, 1, 1, 2, 3)),
            draw.choice((10, 40, 80)),
            offset,
        )
        for offset in range(1500)
    ]
    return predictions, outcomes


CONDITIONS: dict[str, Callable[..., bool]] = {
    "actual_default": lambda bad, days, cost: bad is True,
    "NOT actual_default": lambda bad, days, cost: bad is False,
    "actual_default IS NULL": lambda bad, days, cost: bad is None,
    "days_to_resolution > 20": lambda bad, days, cost: days is not None and days > 20,
    "opportunity_cost != 0": lambda bad, days, cost: bool(cost),
}
"""Each lets ClickHouse turn the join of the view into one of another kind."""


def test_predictions_and_counts_are_those_of_the_definitions(tables: Client, clickhouse_database: str) -> None:
    predictions, outcomes = made_up(7)
    insert_predictions(tables, predictions)
    for start in range(0, len(outcomes), 300):
        insert_outcomes(tables, outcomes[start : start + 300])
    insert_outcomes(tables, outcomes[200:700])  # a sink that died reads some again
    expected = {}
    for each in predictions:
        told = known(each.transaction_id, outcomes)
        expected[each.prediction_id] = (*told, opportunity(each, told[0]))
    assert {None, True, False} == {row[0] for row in expected.values()}
    assert len({row[2] for row in expected.values()}) == 6  # both gains, both losses, nothing, unknown
    counts = counted(predictions, outcomes)
    assert all(value for label in counts.values() for value in asdict(label).values()), "each state is there"
    for merged in (False, True):
        if merged:
            for table in ("shadow_scores", "outcomes", "outcome_records"):
                tables.command(f"OPTIMIZE TABLE {table} FINAL")
        found = seen(tables)
        assert found.keys() == expected.keys()
        for name, row in expected.items():
            assert found[name][:2] == row[:2], name
            assert found[name][2] == pytest.approx(row[2]), name
        assert status(clickhouse_database) == counts
        for condition, holds in CONDITIONS.items():
            asked = f"SELECT prediction_id FROM shadow_predictions WHERE {condition}"
            kept = {name for name, row in expected.items() if holds(*row)}
            assert {row[0] for row in tables.query(asked).result_rows} == kept, condition


def test_every_version_stays_so_that_a_day_sees_what_was_known_on_it(tables: Client) -> None:
    first = Outcome("t", version=1, observed=20)
    told = [first, replace(first, defaulted=False, version=2, observed=50), replace(first, version=3, observed=80)]
    insert_outcomes(tables, told)
    insert_outcomes(tables, told)
    tables.command("OPTIMIZE TABLE outcomes FINAL")
    last = "SELECT argMax(defaulted, (version, observed_at)), count() FROM outcomes FINAL"
    for day, expected in ((30, (True, 1)), (60, (False, 2)), (90, (True, 3))):
        asked = {"day": START.replace(tzinfo=None) + timedelta(days=day)}
        assert tables.query(f"{last} WHERE observed_at <= {{day:DateTime}}", asked).result_rows == [expected]


def test_a_changed_worth_counts_from_then_on_and_check_tells_one_that_was_not_recorded(
    tables: Client, clickhouse_database: str
) -> None:
    insert_predictions(tables, [FLAGGED])
    insert_outcomes(tables, [BAD])
    assert seen(tables) == {"t.v1": (True, 14, 50.0)}
    assert not economics.record(tables, Settings(margin=MARGIN, loss_given_default=LOSS))
    other = Settings(clickhouse_url=SecretStr(clickhouse_database), margin=MARGIN, loss_given_default=0.9)
    (warned,) = (each for each in check_clickhouse(other) if each.level != "ok")
    assert "reckons with another margin or loss given default than is set" in warned.what
    assert economics.record(tables, other)
    assert seen(tables) == {"t.v1": (True, 14, 90.0)}
    assert [each for each in check_clickhouse(other) if each.level != "ok"] == []
    assert tables.query("SELECT count() FROM economics").result_rows == [(2,)]
    tables.command("TRUNCATE TABLE economics")
    assert seen(tables) == {"t.v1": (True, 14, None)}


def test_no_outcomes_at_all_are_no_counts(tables: Client, clickhouse_database: str) -> None:
    insert_predictions(tables, [APPROVED])
    assert status(clickhouse_database) == {}
    assert seen(tables) == {"t.v1": (None, None, 0.0)}
