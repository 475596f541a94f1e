"""The 36 features, from columns of transactions to a matrix in the order the models were trained on.

One function derives them for a batch of any size. A single transaction is a batch of one that comes in as plain values
(docs/decisions/0008); a property test holds the two equal.
The definitions are those of docs/features.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from consumer.contracts.checks import matrix
from consumer.contracts.transaction import SCHEMA, plain_values, transaction_batch
from consumer.errors import ArtifactError

FloatMatrix = npt.NDArray[np.float64]
IntColumn = npt.NDArray[np.int64]

NUMERIC_FEATURES = (
    "amount",
    "risk_score",
    "payment_credit_limit",
    "price_comparison_time",
    "customer_tenure_days",
)
"""What the preprocessor scales; the other 31 pass through."""

PLAIN = (
    "amount",
    "customer_tenure_days",
    "device_is_trusted",
    "risk_score",
    "installment_count",
    "payment_credit_limit",
    "price_comparison_time",
)
_FLAG = "device_is_trusted"
_NUMBERS = tuple(name for name in PLAIN if name != _FLAG)
_PLAIN_AT = [SCHEMA.names.index(name) for name in PLAIN]
_TIMESTAMP_AT = SCHEMA.names.index("transaction_timestamp")
_NUMBER_ROWS = [PLAIN.index(name) for name in _NUMBERS]
CALENDAR = (
    "week_of_month",
    "is_weekend",
    "is_month_end",
    "is_holiday_season",
    "is_business_hours",
    "is_late_night",
)
ORDINAL: Mapping[str, tuple[str, ...]] = {
    "customer_credit_score_range": ("poor", "fair", "good", "excellent"),
    "customer_age_bracket": ("18-24", "25-34", "35-44", "45-54", "55+"),
    "customer_income_bracket": ("<25k", "25k-50k", "50k-75k", "75k-100k", "100k+"),
    "customer_verification_level": ("unverified", "partial", "verified"),
    "product_risk_category": ("low", "medium", "high"),
    "risk_level": ("low", "medium", "high", "very_high"),
}
"""Ranked from 0 in this order; a value not listed is −1."""
ONE_HOT: Mapping[str, tuple[str, ...]] = {
    "device_type": ("desktop", "mobile", "tablet"),
    "payment_provider": ("affirm", "afterpay", "klarna", "sezzle"),
    "product_category": ("beauty", "clothing", "electronics", "home", "sports"),
    "purchase_context": ("impulse", "normal", "rushed"),
    "risk_scenario": ("credit_stretched", "high_risk_behavior", "impulse_purchase", "low_risk_purchase"),
}
"""The first value is the dropped baseline: it gives zeros, as does a value not listed."""
TIME_OF_DAY = ("afternoon", "evening", "morning", "night")
_PART_OF_HOUR = np.array(
    [TIME_OF_DAY.index("night")] * 7
    + [TIME_OF_DAY.index("morning")] * 6
    + [TIME_OF_DAY.index("afternoon")] * 6
    + [TIME_OF_DAY.index("evening")] * 5
)  # fmt: skip
_MS_AN_HOUR = 3_600_000
_DAYS, _HOURS = np.arange(31), np.arange(24)
_OF_DAY = np.array([_DAYS // 7 + 1, _DAYS + 1 >= 25])
"""week_of_month and is_month_end by day of month, from 0."""
_WEEKEND = np.arange(7) >= 5
_OF_HOUR = np.array([(_HOURS >= 9) & (_HOURS <= 17), (_HOURS >= 22) | (_HOURS <= 5)])
"""is_business_hours and is_late_night."""

_ONE_HOT_CODES = [np.arange(1, count)[:, None] for count in (*map(len, ONE_HOT.values()), len(TIME_OF_DAY))]
"""The codes that get a column: all but the baseline's."""
_ONE_HOT_ROWS = [
    [(column == code).astype(np.float64).ravel().tolist() for code in (*range(len(column) + 1), -1)]
    for column in _ONE_HOT_CODES
]
"""The same columns of one transaction, by its code; those of −1 are the last."""

FEATURE_NAMES: tuple[str, ...] = (
    *PLAIN,
    *CALENDAR,
    *(f"{name}_encoded" for name in ORDINAL),
    *(f"{name}_{value}" for name, values in ONE_HOT.items() for value in values[1:]),
    *(f"time_of_day_{value}" for value in TIME_OF_DAY[1:]),
)

