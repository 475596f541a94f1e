"""What is known of one transaction, in the order in which it travels."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from consumer.contracts.dead_letter import Coordinates

State = Literal["waiting for score", "dead letter", "replayed", "waiting for sink", "stored", "unknown"]


@dataclass(frozen=True)
class Event:
    """A transaction as its topic holds it. `fields` are those that scoring reads, the customer's id left out; None when
    the record cannot be read, and `fault` says why.
    """

    arrived: datetime
    """Kafka's time of the record."""
    fields: dict[str, Any] | None
    fault: str | None = None


@dataclass(frozen=True)
class Letter:
    """A dead letter: why a record was refused. `source` is where the record was read; partition −1 means a line that
    never came into a topic.
    """

    at: Coordinates
    arrived: datetime
    source: Coordinates
    stage: str
    error: str
    message: str
    attempt: int
    first_failed_at: str
    replayed_to: Coordinates | None = None
    """The record that it became, when it was replayed."""
    replayed_at: str | None = None


@dataclass(frozen=True)
class Form:
    """A model's score as a linear form of the raw features: Σ coefficient · value + bias, before the sigmoid or clip.

    `forms` counts the forms it is the weighted mean of: with more than one, the score is the mean of their sigmoids,
    not the sigmoid of this mean. `contributions` are (feature, value, coefficient), the largest product first.
    """

    bias: float
    decision: float
    forms: int
    contributions: list[tuple[str, float, float]]


@dataclass(frozen=True)
class Recomputed:
    """The same made again from the event by the rules and models that are loaded here."""

    features: dict[str, float]
    forms: dict[str, Form | None]
    """By model; None for one that is not linear."""
    differences: list[str]
    """What comes out otherwise than it was recorded."""


@dataclass(frozen=True)
class Prediction:
    """One shadow event. `recorded` has its fields; `at` is None when only its row was found."""

    recorded: dict[str, Any]
    at: Coordinates | None
    arrived: datetime | None
    row: dict[str, Any] | None
    """The row of its prediction id, outcome included; None when there is none, or ClickHouse is away."""
    recomputed: Recomputed | None = None
    not_recomputed: str = ""
    """Why it was not made again."""

    @property
    def replaced(self) -> bool:
        """Whether the row is that of a later event of the same prediction."""
        return self.row is not None and self.at is not None and self.row["shadow_offset"] != self.at.offset


@dataclass(frozen=True)
class Sending:
    """One record of the transaction, and what came of it. `state` tells how far it is, `told` says it with figures."""

    at: Coordinates
    event: Event | None
    """None when the topic does not hold the record any more, or never did."""
    letters: list[Letter]
    predictions: list[Prediction]
    state: State
    told: str
    replay_of: Coordinates | None = None
    """The dead letter that was replayed as this record."""


@dataclass(frozen=True)
class Trace:
    """Every sending of one transaction that was found, oldest record first."""

    transaction_id: str
    sendings: list[Sending]
    away: dict[str, str] = field(default_factory=dict)
    """What could not be asked (`Kafka`, `ClickHouse`, `group …`), and why."""
    away_passes: bool = True
    """Whether all of that may pass by itself."""
    searched: str = ""
    """How far the search went."""
