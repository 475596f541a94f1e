"""What a lender would come to know of simulated transactions, and when: an outcome for each label horizon."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from consumer.contracts.checks import MILLISECONDS_A_DAY
from consumer.contracts.horizons import FULL_TERM, Horizons
from consumer.contracts.outcome import SCHEMA

SOURCE = "simulation"
_INSTALMENT_DAYS = 14
_NEVER = 2**31 - 1
_STEPS = 2
"""Of hand-overs until a source knows: few outcomes are known at once, and few very late."""


def outcomes_of(
    transactions: pa.RecordBatch, horizons: Horizons, rng: np.random.Generator, mean_delay_days: float = 2.0
) -> pa.RecordBatch:
    """Outcomes of simulated transactions (columns of `research.simulate.SCHEMA`), in the order of their `observed_at`.

    Each says the truth as of its label's due day, and is observed that day and a random delay later: a customer who
    misses a payment on day 42 has not defaulted in the labels due before. What was declined has no outcome.
    """
    financed = transactions.filter(transactions.column("will_default").is_valid())
    batches = [_of_label(financed, label, horizons, rng, mean_delay_days) for label in horizons.labels]
    every = pa.concat_batches(batches)
    return every.take(pc.sort_indices(every.column("observed_at")))


def _of_label(
    financed: pa.RecordBatch, label: str, horizons: Horizons, rng: np.random.Generator, mean_delay_days: float
) -> pa.RecordBatch:
    n = financed.num_rows
    missed = financed.column("days_to_first_missed_payment").fill_null(_NEVER).to_numpy()
    instalments = financed.column("installment_count").to_numpy()
    due = horizons.due_days(label, instalments)
    defaulted = missed <= due
    known = defaulted | (label == FULL_TERM)
    paid = (missed / _INSTALMENT_DAYS - 1) / instalments
    delay = rng.gamma(_STEPS, mean_delay_days / _STEPS, n)
    times = financed.column("transaction_timestamp")
    columns = {
        "transaction_id": financed.column("transaction_id"),
        "label": pa.array([label] * n, pa.string()),
        "defaulted": pa.array(defaulted),
        "days_to_resolution": pa.array(np.where(defaulted, missed, due), mask=~known),
        "loss_amount": pa.array((financed.column("amount").to_numpy() * (1 - paid)).round(2), mask=~defaulted),
        "observed_at": pa.array(times.to_numpy() + ((due + delay) * MILLISECONDS_A_DAY).astype(np.int64)),
        "source": pa.array([SOURCE] * n, pa.string()),
        "version": pa.array(np.ones(n, np.int64)),
        "transaction_timestamp": times,
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)
