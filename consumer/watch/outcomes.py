"""What was made of the outcomes: how many met their prediction, how many did not, and what was told anew."""

from __future__ import annotations

from dataclasses import dataclass

from consumer.services.clickhouse import PATIENT_SECONDS, connect, errors_named
from consumer.settings import Settings

STATES = ("matched", "orphaned", "declined", "corrected", "cured", "repeated")

_COUNTS = """
WITH
    predicted AS
    (
        SELECT transaction_id, min(coalesce(checkout_decision, business_decision) = 'decline') AS declined, 1 AS known
        FROM shadow_scores FINAL GROUP BY transaction_id
    ),
    current AS
    (
        SELECT
            transaction_id, label,
            argMax(defaulted, (version, observed_at)) AS bad,
            max(defaulted) > bad AS cured,
            uniqExact(version) AS versions
        FROM outcomes FINAL GROUP BY transaction_id, label
    ),
    stored AS
    (
        SELECT label, sum(stored) AS records
        FROM
        (
            SELECT label, groupBitmapMerge(offsets) AS stored FROM outcome_records GROUP BY label, outcome_partition
        )
        GROUP BY label
    )
SELECT
    label, count(), countIf(bad), countIf(known AND NOT declined), countIf(NOT known), countIf(known AND declined),
    countIf(versions > 1), countIf(cured), any(records) - sum(versions)
FROM current LEFT JOIN predicted USING transaction_id LEFT JOIN stored USING label
GROUP BY label ORDER BY label
SETTINGS join_use_nulls = 0, optimize_aggregation_in_order = 1, join_algorithm = 'full_sorting_merge,hash'
"""


@dataclass(frozen=True)
class LabelCounts:
    """Transactions with an outcome of one label; each is one of matched, orphaned and declined."""

    label: str
    outcomes: int
    defaulted: int
    """Those of which the current version says so."""
    matched: int
    """They have a prediction, and were financed."""
    orphaned: int
    """They have no prediction: it is yet to come, or nobody knows the transaction."""
    declined: int
    """Every prediction says that checkout declined: nothing was financed, and yet an outcome came."""
    corrected: int
    """A later version replaced an earlier one."""
    cured: int
    """They were said to have defaulted, and are no more."""
    repeated: int
    """Records that told a version again that was known; not transactions."""


def count_outcomes(settings: Settings) -> list[LabelCounts]:
    """By label, as of now. Raises ClickHouseUnavailable, or Fatal when tables are missing."""
    with connect(settings, PATIENT_SECONDS) as client, errors_named():
        return [LabelCounts(*row) for row in client.query(_COUNTS).result_rows]
