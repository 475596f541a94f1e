"""Scores of the evaluated rows, counted by ClickHouse into fine buckets: what thresholds, curves and distributions are
made from, however many rows there are.

A bucket is what shares the first 24 bits of a score's float64 (sign, exponent and 12 bits of the fraction), so it is
narrower than 1/4096 of its score. Buckets follow each other as scores do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from clickhouse_connect.driver.client import Client

from consumer.errors import Fatal
from consumer.evaluation.sample import RULES, Floats
from consumer.services.clickhouse import errors_named
from consumer.views.evaluated import Document, EvaluatedRows, evaluated_rows

FLAGS = "rules' flags"
"""The scorer whose score is the rules' own flag: 0 low, 1 medium, 2 high."""

SUMS = ("rows", "defaults", "weight", "bad", "squares", "bad_squares", "stake", "lost", "stake_squares", "lost_squares")
"""What is summed over rows: their number; weights; squared weights; weight × amount; its square. The second of each
pair is of defaulted rows alone.
"""
Sums = Floats
"""Last axis as SUMS."""

_DROPPED_BITS = 40
_SIGN = np.uint64(1 << 63)
_BITS = "reinterpretAsUInt64(score + 0.)"  # + 0. makes -0 and 0 one
_BUCKET = f"bitShiftRight(if(bitTest({_BITS}, 63), bitNot({_BITS}), bitXor({_BITS}, {1 << 63})), {_DROPPED_BITS})"
_SCORED = f"""
SELECT scorer, {_BUCKET} AS bucket, score, row_order, defaulted, weight, weight * amount AS stake
FROM (SELECT *, {{scores}} AS every FROM ({{rows}}))
ARRAY JOIN every AS score, arrayEnumerate(every) AS scorer
"""  # noqa: S608
_COUNTED = """
SELECT
  scorer, bucket, count(), countIf(defaulted), sum(weight), sumIf(weight, defaulted), sum(weight * weight),
  sumIf(weight * weight, defaulted), sum(stake), sumIf(stake, defaulted), sum(stake * stake),
  sumIf(stake * stake, defaulted)
FROM ({scored}) GROUP BY scorer, bucket ORDER BY scorer, bucket DESC
"""
_INSIDE = """
SELECT scorer, bucket, score, row_order, defaulted, weight, stake FROM ({scored})
WHERE (scorer, bucket) IN (
  SELECT pair.1, pair.2 FROM (SELECT arrayJoin({{pairs:Array(Tuple(UInt32, UInt64))}}) AS pair)
)
"""


@dataclass(frozen=True)
class Buckets:
    """One scorer's rows, from the highest scores to the lowest."""

    keys: npt.NDArray[np.uint64]
    sums: Sums
    """of each bucket: (buckets, SUMS)"""

    @property
    def through(self) -> Sums:
        """Summed down to and with each bucket."""
        added: Sums = np.cumsum(self.sums, axis=0)
        return added

    @property
    def lowest(self) -> Floats:
        """The lowest score that falls into each bucket."""
        bits = self.keys << np.uint64(_DROPPED_BITS)
        negative = bits < _SIGN
        found: Floats = np.where(negative, ~bits, bits ^ _SIGN).view(np.float64)
        return found


@dataclass(frozen=True)
class Scored:
    """Buckets by scorer: the rules' flags (FLAGS), the rules' score (RULES), and every model."""

    of: dict[str, Buckets]
    total: Sums
    """of all evaluated rows"""


def read_buckets(client: Client, told: Document) -> Scored:
    """Count the rows of a stored evaluation. Raises ClickHouseUnavailable, or Fatal when the tables do not hold these
    rows any more.
    """
    rows = evaluated_rows(told)
    with errors_named():
        table = client.query_arrow(_COUNTED.format(scored=_scored(rows)), rows.parameters)
    columns = [table.column(at).to_numpy() for at in range(table.num_columns)]
    scorer, keys = columns[0], columns[1].astype(np.uint64)
    sums = np.column_stack([each.astype(np.float64) for each in columns[2:]])
    of = {name: Buckets(keys[scorer == at], sums[scorer == at]) for at, name in enumerate(_names(rows), 1)}
    total: Sums = of[FLAGS].sums.sum(axis=0)
    _refuse_other_rows(total, told)
    return Scored(of, total)


@dataclass(frozen=True)
class Inside:
    """The rows of one bucket, from the highest score to the lowest, equal scores by `row_order` as `evaluate` does."""

    sums: Sums
    """of each row: (rows, SUMS)"""


def read_inside(client: Client, told: Document, wanted: dict[str, set[int]]) -> dict[tuple[str, int], Inside]:
    """The rows of some buckets, by (scorer, key of the bucket). Raises as `read_buckets` does."""
    rows = evaluated_rows(told)
    names = _names(rows)
    pairs = [(names.index(scorer) + 1, key) for scorer, keys in wanted.items() for key in sorted(keys)]
    with errors_named():
        table = client.query_arrow(_INSIDE.format(scored=_scored(rows)), rows.parameters | {"pairs": pairs})
    column = {name: table.column(name).to_numpy() for name in table.column_names}
    order = np.lexsort((column["row_order"], -column["score"], column["bucket"], column["scorer"]))
    scorer, bucket = column["scorer"][order], column["bucket"][order]
    sums = _row_sums(*(column[name][order] for name in ("defaulted", "weight", "stake")))
    starts = np.flatnonzero(np.append(True, (scorer[1:] != scorer[:-1]) | (bucket[1:] != bucket[:-1])))[: len(order)]
    return {
        (names[int(scorer[start]) - 1], int(bucket[start])): Inside(part)
        for start, part in zip(starts.tolist(), np.split(sums, starts[1:]), strict=True)
    }


def _row_sums(defaulted: npt.NDArray[Any], weight: Floats, stake: Floats) -> Sums:
    bad = defaulted.astype(np.float64)
    whole = (np.ones(len(bad)), weight, weight**2, stake, stake**2)
    return np.column_stack([each for value in whole for each in (value, value * bad)])


def _names(rows: EvaluatedRows) -> list[str]:
    return [FLAGS, RULES, *rows.score_of]


def _scored(rows: EvaluatedRows) -> str:
    columns = ", ".join(["toFloat64(rules_flag)", "rules_score", *rows.score_of.values()])
    return _SCORED.format(scores=f"[{columns}]", rows=rows.sql)


def _refuse_other_rows(total: Sums, told: Document) -> None:
    counted = dict(zip(SUMS, total.tolist(), strict=True))
    evaluated = told["evaluation"]["rows"]
    if (counted["rows"], counted["defaults"]) != (evaluated["evaluated"], evaluated["defaults"]):
        raise Fatal(
            f"this evaluation is of {evaluated['evaluated']:,} transactions with {evaluated['defaults']:,} defaults, "
            f"the tables now give {counted['rows']:,.0f} with {counted['defaults']:,.0f}: something was sent again "
            "since. Evaluate again with `bnpl-shadow evaluate --store`"
        )
