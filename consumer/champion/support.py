"""Whether a dossier supports the promotion of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from consumer.errors import Fatal

_LONGEST = 200


def support(dossier: Mapping[str, Any], model: str) -> tuple[bool, str]:
    """Whether the dossier recommends this model, and in words what it says of it.

    Raises Fatal when it is no dossier.
    """
    recommendation, verdicts = dossier.get("recommendation"), dossier.get("verdicts")
    if not isinstance(recommendation, Mapping) or "promote" not in recommendation or verdicts is None:
        raise Fatal("the dossier has no `recommendation` with `promote`, or no `verdicts`: make it anew")
    promoted = recommendation["promote"]
    if promoted is not None and not isinstance(promoted, str):
        raise Fatal("the dossier's `recommendation.promote` is neither a model's name nor null: make it anew")
    advice = f"the dossier recommends {promoted}" if promoted else "the dossier recommends no promotion"
    verdict = verdicts.get(model) if isinstance(verdicts, Mapping) else None
    told = f"; of {model} it says {_words(verdict)}" if isinstance(verdict, str) else ""
    return promoted == model, _words(advice + told)


def _words(text: str) -> str:
    """On one line, and short: it is recorded."""
    return "".join(each if each.isprintable() else " " for each in text)[:_LONGEST]
