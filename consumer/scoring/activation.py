"""Who decides: the rules, or, where a promotion says so, the champion among those whom the rules approve.

In mode shadow nothing that a model said is looked at. In the other modes a champion can only be stricter than the
rules: what they decline stays declined. Where it gives no usable score in time, has no threshold, or may have been
stopped without our knowledge, the decision of the rules stands for that transaction at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from consumer.contracts.control import Control, Mode
from consumer.scoring.rules import Decisions, Mask

if TYPE_CHECKING:  # the models' library takes longer to load than all the rest
    from consumer.scoring.artifacts import ModelSet
    from consumer.scoring.predictor import Predictions

Decider = Literal["rules", "champion", "fallback"]
"""`fallback`: the champion should have decided and could not, so the rules' decision stands."""

DECIDERS: tuple[Decider, ...] = ("rules", "champion", "fallback")

_POINTS = 10_000
_POINT_OF = b"bnpl-canary/"


@dataclass(frozen=True)
class Activation:
    """Which model is champion, and what it decides. `revision` is that of the control record that says so; 0 for none:
    then the artifact's own champion decides nothing.
    """

    champion: str
    mode: Mode = "shadow"
    canary_percent: float | None = None
    revision: int = 0
    doubt: str | None = None
    """Why nobody can say that this still rules: then the champion decides nothing, whatever the mode."""

    @property
    def percent(self) -> float:
        """Share of customers that the champion decides."""
        return {"shadow": 0.0, "canary": self.canary_percent or 0.0, "champion": 100.0}[self.mode]


@dataclass(frozen=True)
class Standing:
    """Which decision stands for each of n transactions."""

    mode: Mode
    decision: pa.Array
    """string: approve or decline"""
    decided_by: pa.Array
    """string: a Decider"""

    @property
    def advisory(self) -> pa.Array:
        """bool: whether no model decided"""
        return pc.not_equal(self.decided_by, "champion")


def ruling(at_rest: Activation, controls: Iterable[Control], model_set: ModelSet) -> Activation:
    """What rules a process that has loaded these models, after all these control records in their order.

    A record for other models is passed over where a model would decide, and the one before it goes on ruling. One that
    says shadow ends here as well that a model decides: a kill reaches every process, whatever it has loaded.
    """
    now = at_rest
    for each in controls:
        if each.artifact_sha256 == model_set.digest and each.champion in model_set.led_by:
            now = Activation(each.champion, each.mode, each.canary_percent, each.revision)
        elif each.mode == "shadow":
            now = Activation(now.champion, "shadow", None, each.revision)
    return now


def stand(activation: Activation, decisions: Decisions, predictions: Predictions, customers: pa.Array) -> Standing:
    """Which decision stands, and whose it is. `customers` are the ids of the transactions' customers."""
    if activation.mode == "shadow":
        return Standing("shadow", decisions.decision, pa.repeat("rules", len(customers)))
    asked: Mask = pc.equal(decisions.decision, "approve").to_numpy(zero_copy_only=False)
    if activation.canary_percent is not None:
        asked = asked & in_canary(customers, activation.canary_percent)
    scores, threshold = predictions.champion_scores, predictions.champion_threshold
    usable = np.isfinite(scores) & np.isfinite(threshold) & (activation.doubt is None)
    declines = pa.array(asked & usable & (scores >= threshold))
    who = np.where(asked, np.where(usable, DECIDERS.index("champion"), DECIDERS.index("fallback")), 0)
    return Standing(
        activation.mode,
        pc.if_else(declines, "decline", decisions.decision),
        pa.array(DECIDERS).take(pa.array(who)),
    )


def in_canary(customers: pa.Array, percent: float) -> Mask:
    """Which transactions are of customers within the share: the same customer always, and a larger share has all of a
    smaller one.
    """
    encoded = customers.dictionary_encode()
    points = np.array([canary_point(each) for each in encoded.dictionary.to_pylist()], np.int64)
    inside: Mask = (points < round(percent * _POINTS / 100))[encoded.indices.to_numpy()]
    return inside


def canary_point(customer_id: str) -> int:
    """0 to 9999: the first 8 bytes, as a big-endian number, of the SHA-256 of `bnpl-canary/` and the id, modulo 10,000.

    Never to be changed: customers would change sides.
    """
    digest = hashlib.sha256(_POINT_OF + customer_id.encode()).digest()
    return int.from_bytes(digest[:8], "big") % _POINTS
