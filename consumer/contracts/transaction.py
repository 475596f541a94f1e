"""A transaction as columns: which fields there are, and which values can be used at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa


def transaction_batch(transactions: Iterable[Mapping[str, Any]]) -> pa.RecordBatch:
    """dicts (JSON-like) -> RecordBatch; placeholder until written"""
    raise NotImplementedError
