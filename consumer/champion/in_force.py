"""Which of the evaluated models is champion now: a policy compares with the one that it names, whoever rules."""

from __future__ import annotations

from dataclasses import dataclass

from consumer.errors import BnplError
from consumer.scoring.activation import Activation, ruling
from consumer.scoring.artifacts import ModelSet
from consumer.services import control
from consumer.settings import Settings


@dataclass(frozen=True)
class InForce:
    """`champion` is None where Kafka did not say, and `why` tells what is wrong."""

    champion: str | None
    mode: str | None = None
    revision: int | None = None
    """0: nobody was ever promoted, and the models' own champion holds."""
    why: str | None = None


def in_force(settings: Settings, model_set: ModelSet) -> InForce:
    """What a score process with these models goes by. Never raises for Kafka: an evaluation needs no promotion."""
    try:
        promotions = control.read(settings).log.history.values()
    except BnplError as error:
        return InForce(None, why=str(error))
    rules = ruling(Activation(model_set.champion), promotions, model_set)
    return InForce(rules.champion, rules.mode, rules.revision)
