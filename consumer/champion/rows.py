"""The rows of a snapshot, read out of ClickHouse as the columns that `consumer/evaluation/` works on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from clickhouse_connect.driver.client import Client

from consumer.champion.scope import Snapshot
from consumer.evaluation.sample import Sample, Segment
from consumer.services.clickhouse import errors_named

APPROVED = "coalesce(checkout_decision, decision, business_decision) = 'approve'"
"""What really was decided: what checkout says of itself, else what stood."""
_SCORE = "models.score[indexOf(models.name, {{model_{at}:String}})] AS score_{at}"
_ROWS = """
WITH known AS (
  SELECT transaction_id, true AS seen, defaulted, days_to_resolution AS days
  FROM outcomes
  WHERE label = {{label:String}} AND observed_at <= {{as_of:DateTime64(3)}} AND {outcome_ends}
  ORDER BY transaction_id, version DESC, observed_at DESC, outcome_offset DESC LIMIT 1 BY transaction_id
)
SELECT
  cityHash64(transaction_id) AS row_order,
  cityHash64(ifNull(customer_ref, transaction_id)) AS customer,
  toUnixTimestamp64Milli(event_time) AS event_time_ms,
  amount,
  installment_count,
  toInt8(indexOf(['low', 'medium', 'high'], business_risk_flag) - 1) AS rules_flag,
  business_risk_score AS rules_score,
  {approved} AS approved,
  greatest(ifNull(nullIf(approval_propensity, 0), 1.), 1e-18) AS propensity,
  known.seen AS seen,
  known.defaulted AS defaulted,
  ifNull(known.days, 0) AS days_to_resolution{scores}
FROM (
  SELECT * FROM shadow_scores FINAL
  WHERE artifact_version = {{artifact:String}} AND rule_set_version = {{rules:String}}
    AND feature_spec_version = {{features:String}}
    AND event_time >= {{since:DateTime64(3)}} AND event_time < {{until:DateTime64(3)}}
    AND {score_ends}
    AND toUnixTimestamp64Milli(event_time) + {{due_ms:Int64}} + installment_count * {{due_ms_per_instalment:Int64}}
        <= toUnixTimestamp64Milli({{as_of:DateTime64(3)}})
) AS scored
LEFT JOIN known USING (transaction_id)
SETTINGS join_algorithm = 'full_sorting_merge,hash'
"""
# propensity: 0 tells of a decline that it had no alternative, and of an approval nothing; 1 / 1e-18 can be squared
# both tables lie in the order of transaction_id: they are merged as they are read, and no table of hashes is built
_AMOUNT_BANDS = (50, 100, 200, 500)
_PLANS = (4, 6, 8, 12)

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Rows:
    """What was read, row by row."""

    sample: Sample
    due_days: npt.NDArray[np.int64]
    """Days after the transaction on which the label is due."""
    default_days: npt.NDArray[np.int64]
    """Days to the default, where there was one."""
    declined_with_outcome: int
    """Rows that were declined, and yet somebody sent an outcome: it is not used."""


def statement(snapshot: Snapshot) -> str:
    """The SQL that reads the rows; `snapshot.parameters()` and `model_0`, `model_1`, … fill it. Without models it reads
    no scores.
    """
    return _ROWS.format(
        approved=APPROVED,
        scores="".join(f",\n  {_SCORE.format(at=at)}" for at in range(len(snapshot.models))),
        score_ends=bounded("shadow", snapshot.score_ends),
        outcome_ends=bounded("outcome", snapshot.outcome_ends),
    )


def read_rows(client: Client, snapshot: Snapshot, progress: Progress = lambda _: None) -> Rows:
    """All transactions of the snapshot that are old enough for its label. `progress` is told the rows so far.

    Raises ClickHouseUnavailable or Fatal.
    """
    asked = snapshot.parameters() | {f"model_{at}": name for at, name in enumerate(snapshot.models)}
    batches, count = [], 0
    with errors_named(), client.query_arrow_stream(statement(snapshot), asked) as blocks:
        for block in blocks:
            batches.append(block)
            count += len(block)
            progress(count)
    return _rows(_in_order(pa.concat_tables(map(_as_table, batches))) if batches else None, snapshot)


def _as_table(block: pa.Table | pa.RecordBatch) -> pa.Table:
    return block if isinstance(block, pa.Table) else pa.Table.from_batches([block])


def _in_order(table: pa.Table) -> pa.Table:
    """By the hash of their ids: however ClickHouse hands them over, the same rows are the same sample."""
    return table.take(pa.array(np.argsort(table.column("row_order").to_numpy(), kind="stable")))


def _rows(table: pa.Table | None, snapshot: Snapshot) -> Rows:
    def column(name: str, dtype: type[np.generic]) -> Any:
        return np.empty(0, dtype) if table is None else table.column(name).to_numpy().astype(dtype, copy=False)

    seen, approved = column("seen", np.bool_), column("approved", np.bool_)
    _, customers = np.unique(column("customer", np.uint64), return_inverse=True)
    amount, plans = column("amount", np.float64), column("installment_count", np.int64)
    sample = Sample(
        order=column("row_order", np.uint64),
        customer=customers.astype(np.int64, copy=False),
        event_time=column("event_time_ms", np.int64).astype("datetime64[ms]"),
        amount=amount,
        rules_flag=column("rules_flag", np.int8),
        rules_score=column("rules_score", np.float64),
        approved=approved,
        observed=seen & approved,
        defaulted=column("defaulted", np.bool_),
        weight=1 / column("propensity", np.float64),
        scores={name: column(f"score_{at}", np.float64) for at, name in enumerate(snapshot.models)},
        probability={name: kind == "probability" for name, kind in snapshot.models.items()},
        segments={
            "amount": _bands(amount, _AMOUNT_BANDS),
            "instalments": _plans(plans),
        },
    )
    due = snapshot.horizon.due_days(plans)
    default_days = column("days_to_resolution", np.int64)
    return Rows(sample, due, default_days, int(np.count_nonzero(seen & ~approved)))


def _bands(amounts: npt.NDArray[np.float64], edges: tuple[int, ...]) -> Segment:
    labels = (
        f"below {edges[0]}",
        *(f"{low} to {high}" for low, high in pairwise(edges)),
        f"{edges[-1]} up",
    )
    return Segment(np.searchsorted(edges, amounts, side="right").astype(np.int32), labels)


def _plans(instalments: npt.NDArray[np.int64]) -> Segment:
    at = np.searchsorted(_PLANS, instalments)
    known = np.take(np.append(_PLANS, -1), at) == instalments
    return Segment(np.where(known, at, len(_PLANS)).astype(np.int32), (*map(str, _PLANS), "other"))


def bounded(place: str, ends: dict[int, int]) -> str:
    """A condition: in a partition that there was, at or before its last offset."""
    known = [f"{place}_partition = {partition} AND {place}_offset <= {end}" for partition, end in sorted(ends.items())]
    return "(" + " OR ".join(known or ["false"]) + ")"
