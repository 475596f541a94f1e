"""The 36 features against an independent oracle: one plain row at a time, pandas for time, scikit-learn for codes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import Transaction, examples, transaction
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from consumer.contracts.transaction import SCHEMA, columns_from_dicts, transaction_batch
from consumer.errors import ArtifactError, InvalidRecord
from consumer.scoring.features import (
    FEATURE_NAMES,
    ONE_HOT,
    ORDINAL,
    FeatureEngineer,
    Features,
    categories,
    engineer_single_transaction,
)

CONTRACT = """
amount, customer_tenure_days, device_is_trusted, risk_score, installment_count, payment_credit_limit,
price_comparison_time, week_of_month, is_weekend, is_month_end, is_holiday_season, is_business_hours, is_late_night,
customer_credit_score_range_encoded, customer_age_bracket_encoded, customer_income_bracket_encoded,
customer_verification_level_encoded, product_risk_category_encoded, risk_level_encoded, device_type_mobile,
device_type_tablet, payment_provider_afterpay, payment_provider_klarna, payment_provider_sezzle,
product_category_clothing, product_category_electronics, product_category_home, product_category_sports,
purchase_context_normal, purchase_context_rushed, risk_scenario_high_risk_behavior, risk_scenario_impulse_purchase,
risk_scenario_low_risk_purchase, time_of_day_evening, time_of_day_morning, time_of_day_night
"""


def oracle(event: Transaction) -> dict[str, float]:
    """The features of one transaction, written down once more from the definitions."""
    when = pd.Timestamp(event["transaction_timestamp"], unit="ms", tz="UTC")
    part = (
        "night" if when.hour <= 6 else "morning" if when.hour <= 12 else "afternoon" if when.hour <= 18 else "evening"
    )
    features = {
        "week_of_month": (when.day - 1) // 7 + 1,
        "is_weekend": when.day_name() in ("Saturday", "Sunday"),
        "is_month_end": when.day >= 25,
        "is_holiday_season": when.month_name() in ("November", "December"),
        "is_business_hours": 9 <= when.hour <= 17,
        "is_late_night": when.hour >= 22 or when.hour <= 5,
        **{f"time_of_day_{each}": part == each for each in ("evening", "morning", "night")},
    }
    for name in CONTRACT.replace("\n", " ").split(","):
        name = name.strip()
        if name in event:
            features[name] = event[name]
        elif name.endswith("_encoded"):
            ranks = ORDINAL[name.removesuffix("_encoded")]
            value = event[name.removesuffix("_encoded")]
            features[name] = ranks.index(value) if value in ranks else -1
        elif name not in features:
            column = next(each for each in ONE_HOT if name.startswith(f"{each}_"))
            features[name] = event[column] == name.removeprefix(f"{column}_")
    return {name: float(value) for name, value in features.items()}


def made(events: list[Transaction], **options: Any) -> pd.DataFrame:
    return FeatureEngineer(**options).engineer(columns_from_dicts(events)).frame()


def at(*moment: int) -> Transaction:
    return transaction(transaction_timestamp=datetime(*moment, tzinfo=UTC))  # type: ignore[misc,arg-type]


def in_milliseconds(event: Transaction) -> Transaction:
    return event | {"transaction_timestamp": round(event["transaction_timestamp"].timestamp() * 1000)}


_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=64)  # no text may have more than 256 bytes
_values = {
    name: st.one_of(st.sampled_from([*known, "never seen", ""]), _texts)
    for name, known in {**ORDINAL, **ONE_HOT}.items()
}
events = st.builds(
    transaction,
    amount=st.floats(0, 1e6),
    risk_score=st.floats(0, 1),
    customer_tenure_days=st.integers(0, 2**31 - 1),
    device_is_trusted=st.booleans(),
    installment_count=st.integers(1, 60),
    transaction_timestamp=st.integers(-2_208_988_800_000, 4_102_444_800_000),
    **_values,
)


def test_the_order_is_the_contracts() -> None:
    assert list(FEATURE_NAMES) == [name.strip() for name in CONTRACT.replace("\n", " ").split(",")]
    assert len(FEATURE_NAMES) == 36


@given(st.lists(events, min_size=1, max_size=6))
@examples(150)
def test_every_feature_is_what_the_oracle_says(batch: list[Transaction]) -> None:
    expected = pd.DataFrame([oracle(event) for event in batch])[list(FEATURE_NAMES)]
    pd.testing.assert_frame_equal(made(batch), expected, check_exact=True)


def test_every_day_of_a_century_is_known_by_its_calendar() -> None:
    days = [datetime(1960, 1, 1, 13, tzinfo=UTC) + timedelta(days=day) for day in range(36_525)]
    frame = made([{**transaction(), "transaction_timestamp": day} for day in days])
    index = pd.DatetimeIndex(days)
    expected = {
        "week_of_month": (index.day - 1) // 7 + 1,
        "is_weekend": index.day_of_week >= 5,
        "is_month_end": index.day >= 25,
        "is_holiday_season": index.month >= 11,
    }
    for name, values in expected.items():
        np.testing.assert_array_equal(frame[name], np.asarray(values, float), err_msg=name)


@pytest.mark.parametrize("hour", range(24))
def test_every_hour_has_its_part_of_the_day_to_the_last_millisecond(hour: int) -> None:
    for minute, second, micro in ((0, 0, 0), (59, 59, 999_000)):
        event = at(2026, 6, 3, hour, minute, second, micro)
        assert made([event]).iloc[0].to_dict() == oracle(in_milliseconds(event))


@pytest.mark.parametrize(
    "moment",
    [(2024, 2, 29), (2100, 2, 28), (2000, 2, 29), (2026, 12, 31, 23, 59, 59), (2026, 1, 1), (1969, 12, 31, 23)],
    ids=str,
)
def test_leap_days_year_ends_and_times_before_1970_are_right(moment: tuple[int, ...]) -> None:
    event = at(*moment)
    assert made([event]).iloc[0].to_dict() == oracle(in_milliseconds(event))


def test_a_time_zone_is_turned_into_utc_before_anything_is_read_from_it() -> None:
    local = transaction(transaction_timestamp="2026-05-31T23:30:00-03:00")
    assert made([local]).iloc[0].to_dict() == oracle(in_milliseconds(at(2026, 6, 1, 2, 30)))


def test_ordinal_codes_are_scikit_learns() -> None:
    for name, known in ORDINAL.items():
        values = np.array([*known, "never seen"], object).reshape(-1, 1)
        encoder = OrdinalEncoder(categories=[list(known)], handle_unknown="use_encoded_value", unknown_value=-1)
        expected = encoder.fit(np.array(known, object).reshape(-1, 1)).transform(values).ravel()
        frame = made([transaction(**{name: value}) for value in values.ravel()])
        np.testing.assert_array_equal(frame[f"{name}_encoded"], expected, err_msg=name)


def test_one_hot_columns_are_scikit_learns_with_the_first_category_dropped() -> None:
    for name, known in ONE_HOT.items():
        values = np.array(known, object).reshape(-1, 1)
        encoder = OneHotEncoder(drop="first", sparse_output=False).fit(values)
        frame = made([transaction(**{name: value}) for value in known])
        columns = [str(column) for column in encoder.get_feature_names_out([name])]
        np.testing.assert_array_equal(frame[columns], encoder.transform(values), err_msg=name)


@given(st.lists(events, min_size=2, max_size=8))
@examples(60)
def test_a_batch_is_its_transactions_one_by_one_bit_for_bit(batch: list[Transaction]) -> None:
    whole = FeatureEngineer().engineer(columns_from_dicts(batch))
    singles = [FeatureEngineer().engineer_one(event) for event in batch]
    assert whole.matrix.tobytes("C") == b"".join(single.matrix.tobytes("C") for single in singles)
    assert whole.unknown == sum((single.unknown for single in singles), start=type(whole.unknown)())


AWKWARD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=300),
    st.sampled_from(["", "x" * 65, "é" * 200, "\ud800", 2**31, 2**53 + 1, 10**400, -1, 0, 1e300]),
)


@given(events, st.sampled_from(SCHEMA.names), AWKWARD)
@examples(400)
def test_the_short_way_of_one_transaction_lets_in_and_refuses_what_the_batch_does(
    event: Transaction, name: str, value: Any
) -> None:
    def outcome(make: Callable[[], Features]) -> Any:
        try:
            features = make()
            return features.matrix.tobytes("C"), features.unknown
        except InvalidRecord as refused:
            return refused.error, str(refused)

    changed = event | {name: value}
    engineer = FeatureEngineer()
    engineer.engineer_one(event)  # what a usual row looks like is learnt from the first
    assert outcome(lambda: engineer.engineer_one(changed)) == outcome(
        lambda: engineer.engineer(transaction_batch([changed]))
    )


def test_a_slice_of_arrow_columns_gives_the_rows_of_the_slice() -> None:
    batch = columns_from_dicts([transaction(amount=float(n), device_is_trusted=n % 3 == 0) for n in range(50)])
    engineer = FeatureEngineer()
    np.testing.assert_array_equal(engineer.engineer(batch.slice(11, 20)).matrix, engineer.engineer(batch).matrix[11:31])


def test_the_order_of_arrow_columns_makes_no_difference() -> None:
    batch = columns_from_dicts([transaction(), transaction(device_type="tablet")])
    turned = batch.select(batch.schema.names[::-1])
    engineer = FeatureEngineer()
    np.testing.assert_array_equal(engineer.engineer(turned).matrix, engineer.engineer(batch).matrix)


def test_unknown_categories_are_counted_by_column_and_value_and_give_no_error() -> None:
    strange = [transaction(device_type="watch"), transaction(device_type="watch", risk_level="extreme"), transaction()]
    features = FeatureEngineer().engineer(columns_from_dicts(strange))
    assert features.unknown == {("device_type", "watch"): 2, ("risk_level", "extreme"): 1}
    frame = features.frame()
    assert frame["risk_level_encoded"].tolist() == [0, -1, 0]
    assert frame[["device_type_mobile", "device_type_tablet"]].sum(axis=1).tolist() == [0, 0, 1]


def test_the_first_feature_spec_does_not_know_very_high_and_the_second_ranks_it_highest() -> None:
    event = [transaction(risk_level="very_high")]
    first = FeatureEngineer(spec_version="1").engineer(columns_from_dicts(event))
    second = FeatureEngineer(spec_version="2").engineer(columns_from_dicts(event))
    assert first.frame()["risk_level_encoded"].tolist() == [-1]
    assert first.unknown == {("risk_level", "very_high"): 1}
    assert second.frame()["risk_level_encoded"].tolist() == [3]
    assert not second.unknown
    changed = (first.matrix != second.matrix).ravel()
    assert [name for name, differs in zip(FEATURE_NAMES, changed, strict=True) if differs] == ["risk_level_encoded"]
    with pytest.raises(ArtifactError, match="'3' is unknown; this code makes 1, 2"):
        categories("3")


@given(st.permutations(FEATURE_NAMES), st.integers(1, 36))
@examples(40)
def test_the_artifacts_list_of_names_decides_the_order(names: list[str], count: int) -> None:
    events = [transaction(), transaction(amount=7.0, risk_level="high")]
    frame = made(events, names=names[:count])
    assert list(frame.columns) == names[:count]
    pd.testing.assert_frame_equal(frame, made(events)[names[:count]], check_exact=True)


def test_names_that_cannot_be_made_are_refused_by_name() -> None:
    with pytest.raises(ArtifactError, match="cannot be made: shoe_size"):
        FeatureEngineer([*FEATURE_NAMES, "shoe_size"])
    with pytest.raises(ArtifactError, match="are listed twice"):
        FeatureEngineer([*FEATURE_NAMES, "amount"])


def test_one_transaction_as_a_dict_is_a_frame_of_one_row_in_contract_order() -> None:
    event = transaction()
    frame = engineer_single_transaction(event)
    assert frame.shape == (1, 36)
    assert tuple(frame.columns) == FEATURE_NAMES
    assert frame.iloc[0].to_dict() == oracle(event)
    with pytest.raises(InvalidRecord, match="risk_score"):
        engineer_single_transaction(transaction(risk_score=...))


def test_no_transactions_give_no_rows() -> None:
    features = FeatureEngineer().engineer(transaction_batch([]))
    assert features.matrix.shape == (0, 36)


def test_the_widest_timestamps_are_no_error() -> None:
    batch = columns_from_dicts([transaction(transaction_timestamp=edge) for edge in (-(2**63), 2**63 - 1)])
    assert np.isfinite(FeatureEngineer().engineer(batch).matrix).all()
    assert batch.column("transaction_timestamp").type == pa.int64()
