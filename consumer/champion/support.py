"""Whether a dossier supports the promotion of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from consumer.errors import Fatal

_LONGEST = 200


def support(dossier: Mapping[str, Any], model: str, artifact_sha256: str) -> tuple[bool, str]:
    """Whether the dossier recommends this model of this artifact, and in words what it says of it.

    Raises Fatal when it is no dossier.
    """
    try:
        promoted, evaluated = dossier["recommendation"]["promote"], dossier["terms"]["artifact_sha256"]
        said = [
            f"{each['verdict']} against {each['against']}" for each in dossier["verdicts"] if each["model"] == model
        ]
        if promoted is not None and not isinstance(promoted, str):
            raise TypeError
    except (KeyError, TypeError):
        raise Fatal(
            "the dossier has no usable `recommendation`, `verdicts` and `terms`: make it anew by "
            "`bnpl-shadow dossier make`"
        ) from None
    if evaluated != artifact_sha256:
        return False, _words(f"the dossier is of other models ({str(evaluated)[:12]}, not {artifact_sha256[:12]})")
    advice = f"the dossier recommends {promoted}" if promoted else "the dossier recommends no promotion"
    told = f"; of {model} it says {', '.join(said)}" if said else ""
    return promoted == model, _words(advice + told)


def _words(text: str) -> str:
    """On one line, and short: it is recorded."""
    return "".join(each if each.isprintable() else " " for each in text)[:_LONGEST]
