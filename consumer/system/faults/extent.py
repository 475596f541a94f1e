"""How much of each fault a run does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Extent:
    rate: float = 5000.0
    """Transactions a second."""
    rounds: int = 5
    """How often each fault comes; with 0 of them a broker hangs once, all are killed once, and no single one is."""
    calm_seconds: float = 5.0
    """Undisturbed traffic between two faults, at the most."""
    fault_seconds: float = 5.0
    """How long a fault of ClickHouse lasts."""
    outage_seconds: float = 60.0
    """How long ClickHouse is away in part outage."""
    pause_seconds: float = 12.0
    """How long a broker hangs; longer than a session."""
    seed: int = 0
    """Of what is killed when."""
