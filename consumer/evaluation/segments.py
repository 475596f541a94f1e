"""The ratios within segments, where there are enough rows to say anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import false_discovery_control

from consumer.evaluation.bands import Bands
from consumer.evaluation.outcomes import Clusters, Outcomes
from consumer.evaluation.policy import SegmentMinimums
from consumer.evaluation.rates import Rate, rates
from consumer.evaluation.ratio import Difference, Ratio, difference, ratio
from consumer.evaluation.sample import Positions, Sample


@dataclass(frozen=True)
class CellModel:
    """One model in one cell, against the rules there."""

    ratio: Ratio
    difference: Difference | None
    p_corrected: float | None = None
    """Benjamini & Hochberg's (1995) over all cells and models"""


@dataclass(frozen=True)
class Cell:
    """One value of one segment; without ratios where it is too small (`why`)."""

    segment: str
    label: str
    rate: Rate
    why: str | None
    rules: Ratio | None
    models: dict[str, CellModel]


def segments(
    sample: Sample, rules: Bands, models: Mapping[str, Bands], minimums: SegmentMinimums, confidence: float
) -> list[Cell]:
    """Every value of every segment. Bands are those of all rows: a segment is judged by the thresholds in use."""
    return _corrected(
        [
            _cell(sample, name, at, rules, models, minimums, confidence)
            for name, segment in sample.segments.items()
            for at in range(len(segment.labels))
        ]
    )


def _cell(
    sample: Sample,
    name: str,
    at: int,
    rules: Bands,
    models: Mapping[str, Bands],
    minimums: SegmentMinimums,
    confidence: float,
) -> Cell:
    segment = sample.segments[name]
    rows: Positions = np.flatnonzero(segment.codes == at)
    defaulted, weight = sample.defaulted[rows], sample.weight[rows]
    rate = rates(np.zeros(len(rows), np.int64), 1, defaulted, weight, confidence)[0]
    if rate.rows < minimums.rows or rate.defaults < minimums.defaults:
        return Cell(name, segment.labels[at], rate, "too few", None, {})
    outcomes = Outcomes(defaulted, weight, Clusters(sample.customer[rows]))
    of_rules, reference = ratio(rules[rows], outcomes, minimums.defaults_a_band, confidence)
    found = {}
    for model, bands in models.items():
        of_model, linearised = ratio(bands[rows], outcomes, minimums.defaults_a_band, confidence)
        both = linearised and reference and difference(linearised, reference, outcomes, confidence)
        found[model] = CellModel(of_model, both or None)
    return Cell(name, segment.labels[at], rate, None, of_rules, found)


def _corrected(cells: list[Cell]) -> list[Cell]:
    places = [(cell, model) for cell in cells for model, found in cell.models.items() if found.difference]
    if not places:
        return cells
    p = false_discovery_control([cell.models[model].difference.p for cell, model in places])  # type: ignore[union-attr]
    for (cell, model), corrected in zip(places, p.tolist(), strict=True):
        cell.models[model] = replace(cell.models[model], p_corrected=corrected)
    return cells
