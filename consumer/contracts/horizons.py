"""Label horizons: until when a default counts for a label, and when a transaction is old enough to be judged by it.

A versioned file names them (`artifacts/policy/`); its `sha256` goes wherever a figure depends on them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from consumer.contracts.checks import MILLISECONDS_A_DAY, Mask
from consumer.errors import ArtifactError

FULL_TERM = "full_term"
"""The one label that every file must name: a transaction that has not defaulted by its end is good."""

Days = npt.NDArray[np.int64]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Horizon(_Strict):
    """One label: due after `days`, or after `days_per_instalment` for each instalment of the plan."""

    label: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    description: Annotated[str, Field(min_length=1)]
    days: Annotated[int, Field(gt=0)] | None = None
    days_per_instalment: Annotated[int, Field(gt=0)] | None = None
    grace_days: Annotated[int, Field(ge=0)]
    """How long after the due day an outcome may still be under way."""

    @model_validator(mode="after")
    def _one_length(self) -> Horizon:
        if (self.days is None) == (self.days_per_instalment is None):
            raise ValueError("needs exactly one of days and days_per_instalment")
        return self

    def due_days(self, instalments: npt.ArrayLike) -> Days:
        """Days after the checkout on which the label is due, by each transaction's number of instalments."""
        plans = np.asarray(instalments, np.int64)
        if self.days_per_instalment is None:
            return np.full(plans.shape, self.days, np.int64)
        due: Days = plans * self.days_per_instalment
        return due


class _HorizonFile(_Strict):
    version: Annotated[str, Field(min_length=1)]
    description: str
    horizons: Annotated[list[Horizon], Field(min_length=1)]

    @model_validator(mode="after")
    def _labels(self) -> _HorizonFile:
        times = Counter(each.label for each in self.horizons)
        if repeated := [label for label, count in times.items() if count > 1]:
            raise ValueError(f"labels are used twice: {', '.join(repeated)}")
        if FULL_TERM not in times:
            raise ValueError(f"no horizon has the label {FULL_TERM}, without which no transaction is ever found good")
        return self


class Horizons:
    """The horizons of one file, by label, in the file's order."""

    def __init__(self, content: bytes) -> None:
        """Raises ArtifactError when the file is malformed."""
        try:
            read = _HorizonFile.model_validate_json(content)
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, fault['loc'])) or 'the file'}: {fault['msg']}" for fault in error.errors()
            )
            raise ArtifactError(f"the horizons cannot be used: {faults}") from None
        self.version = read.version
        self.sha256 = hashlib.sha256(content).hexdigest()
        self._by_label = {each.label: each for each in read.horizons}

    @classmethod
    def load(cls, path: Path) -> Horizons:
        """Read a file of horizons. Raises ArtifactError naming it when it is missing or cannot be used."""
        try:
            return cls(path.read_bytes())
        except OSError as error:
            raise ArtifactError(f"the horizons {path} cannot be read: {error.strerror}") from error
        except ArtifactError as error:
            raise ArtifactError(f"{path}: {error}") from None

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self._by_label)

    def __getitem__(self, label: str) -> Horizon:
        """Raises ArtifactError that lists the labels there are."""
        try:
            return self._by_label[label]
        except KeyError:
            raise ArtifactError(f"{self.version} has no horizon {label}; it has {', '.join(self._by_label)}") from None

    def due_days(self, label: str, instalments: npt.ArrayLike) -> Days:
        """The same of the horizon with this label."""
        return self[label].due_days(instalments)

    def mature(self, label: str, event_time: npt.ArrayLike, instalments: npt.ArrayLike, as_of: datetime) -> Mask:
        """Which transactions are old enough at `as_of`: due day and grace are over.

        `event_time` is int64 milliseconds since 1970 UTC.
        """
        days = self.due_days(label, instalments) + self[label].grace_days
        old_enough: Mask = np.asarray(event_time, np.int64) + days * MILLISECONDS_A_DAY <= as_of.timestamp() * 1000
        return old_enough
