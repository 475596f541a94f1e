"""What a model must show before it may decide: a file that is fixed, by its hash, before the data are seen."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from consumer.errors import ArtifactError
from consumer.evaluation.money import Economics

Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class SegmentMinimums(_Strict):
    """A cell with less than this is not judged."""

    rows: Count
    defaults: Count
    defaults_a_band: Count
    """in the high and in the low band, for a ratio"""


class Policy(_Strict):
    """`artifacts/policy/promotion_v1.json`."""

    version: Annotated[str, Field(min_length=1)]
    description: str
    label_horizon: Annotated[str, Field(min_length=1)]
    """what counts as a default, and when it is known"""
    decides: Literal["discrimination_ratio"]
    champion: Annotated[str, Field(min_length=1)]
    """the model that the others are compared with, beside the rules"""
    looks_at_weeks: Annotated[tuple[Count, ...], Field(min_length=1)]
    """after how many whole weeks of mature transactions a decision may be taken, and no other"""
    minimum_weeks: Count
    alpha: Annotated[float, Field(gt=0, lt=0.5)]
    """for all models and looks together"""
    power: Share
    """with which a decision is awaited when the weeks it needs are estimated"""
    equivalence_margin: Annotated[float, Field(gt=1)]
    """ratios that differ by less than this factor are as good as equal"""
    minimum_defaults: Count
    """in the high and in the low band"""
    minimum_coverage: Share
    """share of the approved transactions whose outcome is known"""
    minimum_scored: Share
    """share of the evaluated transactions that a model scored"""
    exact_below: Count
    """with fewer defaults that exactly one of two flags, the exact test must agree"""
    segments: SegmentMinimums
    economics: Economics

    @model_validator(mode="after")
    def _looks_ascend(self) -> Policy:
        if any(later <= sooner for sooner, later in pairwise(self.looks_at_weeks)):
            raise ValueError("looks_at_weeks must ascend")
        if self.looks_at_weeks[0] < self.minimum_weeks:
            raise ValueError("the first of looks_at_weeks is before minimum_weeks")
        return self

    @property
    def confidence(self) -> float:
        """Of the intervals that are shown."""
        return 1 - self.alpha


class Targets(_Strict):
    """The lender's targets for a discrimination ratio, as `baseline_metrics` names them."""

    minimum: float
    success: float
    acceptable: tuple[float, float]

    def level(self, ratio: float) -> str:
        """Where a ratio lies."""
        if ratio < self.minimum:
            return "below minimum"
        if ratio < self.acceptable[0]:
            return "below acceptable"
        return "acceptable" if ratio < self.success else "success"


def load_policy(path: Path) -> tuple[Policy, str]:
    """The policy and its file's sha256; raises ArtifactError that names the file and every fault in it."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"the policy {path} cannot be read ({error.strerror}); name a file that can") from error
    try:
        policy = Policy.model_validate_json(content)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'the file'}: {fault['msg']}" for fault in error.errors()
        )
        raise ArtifactError(f"the policy {path} cannot be used: {faults}") from None
    return policy, hashlib.sha256(content).hexdigest()
