"""What drift is measured against: training, as an export's `training_stats` and `baseline_metrics` tell it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import BaseModel, ConfigDict, Field, model_validator

from consumer.errors import ArtifactError
from consumer.scoring.features import ONE_HOT, ORDINAL, categories
from consumer.scoring.manifest import parse

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

STATS_FILE, BASELINE_FILE = "training_stats.json", "baseline_metrics.json"
EXTRA_CELLS = 4
"""Beside the bins: below first; above, missing and unseen last."""
RULES = "rules"
"""The name under which the rules stand among those that raise flags."""

_COLUMN_OF_FEATURE = {f"{column}_encoded": column for column in ORDINAL} | {
    f"{column}_{value}": column for column, values in ONE_HOT.items() for value in values[1:]
}

Count = Annotated[int, Field(ge=0)]


class _Figures(BaseModel):
    """What `training_stats` says of one number; an export made elsewhere may bring only the first four."""

    model_config = ConfigDict(allow_inf_nan=False)
    mean: float | None = None
    std: Annotated[float, Field(ge=0)] | None = None
    min: float | None = None
    max: float | None = None
    bin_edges: Annotated[list[float], Field(min_length=2)] | None = None
    bin_counts: list[Count] | None = None
    below: Count = 0
    above: Count = 0
    missing: Count = 0

    @model_validator(mode="after")
    def _bins_fit(self) -> Self:
        edges, counts = self.bin_edges, self.bin_counts
        if (edges is None) != (counts is None):
            raise ValueError("bin_edges and bin_counts belong together")
        if edges is not None and counts is not None:
            if len(edges) != len(counts) + 1:
                raise ValueError(f"{len(edges)} bin_edges for {len(counts)} bin_counts")
            if sorted(edges) != edges:
                raise ValueError("bin_edges do not rise")
            if not sum(counts):
                raise ValueError("bin_counts are all 0")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is above max")
        return self


class TrainingStats(BaseModel):
    """`training_stats.json`, as far as drift reads it."""

    source: str = "not stated"
    features: dict[str, _Figures] = {}
    categories: dict[str, dict[str, Count]] = {}
    scores: dict[str, _Figures] = {}


@dataclass(frozen=True)
class Bins:
    """Frozen bins of one number, left-closed, the last one closed, and the cells that counts go into: below, the bins,
    above, missing, unseen.
    """

    edges: Floats
    counts: Counts | None
    """What training had in each cell; None when the export does not say, and there is one bin from min to max."""

    @property
    def cells(self) -> int:
        return len(self.edges) - 1 + EXTRA_CELLS

    @property
    def cuts(self) -> Floats:
        """How many of these a number reaches is its cell."""
        return np.append(self.edges[:-1], np.nextafter(self.edges[-1], math.inf))

    @property
    def middles(self) -> Floats:
        """A place for each cell that has one: what lies outside stands on the outermost edge."""
        return np.concatenate([self.edges[:1], (self.edges[:-1] + self.edges[1:]) / 2, self.edges[-1:]])


@dataclass(frozen=True)
class Feature:
    """One feature in training."""

    name: str
    bins: Bins
    mean: float | None
    std: float | None
    column: str | None
    """The category column that it is made of."""


@dataclass(frozen=True)
class Share:
    """`count` of `rows`."""

    count: int
    rows: int

    def __add__(self, other: Share) -> Share:
        return Share(self.count + other.count, self.rows + other.rows)

    @property
    def value(self) -> float:
        return self.count / self.rows


@dataclass(frozen=True)
class Reference:
    """Training as one export tells it. `digest` names the export, and so the bins that counts were made by."""

    version: str
    digest: str
    source: str
    features: tuple[Feature, ...]
    untold: tuple[str, ...]
    """Features of which the export says nothing."""
    known: Mapping[str, frozenset[str]]
    """By category column the values that training had; where the export does not say, those that features know."""
    scores: Mapping[str, Bins]
    flagged: Mapping[str, Share]
    """By model, and for the rules, how many were flagged when the export was measured."""


def read_reference(
    directory: Path, digest: str, files: Mapping[str, bytes], names: Sequence[str], spec_version: str
) -> Reference:
    """The reference in the proven `files` of an export whose features are `names`.

    Raises ArtifactError when there is nothing to measure drift against, or it contradicts itself.
    """
    way_out = "so drift cannot be measured; adopt the export again with --sample, or train it here"
    if STATS_FILE not in files:
        raise ArtifactError(f"{directory} has no {STATS_FILE}, {way_out}")
    told = parse(TrainingStats, files[STATS_FILE], directory / STATS_FILE)
    features = [_feature(name, told.features[name]) for name in names if name in told.features]
    if not features:
        raise ArtifactError(f"{directory / STATS_FILE} says nothing of any feature, {way_out}")
    seen = {column: frozenset(values) for column, values in told.categories.items()}
    return Reference(
        version=directory.name,
        digest=digest,
        source=told.source,
        features=tuple(features),
        untold=tuple(name for name in names if name not in told.features),
        known={column: frozenset(values) for column, values in categories(spec_version).items()} | seen,
        scores={name: _bins(figures) for name, figures in told.scores.items() if figures.bin_counts},
        flagged=_flagged(files.get(BASELINE_FILE)),
    )


def _feature(name: str, figures: _Figures) -> Feature:
    return Feature(name, _bins(figures), figures.mean, figures.std, _COLUMN_OF_FEATURE.get(name))


def _bins(figures: _Figures) -> Bins:
    if figures.bin_edges is None or figures.bin_counts is None:
        low = -math.inf if figures.min is None else figures.min
        high = math.inf if figures.max is None else figures.max
        return Bins(np.array([low, high]), None)
    counts = [figures.below, *figures.bin_counts, figures.above, figures.missing, 0]
    return Bins(np.array(figures.bin_edges), np.array(counts))


def _flagged(content: bytes | None) -> dict[str, Share]:
    """An export made elsewhere may say anything at all here, so what does not fit counts as not told."""
    baseline: Any = orjson.loads(content) if content else {}
    measured = baseline.get("measured_on_sample", baseline)
    rules = measured.get("rules", {})
    told = {**measured.get("models", {}), RULES: rules.get("measured", rules)}
    shares = {name: _share(facts) for name, facts in told.items()}
    return {name: share for name, share in shares.items() if share}


def _share(facts: Any) -> Share | None:
    count, share = (facts.get(name) for name in ("flagged", "flagged_share")) if isinstance(facts, dict) else (0, 0)
    if not isinstance(count, int) or not isinstance(share, float) or count <= 0 or not 0 < share <= 1:
        return None
    return Share(count, round(count / share))
