"""One plain transaction takes a way of its own through contract, rules, features and description. Here it is held to
the way that all others take: the same bytes of an answer.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import examples, transaction

from consumer.api.bodies import plain_transaction
from consumer.api.openapi import TRANSACTION, shapes
from consumer.api.problems import Refused
from consumer.contracts.transaction import SCHEMA, Limits, columns_from_dicts, transaction_batch
from consumer.errors import InvalidRecord
from consumer.scoring.controller import ShadowModeController
from consumer.scoring.features import FeatureEngineer, categories
from consumer.scoring.rules import Condition

WHENEVER = Limits()
SHAPE = shapes(WHENEVER)[TRANSACTION]
KNOWN = categories("2")
IDS = st.text(st.characters(max_codepoint=126), min_size=1, max_size=64)
USUAL = {
    "transaction_id": IDS,
    "customer_id": IDS,
    "amount": st.one_of(st.sampled_from([0, 0.0, -0.0, 5e-324, 2**31 - 1, 120.5]), st.floats(0, 1e6)),
    "risk_score": st.one_of(st.sampled_from([0, 1, 0.3, 0.5, 0.55, 0.6, 0.8]), st.floats(0, 1)),
    "payment_credit_limit": st.one_of(st.integers(0, 10**6), st.floats(0, 1e6)),
    "customer_tenure_days": st.integers(0, 2**31 - 1),
    "price_comparison_time": st.integers(0, 2**31 - 1),
    "installment_count": st.integers(1, 2**31 - 1),
    "device_is_trusted": st.booleans(),
    "business_decision": st.sampled_from(["approve", "decline", "else", None]),
    "approval_propensity": st.one_of(st.none(), st.sampled_from([0, 1]), st.floats(0, 1)),
    **{
        name: st.sampled_from([*values, values[0].upper(), f"{values[-1]} ", "unheard of", "\x00", "x" * 64])
        for name, values in KNOWN.items()
    },
}
"""What is beyond doubt plain, with categories that nobody was taught."""
UNUSUAL = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=70),
    st.sampled_from(["", "é", "ß" * 64, "x" * 65, "x" * 257, "\U0001f4a9", 2**31, 2**53 + 1, 1e308]),
)  # fmt: skip


@st.composite
def times(draw: st.DrawFn) -> int | str:
    """Any, the edges of hours, days, months and years, in milliseconds or as text with or without a zone."""
    edge = st.builds(
        lambda year, month, hour, by: datetime(year, month, 1, hour) + timedelta(milliseconds=by),  # noqa: DTZ001
        st.integers(1970, 2100), st.integers(1, 12), st.integers(0, 23), st.integers(-1, 1),
    )  # fmt: skip
    zone = st.sampled_from([None, UTC, timezone(timedelta(hours=5, minutes=45)), timezone(timedelta(hours=-11))])
    at = draw(st.one_of(edge, st.datetimes(datetime(1960, 1, 1), datetime(2200, 1, 1)))).replace(  # noqa: DTZ001
        tzinfo=draw(zone)
    )
    if draw(st.booleans()):
        return at.isoformat()
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def by_columns(controller: ShadowModeController, body: bytes) -> bytes:
    return orjson.dumps(controller.advise(transaction_batch([SHAPE.one(body)]))[0])


@pytest.fixture(autouse=True)
def learnt() -> None:
    """What types a usual row has is learnt from such rows."""
    for amount in (1, 1.0):
        for score in (1, 1.0):
            for limit in (1, 1.0):
                for said in (None, "approve"):
                    for share in (None, 1, 1.0):
                        numbers = {"amount": amount, "risk_score": score, "payment_credit_limit": limit}
                        columns_from_dicts([transaction(**numbers, business_decision=said, approval_propensity=share)])


@examples(300)
@given(st.fixed_dictionaries(USUAL), times())
def test_what_is_said_of_a_plain_transaction_is_what_columns_say(
    controller: ShadowModeController, values: dict[str, Any], at: int | str
) -> None:
    body = json.dumps(transaction(**values, transaction_timestamp=at)).encode()
    plain = plain_transaction(body, WHENEVER)
    assert plain is not None
    assert orjson.dumps(controller.advise_plain(plain)) == by_columns(controller, body)
    batch = transaction_batch([SHAPE.one(body)])
    assert [column[0].as_py() for column in batch.columns] == plain


@examples(300)
@given(st.dictionaries(st.sampled_from(SCHEMA.names), UNUSUAL, min_size=1, max_size=3))
def test_what_is_taken_for_plain_is_good_and_means_the_same(
    controller: ShadowModeController, changes: dict[str, Any]
) -> None:
    body = json.dumps(transaction() | changes).encode()
    plain = plain_transaction(body, WHENEVER)
    try:
        said = by_columns(controller, body)
    except (Refused, InvalidRecord):
        assert plain is None
        return
    assert plain is None or orjson.dumps(controller.advise_plain(plain)) == said


@pytest.mark.parametrize("spec", ["1", "2"])
@examples(100)
@given(values=st.fixed_dictionaries(USUAL), at=times())
def test_features_of_each_spec_are_those_of_columns(spec: str, values: dict[str, Any], at: int | str) -> None:
    event = transaction(**values, transaction_timestamp=at)
    plain = plain_transaction(json.dumps(event).encode(), WHENEVER)
    assert plain is not None
    engineer = FeatureEngineer(spec_version=spec)
    one, batch = engineer.engineer_plain(plain), engineer.engineer(transaction_batch([event]))
    assert one.matrix.tolist() == batch.matrix.tolist()
    assert one.unknown == batch.unknown


NUMBERS, OPS = ("amount", "installment_count", "approval_propensity"), ("<", "<=", "==", "!=", ">=", ">")
CONDITIONS = st.one_of(
    st.builds(
        lambda field, op, value: Condition(field=field, op=op, value=value),
        st.sampled_from(NUMBERS), st.sampled_from(OPS), st.sampled_from([0.0, 1.0, 120.5, 4.0]),
    ),
    st.builds(
        lambda field, op, other: Condition(field=field, op=op, other_field=other),
        st.sampled_from(NUMBERS), st.sampled_from(OPS), st.sampled_from(NUMBERS),
    ),
    st.builds(
        lambda field, values: Condition(field=field, op="in", value=values),
        st.sampled_from(["business_decision", "risk_level"]), st.lists(st.sampled_from(["approve", "low", "é", ""])),
    ),
    st.builds(
        lambda field, op: Condition(field=field, op=op, value="low"),
        st.sampled_from(["business_decision", "risk_level"]), st.sampled_from(["==", "!="]),
    ),
    st.builds(
        lambda op, value: Condition(field="device_is_trusted", op=op, value=value),
        st.sampled_from(["==", "!="]), st.booleans(),
    ),
)  # fmt: skip


@examples(300)
@given(CONDITIONS, st.fixed_dictionaries(USUAL))
def test_a_condition_of_any_rule_holds_alike(condition: Condition, values: dict[str, Any]) -> None:
    """Also those that the shipped rules do not use."""
    batch = transaction_batch([transaction(**values)])
    plain = [column[0].as_py() for column in batch.columns]
    held = condition.holds(batch)[0]
    assert condition.of_plain()(plain) == (held.as_py() is True)
    assert isinstance(held, pa.BooleanScalar)
