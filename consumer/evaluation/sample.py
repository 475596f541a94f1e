"""The rows an evaluation sees, as columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from consumer.scoring.rules import RISK_FLAGS

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.int64]
Times = npt.NDArray[np.datetime64]

RULES = "rules"
"""What the rules are called beside the models; no model may be called so."""

_COLUMNS = {
    "order": np.dtype(np.uint64),
    "customer": np.dtype(np.int64),
    "event_time": np.dtype("datetime64[ms]"),
    "amount": np.dtype(np.float64),
    "rules_flag": np.dtype(np.int8),
    "rules_score": np.dtype(np.float64),
    "approved": np.dtype(np.bool_),
    "observed": np.dtype(np.bool_),
    "defaulted": np.dtype(np.bool_),
    "weight": np.dtype(np.float64),
}


def effective_size(weight: Floats) -> float:
    """Kish' (1965) effective number of rows: (Σw)² / Σw²."""
    return float(weight.sum() ** 2 / np.square(weight).sum()) if len(weight) else 0.0


@dataclass(frozen=True)
class Segment:
    """A partition of the rows: `codes` (int32) index into `labels`."""

    codes: npt.NDArray[np.int32]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Sample:
    """n transactions that are old enough for one label horizon, declined and not yet observed ones too.

    Raises ValueError when the columns do not fit together: the rows that are evaluated must be what they say.
    """

    order: npt.NDArray[np.uint64]
    """a hash of transaction_id: breaks ties between equal scores, whatever order the rows come in"""
    customer: npt.NDArray[np.int64]
    """the cluster: rows of one customer are not independent; distinct where the customer is unknown"""
    event_time: Times
    """datetime64[ms], UTC"""
    amount: Floats
    rules_flag: npt.NDArray[np.int8]
    """index into RISK_FLAGS"""
    rules_score: Floats
    approved: Mask
    """what really was decided; the outcome of a declined transaction is never seen"""
    observed: Mask
    """the outcome is known; only for approved ones"""
    defaulted: Mask
    """means something only where observed"""
    weight: Floats
    """1, or 1 / approval_propensity: how many transactions of the whole population a row stands for"""
    scores: Mapping[str, Floats]
    """of every model; NaN where it gave none"""
    probability: Mapping[str, bool]
    """whether a model's score claims to be a probability of default"""
    segments: Mapping[str, Segment] = field(default_factory=dict)

    def __post_init__(self) -> None:
        columns: dict[str, tuple[npt.NDArray[Any], np.dtype[Any]]] = {
            name: (getattr(self, name), dtype) for name, dtype in _COLUMNS.items()
        }
        columns |= {f"scores of {name}": (values, np.dtype(np.float64)) for name, values in self.scores.items()}
        columns |= {f"segment {name}": (each.codes, np.dtype(np.int32)) for name, each in self.segments.items()}
        for name, (values, dtype) in columns.items():
            if values.dtype != dtype or values.shape != self.order.shape:
                raise ValueError(f"{name} is {values.dtype}{values.shape}, not {dtype}{self.order.shape}")
        if self.scores.keys() != self.probability.keys():
            raise ValueError("scores and probability do not name the same models")
        if RULES in self.scores:
            raise ValueError(f"a model is called {RULES!r}, as the rules are; give it another name")
        for fault, rows in self._faults():
            if rows.any():
                raise ValueError(f"{int(rows.sum())} of {len(self)} rows: {fault}")

    def _faults(self) -> list[tuple[str, Mask]]:
        faults = [
            ("observed, but not approved", self.observed & ~self.approved),
            (f"rules_flag is not one of the {len(RISK_FLAGS)}", (self.rules_flag < 0) | (self.rules_flag > 2)),
            ("weight is not a positive number", ~((self.weight > 0) & np.isfinite(self.weight))),
            ("amount is not a number", ~np.isfinite(self.amount)),
            ("rules_score is not a number", ~np.isfinite(self.rules_score)),
        ]
        faults += [(f"score of {name} is infinite", np.isinf(scores)) for name, scores in self.scores.items()]
        faults += [
            (
                f"score of {name} is outside 0 to 1, though it claims to be a probability",
                (self.scores[name] < 0) | (self.scores[name] > 1),
            )
            for name, claimed in self.probability.items()
            if claimed
        ]
        faults += [
            (f"code of segment {name} has no label", (segment.codes < 0) | (segment.codes >= len(segment.labels)))
            for name, segment in self.segments.items()
        ]
        return faults

    def __len__(self) -> int:
        return len(self.order)

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(self.scores)

    @property
    def coverage(self) -> float:
        """Share of the approved transactions whose outcome is known: 0 when none was approved."""
        approved = int(np.count_nonzero(self.approved))
        return np.count_nonzero(self.observed) / approved if approved else 0.0

    @property
    def effective_size(self) -> float:
        """Of the observed rows: what unequal weights leave of their number."""
        return effective_size(self.weight[self.observed])

    def scored_share(self, model: str) -> float:
        """Share of the observed rows that a model scored."""
        observed = int(np.count_nonzero(self.observed))
        return np.count_nonzero(self.observed & ~np.isnan(self.scores[model])) / observed if observed else 0.0

    def evaluable(self, models: tuple[str, ...]) -> Mask:
        """Rows with an outcome that each of the models scored: the same rows for everybody."""
        rows = self.observed.copy()
        for model in models:
            rows &= ~np.isnan(self.scores[model])
        return rows

    def only(self, rows: Mask, models: tuple[str, ...] | None = None) -> Sample:
        """The sample of some rows, and of some models; itself when that is all of them."""
        kept = self.models if models is None else models
        if rows.all() and kept == self.models:
            return self
        taken: dict[str, Any] = {name: getattr(self, name)[rows] for name in _COLUMNS}
        return replace(
            self,
            **taken,
            scores={name: self.scores[name][rows] for name in kept},
            probability={name: self.probability[name] for name in kept},
            segments={name: Segment(each.codes[rows], each.labels) for name, each in self.segments.items()},
        )
