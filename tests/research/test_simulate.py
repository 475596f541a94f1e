"""Simulated transactions keep the public facts, their seed and the contract of the event."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from click.testing import CliRunner
from sklearn.metrics import roc_auc_score
from trained_set import simulated

from consumer.cli.simulate import command
from consumer.contracts.avro import Decoded
from consumer.contracts.transaction import EVENT_SCHEMA, REQUIRED, Limits, columns_from_dicts, refuse_impossible
from consumer.errors import ConfigurationError
from consumer.research.simulate import LINES_AT_ONCE, SimulationConfig, json_lines, rows, simulate
from consumer.scoring.rules import RuleSet
from consumer.settings import PROJECT, Settings


@pytest.fixture(scope="module")
def events() -> pd.DataFrame:
    return simulated(SimulationConfig(events=120_000, seed=42)).to_pandas()


def test_about_one_in_twenty_defaults_and_the_risk_score_tells_weakly(events: pd.DataFrame) -> None:
    known = events[events.will_default.notna()]
    label = known.will_default.astype(int)
    assert 0.045 < label.mean() < 0.055
    assert 0.585 < roc_auc_score(label, known.risk_score) < 0.63


@pytest.mark.parametrize(("bound", "share", "ratio"), [(0.50, 0.095, 2.5), (0.55, 0.038, 3.0)])
def test_high_scores_are_as_rare_and_as_risky_as_the_public_facts_say(
    events: pd.DataFrame, bound: float, share: float, ratio: float
) -> None:
    assert (events.risk_score >= bound).mean() == pytest.approx(share, rel=0.15)
    known = events[events.will_default.notna()]
    label, flagged = known.will_default.astype(int), known.risk_score >= bound
    assert label[flagged].mean() / label[~flagged].mean() == pytest.approx(ratio, rel=0.15)


def test_the_lenders_rules_flag_few_decline_fewer_and_tell_well() -> None:
    batch = simulated(SimulationConfig(events=120_000, seed=42))
    decisions = RuleSet.load(PROJECT / "artifacts" / "rules" / "rules_v1.json").decide(batch)
    high = pc.equal(decisions.risk_flag, "high").to_numpy(zero_copy_only=False)
    assert 0.03 < high.mean() < 0.10
    assert 0.0 < pc.mean(pc.equal(decisions.decision, "decline")).as_py() < 0.06
    defaulted = batch.column("will_default")
    rates = [pc.mean(defaulted.filter(pa.array(flagged))).as_py() for flagged in (high, ~high)]
    assert 2.2 < rates[0] / rates[1] < 3.5


def test_missed_payments_fall_on_installment_days_of_defaulters_only(events: pd.DataFrame) -> None:
    defaulted = events.will_default == True  # noqa: E712 null is neither
    days = events.days_to_first_missed_payment
    assert (days.notna() == defaulted).all()
    assert (days[defaulted] % 14 == 0).all()
    assert (days[defaulted] >= 14).all()
    assert (days[defaulted] <= 14 * events.installment_count[defaulted]).all()
    assert set(events.installment_count) == {4, 6, 8, 12}
    assert events.installment_count.isin([4, 6]).mean() > 0.95


def test_declined_transactions_have_no_outcome_and_approved_ones_do(events: pd.DataFrame) -> None:
    declined = events.business_decision == "decline"
    assert 0.002 < declined.mean() < 0.03
    assert (events.will_default.isna() == declined).all()
    assert (events.approval_propensity[declined] < 1).all()


def test_risk_levels_follow_the_score_and_very_high_is_rare(events: pd.DataFrame) -> None:
    levels = pd.cut(
        events.risk_score, [-1, 0.3, 0.6, 0.8, 2], right=False, labels=["low", "medium", "high", "very_high"]
    )
    assert (levels.astype(str) == events.risk_level).all()
    assert 0 <= (events.risk_level == "very_high").mean() < 0.001


def test_purchases_follow_the_day_and_customers_come_back(events: pd.DataFrame) -> None:
    moment = pd.to_datetime(events.transaction_timestamp, unit="ms", utc=True)
    assert moment.is_monotonic_increasing
    assert (moment.dt.hour == 20).mean() > 5 * (moment.dt.hour == 4).mean()
    assert (moment.dt.day_of_week == 5).mean() > 1.1 * (moment.dt.day_of_week == 1).mean()
    assert events.customer_id.nunique() < len(events) / 4
    assert events.groupby("customer_id").customer_credit_score_range.nunique().max() == 1


def test_times_stay_inside_the_days_asked_for() -> None:
    batch = simulated(SimulationConfig(events=5_000, start=date(2025, 12, 30), days=3))
    times = batch.column("transaction_timestamp").to_numpy()
    first = datetime(2025, 12, 30, tzinfo=UTC).timestamp() * 1000
    assert times.min() >= first
    assert times.max() < first + 3 * 86_400_000


def test_every_event_is_one_that_the_service_lets_in() -> None:
    events = rows(simulated(SimulationConfig(events=2_000, seed=9)))
    batch = columns_from_dicts(events)
    now = datetime.fromisoformat(events[-1]["transaction_timestamp"])
    assert refuse_impossible(Decoded(batch, np.arange(len(events))), Limits.of(Settings()), now).rejected == []
    assert [event["transaction_id"] for event in events] == batch.column("transaction_id").to_pylist()
    assert set(REQUIRED) <= set(events[0])


def test_without_outcomes_rows_have_the_columns_of_a_live_event() -> None:
    with_labels = simulated(SimulationConfig(events=1_000, seed=4))
    without = simulated(SimulationConfig(events=1_000, seed=4, outcomes=False))
    assert without.schema == EVENT_SCHEMA
    assert without.equals(with_labels.select(EVENT_SCHEMA.names))


def test_ids_never_collide_between_seeds_or_starts() -> None:
    configs = [
        SimulationConfig(events=500, seed=1),
        SimulationConfig(events=500, seed=2),
        SimulationConfig(events=500, seed=1, start=date(2026, 9, 1)),
    ]
    ids = [identity for config in configs for identity in simulated(config).column("transaction_id").to_pylist()]
    assert len(set(ids)) == 1_500


def test_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    contents = []
    for name, seed in (("a.jsonl.gz", 7), ("b.jsonl.gz", 7), ("c.jsonl.gz", 8)):
        result = CliRunner().invoke(command, ["--events", "300", "--seed", str(seed), "-o", str(tmp_path / name)])
        assert result.exit_code == 0, result.output
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]
    assert len(gzip.decompress(contents[0]).splitlines()) == 300


def test_json_times_are_utc_and_say_so() -> None:
    batch = simulated(SimulationConfig(events=LINES_AT_ONCE + 100))
    lines = [orjson.loads(line) for line in json_lines(batch).splitlines()]
    read = [datetime.fromisoformat(line["transaction_timestamp"]) for line in lines]
    assert all(moment.tzinfo is not None for moment in read)
    wanted = batch.column("transaction_timestamp").to_numpy()
    assert np.array_equal([round(moment.timestamp() * 1000) for moment in read], wanted)


def test_an_interrupt_leaves_the_old_file_and_no_remains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "events.jsonl"
    target.write_text("what was there\n")

    def interrupted(config: SimulationConfig) -> Iterator[object]:
        yield next(simulate(config))
        raise KeyboardInterrupt

    monkeypatch.setattr("consumer.cli.simulate.simulate", interrupted)
    result = CliRunner().invoke(command, ["--events", "100", "-o", str(target)])
    assert result.exit_code != 0
    assert [path.name for path in tmp_path.iterdir()] == ["events.jsonl"]
    assert target.read_text() == "what was there\n"


@pytest.mark.parametrize("fault", [{"events": 0}, {"days": 0}, {"customers": -1}, {"seed": -1}])
def test_impossible_wishes_are_refused_by_name(fault: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(fault))):
        SimulationConfig(**({"events": 10} | fault))
