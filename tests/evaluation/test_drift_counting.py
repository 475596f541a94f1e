"""Counting into frozen bins against a count by hand, and what an export must tell for it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from drifting import ENGINEER, SHIPPED, adopted, replaced, shipped, tally, told, week
from hypothesis import given
from hypothesis import strategies as st
from samples import examples

from consumer.errors import ArtifactError
from consumer.evaluation.drift.counting import OTHER_VALUES, VALUES_KEPT, BinCounter
from consumer.evaluation.drift.reference import BASELINE_FILE, RULES, Bins, Share, read_reference
from consumer.research.measures import frozen_bins
from consumer.scoring.features import FEATURE_NAMES

NUMBERS = st.floats(-1e6, 1e6)


def by_hand(edges: list[float], value: float) -> int:
    """The cell of a number: left-closed bins, the last one closed."""
    if np.isnan(value):
        return len(edges) + 1
    if value < edges[0]:
        return 0
    if value > edges[-1]:
        return len(edges)
    inside = [at for at, low in enumerate(edges[:-1]) if value >= low]
    return 1 + inside[-1]


@examples(200)
@given(st.lists(NUMBERS, min_size=1, max_size=60), st.lists(NUMBERS, max_size=20))
def test_a_number_goes_into_the_cell_of_its_bin(trained: list[float], more: list[float]) -> None:
    frozen = frozen_bins(np.array(trained))
    edges = frozen["bin_edges"]
    bins = Bins(np.array(edges), None)
    values = [*trained, *more, *edges, float("nan")]
    found = np.searchsorted(bins.cuts, values, "right")[:-1]  # NaN has a cell of its own, see below
    assert found.tolist() == [by_hand(edges, value) for value in values[:-1]]
    inside = np.bincount(found[: len(trained)], minlength=bins.cells)
    assert inside[1 : len(edges)].tolist() == frozen["bin_counts"], "training falls into its bins as it was counted"


def test_every_cell_of_every_feature_equals_a_count_row_by_row() -> None:
    batch = week(1, rows=3_000)
    amounts = batch.column("amount").to_numpy().copy()
    amounts[:7], amounts[7:10] = 1e6, 0.01
    devices = batch.column("device_type").to_pylist()
    devices[20:23], devices[23] = ["hologram"] * 3, "abacus"
    levels = batch.column("risk_level").to_pylist()
    levels[30:35] = ["very_high"] * 5  # the features know it, training had none
    batch = replaced(replaced(replaced(batch, "amount", amounts), "device_type", devices), "risk_level", levels)
    matrix = ENGINEER.engineer(batch).matrix.copy()
    matrix[40:44, FEATURE_NAMES.index("price_comparison_time")] = np.nan
    groups = np.arange(batch.num_rows) % 3
    reference = shipped()
    counter = BinCounter(reference, FEATURE_NAMES)
    found = counter.count(batch, matrix, groups, 3)
    columns = {name: batch.column(name).to_pylist() for name in reference.known}
    for row, (feature, place) in enumerate(counter.cells_of()):
        edges = feature.bins.edges.tolist()
        for group in range(3):
            expected: Counter[int] = Counter()
            numbers = []
            for at in np.flatnonzero(groups == group):
                value = matrix[at, FEATURE_NAMES.index(feature.name)]
                if feature.column and columns[feature.column][at] not in reference.known[feature.column]:
                    expected[len(edges) + 2] += 1
                else:
                    expected[by_hand(edges, value)] += 1
                    numbers += [] if np.isnan(value) else [value]
            cells = found[group].cells[place]
            assert {at: count for at, count in enumerate(cells.tolist()) if count} == expected, feature.name
            assert found[group].sums[row] == pytest.approx(sum(numbers))
            assert found[group].squares[row] == pytest.approx(sum(value**2 for value in numbers))
    unseen: Counter[tuple[str, str]] = Counter()
    for each in found:
        unseen.update(each.unseen)
    assert unseen == {
        ("device_type", "hologram"): 3,
        ("device_type", "abacus"): 1,
        ("risk_level", "very_high"): 5,
    }


def test_groups_and_parts_add_up_to_the_whole() -> None:
    batch = week(2, rows=4_000)
    counter = BinCounter(shipped(), FEATURE_NAMES)
    whole, total = tally(counter, batch), counter.empty()
    for start in range(0, 4_000, 700):
        total.add(tally(counter, batch.slice(start, 700)))
    assert total.cells.tolist() == whole.cells.tolist()
    assert total.sums == pytest.approx(whole.sums)
    widths = {feature.bins.cells for feature in counter.features}
    assert total.cells.sum() == 36 * 4_000
    assert len(widths) > 3


def test_a_flood_of_unseen_values_is_counted_and_few_are_kept_by_name() -> None:
    batch = week(3, rows=1_000)
    batch = replaced(batch, "device_type", [f"device-{at}" for at in range(1_000)])
    counter = BinCounter(shipped(), FEATURE_NAMES)
    total = counter.empty()
    for start in range(0, 1_000, 100):
        total.add(tally(counter, batch.slice(start, 100)))
    assert len(total.unseen) == VALUES_KEPT + 1
    assert sum(total.unseen.values()) == 1_000
    assert total.unseen["device_type", OTHER_VALUES] == 1_000 - VALUES_KEPT


def test_the_shipped_export_tells_all_that_is_measured() -> None:
    reference = shipped()
    assert [feature.name for feature in reference.features] == list(FEATURE_NAMES)
    assert not reference.untold
    assert all(feature.bins.counts is not None for feature in reference.features)
    assert set(reference.scores) == {"ridge", "logistic", "elastic", "ensemble"}
    assert reference.flagged[RULES] == Share(2507, 39046)
    assert "very_high" not in reference.known["risk_level"]
    columns = {feature.name: feature.column for feature in reference.features}
    assert columns["device_type_mobile"] == "device_type"
    assert columns["risk_level_encoded"] == "risk_level"
    assert columns["amount"] is None


def test_an_export_without_bins_has_one_bin_from_least_to_most() -> None:
    reference = adopted()
    amount = reference.features[0]
    assert amount.bins.edges.tolist() == [5.33, 2793.38]
    assert amount.bins.counts is None
    assert "very_high" in reference.known["risk_level"], (
        "what training had is not told, so the features' own values count"
    )
    assert not reference.scores


@pytest.mark.parametrize(
    ("statistics", "fault"),
    [
        ({}, "says nothing of any feature, so drift cannot be measured; adopt the export again with --sample"),
        ({"features": {"weather": {"mean": 1.0}}}, "says nothing of any feature"),
        ({"features": {"amount": {"bin_edges": [1.0, 2.0]}}}, "bin_edges and bin_counts belong together"),
        ({"features": {"amount": {"bin_edges": [1.0, 2.0], "bin_counts": [1, 2]}}}, "2 bin_edges for 2 bin_counts"),
        ({"features": {"amount": {"bin_edges": [2.0, 1.0], "bin_counts": [1]}}}, "bin_edges do not rise"),
        ({"features": {"amount": {"bin_edges": [1.0, 2.0], "bin_counts": [0]}}}, "bin_counts are all 0"),
        ({"features": {"amount": {"min": 2.0, "max": 1.0}}}, "min is above max"),
        ({"features": {"amount": {"mean": "much"}}}, "features.amount.mean"),
        ({"features": [1, 2]}, "features: Input should be"),
    ],
)
def test_statistics_that_cannot_be_used_are_refused_by_name(statistics: dict[str, Any], fault: str) -> None:
    with pytest.raises(ArtifactError, match=r"training_stats\.json") as refused:
        told(statistics)
    assert fault in str(refused.value)


def test_an_export_without_statistics_says_how_to_get_them() -> None:
    with pytest.raises(ArtifactError, match=r"has no training_stats\.json.*--sample"):
        read_reference(SHIPPED, "0" * 64, {}, FEATURE_NAMES, "2")


@pytest.mark.parametrize(
    "baseline",
    [
        {},
        {"models": {"ridge": {"auc": 0.6}}},
        {"models": {"ridge": {"flagged": "many", "flagged_share": 0.1}}},
        {"models": {"ridge": 3}},
    ],
)
def test_shares_of_flags_that_an_export_does_not_tell_are_not_known(baseline: dict[str, Any]) -> None:
    features = {"amount": {"mean": 1.0, "std": 1.0}}
    assert not told({"features": features}, **{BASELINE_FILE: baseline}).flagged
