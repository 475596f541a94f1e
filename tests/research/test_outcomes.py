"""Outcomes of simulated transactions: each label tells the truth of its due day, and no label tells it earlier."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from consumer.contracts.avro import Decoded
from consumer.contracts.horizons import Horizons
from consumer.contracts.outcome import refuse_impossible
from consumer.contracts.transaction import Limits
from consumer.research.outcomes import outcomes_of
from consumer.research.simulate import SimulationConfig, simulate
from consumer.settings import Settings

HORIZONS = Horizons.load(Settings().horizons_file)
DAY = 86_400_000


@pytest.fixture(scope="module")
def transactions() -> pa.RecordBatch:
    (batch,) = simulate(SimulationConfig(events=4000, seed=5, start=date(2026, 6, 1), days=30))
    return batch


def made(transactions: pa.RecordBatch, seed: int = 1) -> pa.RecordBatch:
    return outcomes_of(transactions, HORIZONS, np.random.default_rng(seed))


def test_each_financed_transaction_has_the_truth_of_every_due_day(transactions: pa.RecordBatch) -> None:
    truth = transactions.to_pandas().set_index("transaction_id")
    outcomes = made(transactions).to_pandas()
    financed = truth[truth.will_default.notna()]
    assert len(outcomes) == 4 * len(financed) < 4 * len(truth)
    assert outcomes.groupby("label").transaction_id.nunique().eq(len(financed)).all()
    outcomes = outcomes.join(financed.rename(columns={"transaction_timestamp": "bought_at"}), on="transaction_id")
    days = {"first_payment": 14, "d28": 28, "d42": 42}
    for label, rows in outcomes.groupby("label"):
        due = 14 * rows.installment_count if label == "full_term" else days[str(label)] + 0 * rows.installment_count
        expected = rows.will_default.astype(bool) & (rows.days_to_first_missed_payment <= due)
        assert (rows.defaulted == expected).all()
        told = rows.days_to_resolution
        assert (told[expected] == rows.days_to_first_missed_payment[expected]).all()
        assert (told[~expected] == due[~expected]).all() if label == "full_term" else told[~expected].isna().all()
        late = (rows.observed_at - rows.transaction_timestamp) / DAY - due
        assert late.min() >= -1e-6
        assert late.mean() == pytest.approx(2.0, abs=0.15)
        assert (late <= 7).mean() > 0.97
        assert (rows.transaction_timestamp == rows.bought_at).all()
    unpaid = 1 - (outcomes.days_to_first_missed_payment / 14 - 1) / outcomes.installment_count
    lost = outcomes.loss_amount[outcomes.defaulted]
    assert np.allclose(lost, (outcomes.amount * unpaid)[outcomes.defaulted], atol=0.01)
    assert outcomes.loss_amount[~outcomes.defaulted].isna().all()


def test_no_default_at_one_due_day_becomes_one_at_a_later(transactions: pa.RecordBatch) -> None:
    wide = made(transactions).to_pandas().pivot(index="transaction_id", columns="label", values="defaulted").astype(int)
    order = wide[["first_payment", "d28", "d42", "full_term"]]
    assert (order.diff(axis=1).iloc[:, 1:] >= 0).all(axis=None)
    assert (order.diff(axis=1).iloc[:, 1:] > 0).any().all()


def test_they_are_told_in_the_order_of_knowing_and_by_the_seed(transactions: pa.RecordBatch) -> None:
    first = made(transactions)
    assert (np.diff(first.column("observed_at").to_numpy()) >= 0).all()
    assert made(transactions).equals(first)
    assert not made(transactions, seed=2).equals(first)


def test_the_contract_lets_all_of_them_in(transactions: pa.RecordBatch) -> None:
    outcomes = made(transactions)
    now = datetime.fromtimestamp(outcomes.column("observed_at")[-1].as_py() / 1000, UTC) + timedelta(seconds=1)
    decoded = Decoded(outcomes, np.arange(outcomes.num_rows))
    assert refuse_impossible(decoded, HORIZONS, Limits.of(Settings()), now).rejected == []


def test_nothing_financed_has_no_outcome(transactions: pa.RecordBatch) -> None:
    declined = transactions.filter(pa.array(pd.isna(transactions.column("will_default").to_pandas())))
    assert made(declined).num_rows == 0
