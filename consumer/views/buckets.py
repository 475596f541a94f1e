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
_KEY_BITS = 64 - _DROPPED_BITS
_SIGN = np.uint64(1 << 63)
_BITS = "reinterpretAsUInt64(score + 0.)"  # + 0. makes -0 and 0 one
_KEY = f"bitShiftRight(if(bitTest({_BITS}, 63), bitNot({_BITS}), bitXor({_BITS}, {1 << 63})), {_DROPPED_BITS})"
_CODED = f"""
SELECT
  row_order, defaulted, weight, weight * amount AS stake, {{scores}} AS every,
  arrayMap(
    (score, scorer) -> bitOr(bitShiftLeft(toUInt64(scorer), {_KEY_BITS}), {_KEY}), every, arrayEnumerate(every)
  ) AS codes
FROM ({{rows}})
"""  # noqa: S608
"""A code is a scorer's number, from 1, and the key of the bucket that its score falls into."""
_COUNTED = """
SELECT
  code, count(), countIf(defaulted), sum(weight), sumIf(weight, defaulted), sum(weight * weight),
  sumIf(weight * weight, defaulted), sum(stake), sumIf(stake, defaulted), sum(stake * stake),
  sumIf(stake * stake, defaulted)
FROM ({coded}) ARRAY JOIN codes AS code GROUP BY code
"""
_INSIDE = f"""
SELECT code, every[bitShiftRight(code, {_KEY_BITS})] AS score, row_order, defaulted, weight, stake
FROM (
  SELECT *, arrayFilter(code -> code IN {{{{wanted:Array(UInt64)}}}}, codes) AS hits
  FROM ({{coded}}) WHERE notEmpty(hits)
)
ARRAY JOIN hits AS code
"""  # noqa: S608


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
        table = client.query_arrow(_COUNTED.format(coded=_coded(rows)), rows.parameters)
    code, *columns = (table.column(at).to_numpy() for at in range(table.num_columns))
    downwards = np.argsort(code)[::-1]
    scorer, keys = _parted(code[downwards])
    sums = np.column_stack([each.astype(np.float64) for each in columns])[downwards]
    of = {name: Buckets(keys[scorer == at], sums[scorer == at]) for at, name in enumerate(_names(rows), 1)}
    total: Sums = of[FLAGS].sums.sum(axis=0)
    _refuse_other_rows(total, told)
    return Scored(of, total)


def read_inside(client: Client, told: Document, wanted: dict[str, set[int]]) -> dict[tuple[str, int], Sums]:
    """The rows of some buckets, by scorer and key: (rows, SUMS) from the highest score to the lowest, equal scores by
    `row_order`, as `evaluate` has them. Raises as `read_buckets` does.
    """
    rows = evaluated_rows(told)
    number = {name: at for at, name in enumerate(_names(rows), 1)}
    codes = [number[name] << _KEY_BITS | key for name, keys in wanted.items() for key in sorted(keys)]
    with errors_named():
        table = client.query_arrow(_INSIDE.format(coded=_coded(rows)), rows.parameters | {"wanted": codes})
    column = {name: table.column(name).to_numpy() for name in table.column_names}
    order = np.lexsort((column["row_order"], -column["score"], column["code"]))
    code = column["code"][order]
    sums = _row_sums(*(column[name][order] for name in ("defaulted", "weight", "stake")))
    found, starts = np.unique(code, return_index=True)
    scorer, keys = (each.tolist() for each in _parted(found))
    names = _names(rows)
    parts = np.split(sums, starts[1:])[: len(found)]
    return {(names[at - 1], key): part for at, key, part in zip(scorer, keys, parts, strict=True)}


def _parted(code: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Numbers of scorers, and keys."""
    return code >> np.uint64(_KEY_BITS), code & np.uint64((1 << _KEY_BITS) - 1)


def _row_sums(defaulted: npt.NDArray[Any], weight: Floats, stake: Floats) -> Sums:
    bad = defaulted.astype(np.float64)
    whole = (np.ones(len(bad)), weight, weight**2, stake, stake**2)
    return np.column_stack([each for value in whole for each in (value, value * bad)])


def _names(rows: EvaluatedRows) -> list[str]:
    return [FLAGS, RULES, *rows.score_of]


def _coded(rows: EvaluatedRows) -> str:
    columns = ", ".join(["toFloat64(rules_flag)", "rules_score", *rows.score_of.values()])
    return _CODED.format(scores=f"[{columns}]", rows=rows.sql)


def _refuse_other_rows(total: Sums, told: Document) -> None:
    counted = dict(zip(SUMS, total.tolist(), strict=True))
    evaluated = told["evaluation"]["rows"]
    if (counted["rows"], counted["defaults"]) != (evaluated["evaluated"], evaluated["defaults"]):
        raise Fatal(
            f"this evaluation is of {evaluated['evaluated']:,} transactions with {evaluated['defaults']:,} defaults, "
            f"the tables now give {counted['rows']:,.0f} with {counted['defaults']:,.0f}: something was sent again "
            "since. Evaluate again with `bnpl-shadow evaluate --store`"
        )