SPEC_VERSIONS = ("1", "2")
"""`1` is the research encoder, which did not know risk level `very_high` and gave −1; `2` ranks it above `high`."""


@cache
def categories(spec_version: str) -> Mapping[str, tuple[str, ...]]:
    """The known values of every category column under a feature-spec version, in code order."""
    if spec_version not in SPEC_VERSIONS:
        raise ArtifactError(
            f"feature spec version {spec_version!r} is unknown; this code makes {', '.join(SPEC_VERSIONS)}"
        )
    known = {**ORDINAL, **ONE_HOT}
    if spec_version == "1":
        known["risk_level"] = tuple(value for value in known["risk_level"] if value != "very_high")
    return known


@dataclass(frozen=True)
class Features:
    """Features of n transactions.

    `matrix` is n×len(names) float64, stored by column (Fortran order); `unknown` counts values that no training
    category covers, by (column, value).
    """

    names: tuple[str, ...]
    matrix: FloatMatrix
    unknown: Counter[tuple[str, str]]

    def frame(self) -> pd.DataFrame:
        """The same numbers as a DataFrame with named columns."""
        return pd.DataFrame(self.matrix, columns=list(self.names))


class FeatureEngineer:
    """Makes the features that an artifact's `shared_artifacts.feature_names` asks for, in that order.

    Raises ArtifactError when a name is asked for that this code cannot make: a model must never meet a column
    that means something else than in training.
    """

    def __init__(self, names: Sequence[str] = FEATURE_NAMES, spec_version: str = SPEC_VERSIONS[-1]) -> None:
        self.names = tuple(names)
        self.spec_version = spec_version
        self._categories = categories(spec_version)
        values = sorted(set().union(*self._categories.values()))
        self._lookup = pc.SetLookupOptions(value_set=pa.array(values, pa.string()))
        self._codes_of_values = np.full((len(self._categories), len(values) + 1), -1)
        """Code of each value, and at the end of any other, in each category column."""
        self._rows_of_codes = np.arange(len(self._categories))[:, None]
        for row, known in enumerate(self._categories.values()):
            self._codes_of_values[row, [values.index(value) for value in known]] = np.arange(len(known))
        self._known = [
            (SCHEMA.names.index(column), {value: code for code, value in enumerate(known)})
            for column, known in self._categories.items()
        ]
        unmade = [name for name in self.names if name not in FEATURE_NAMES]
        if unmade or len(set(self.names)) != len(self.names):
            fault = f"cannot be made: {', '.join(unmade)}" if unmade else "are listed twice"
            raise ArtifactError(f"the artifact's feature names {fault}; known names: {', '.join(FEATURE_NAMES)}")
        position = {name: FEATURE_NAMES.index(name) for name in self.names}
        self._order = None if self.names == FEATURE_NAMES else [position[name] for name in self.names]

    def engineer(self, transactions: pa.RecordBatch) -> Features:
        """Features of a batch of valid transactions (columns of `contracts.transaction.SCHEMA`, no nulls)."""
        rows = np.empty((len(FEATURE_NAMES), transactions.num_rows))
        rows[_NUMBER_ROWS] = matrix(transactions, _NUMBERS).T
        rows[PLAIN.index(_FLAG)] = transactions.column(_FLAG).to_numpy(zero_copy_only=False)
        unknown: Counter[tuple[str, str]] = Counter()
        codes = self._codes(transactions, unknown)
        return self._derive(rows, transactions.column("transaction_timestamp").to_numpy(), codes, unknown)

    def engineer_one(self, transaction: Mapping[str, Any]) -> Features:
        """Features of one transaction given as a dict; a usual one does without the detour over columns.

        Raises InvalidRecord when a field is missing, has the wrong type or an impossible value.
        """
        values = plain_values(transaction)
        if values is None:
            return self.engineer(transaction_batch([transaction]))
        return self.engineer_plain(values)

    def engineer_plain(self, values: Sequence[Any]) -> Features:
        """Features of one transaction given as its `contracts.transaction.plain_values`."""
        calendar, part_of_day = _calendar_of(values[_TIMESTAMP_AT] // _MS_AN_HOUR)
        codes = [known.get(values[at], -1) for at, known in self._known]
        row: list[float] = [values[at] for at in _PLAIN_AT]
        row += calendar
        row += codes[: len(ORDINAL)]
        for columns, code in zip(_ONE_HOT_ROWS, (*codes[len(ORDINAL) :], part_of_day), strict=True):
            row += columns[code]
        features = np.array([row if self._order is None else [row[at] for at in self._order]], np.float64)
        unknown: Counter[tuple[str, str]] = Counter()
        if -1 in codes:
            unknown.update(
                (SCHEMA.names[at], values[at]) for (at, _), code in zip(self._known, codes, strict=True) if code < 0
            )
        return Features(self.names, features, unknown)

    def engineer_single_transaction(self, transaction: Mapping[str, Any]) -> pd.DataFrame:
        """The 1×36 frame of one transaction given as a dict, in contract order.

        Raises InvalidRecord when a field is missing, has the wrong type or an impossible value.
        """
        return self.engineer_one(transaction).frame()

    def _derive(
        self, rows: FloatMatrix, timestamps: IntColumn, codes: npt.NDArray[np.int64], unknown: Counter[tuple[str, str]]
    ) -> Features:
        """Fills in what follows from times and category codes; the PLAIN rows are there."""
        at = len(PLAIN)
        hour = _calendar(timestamps, rows[at : at + len(CALENDAR)])
        at += len(CALENDAR)
        rows[at : at + len(ORDINAL)] = codes[: len(ORDINAL)]
        at += len(ORDINAL)
        for kept, column in zip(_ONE_HOT_CODES, (*codes[len(ORDINAL) :], _PART_OF_HOUR[hour]), strict=True):
            rows[at : at + len(kept)] = column == kept
            at += len(kept)
        return Features(self.names, (rows if self._order is None else rows[self._order]).T, unknown)

    def _codes(self, transactions: pa.RecordBatch, unknown: Counter[tuple[str, str]]) -> npt.NDArray[np.int64]:
        """Codes of all category columns, a row each; −1 for a value that its column does not know."""
        texts = [transactions.column(name) for name in self._categories]
        places = pc.call_function("index_in", [pa.chunked_array(texts)], self._lookup)
        if places.null_count:
            places = places.fill_null(self._codes_of_values.shape[1] - 1)
        by_column = places.to_numpy().reshape(len(texts), transactions.num_rows)
        codes: npt.NDArray[np.int64] = self._codes_of_values[self._rows_of_codes, by_column]
        if codes.min(initial=0) == 0:
            return codes
        for row in np.flatnonzero((codes < 0).any(axis=1)):
            name = list(self._categories)[row]
            for entry in pc.value_counts(texts[row].filter(pa.array(codes[row] < 0))):
                unknown[name, entry["values"].as_py()] += entry["counts"].as_py()
        return codes


def _calendar(milliseconds: IntColumn, rows: FloatMatrix) -> IntColumn:
    """Fills `rows` with the CALENDAR columns; gives the hour of day (UTC). Times are milliseconds since 1970."""
    hours = milliseconds // _MS_AN_HOUR
    days = hours // 24
    hour: IntColumn = hours - days * 24
    months = days.astype("datetime64[D]").astype("datetime64[M]")
    month = months.astype(np.int64) % 12
    day = days - months.astype("datetime64[D]").astype(np.int64)
    rows[[0, 2]] = _OF_DAY[:, day]
    rows[1] = _WEEKEND[(days + 3) % 7]  # 1970-01-01 was a Thursday; Monday is 0
    rows[3] = month >= 10
    rows[[4, 5]] = _OF_HOUR[:, hour]
    return hour


@lru_cache(maxsize=256)
def _calendar_of(hours: int) -> tuple[list[float], int]:
    """The CALENDAR columns of one hour (since 1970, UTC), which most transactions share, and its part of the day."""
    rows = np.empty((len(CALENDAR), 1))
    hour = _calendar(np.array([hours * _MS_AN_HOUR]), rows)
    return rows[:, 0].tolist(), int(_PART_OF_HOUR[hour[0]])


def engineer_single_transaction(transaction: Mapping[str, Any]) -> pd.DataFrame:
    """`FeatureEngineer().engineer_single_transaction` under the newest feature spec."""
    return FeatureEngineer().engineer_single_transaction(transaction)
