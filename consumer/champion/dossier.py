"""The dossier of an evaluation: everything that a decision to promote rests on, in a form that can be made again.

A dossier names its rows by the last offsets that the tables held, and carries its policy and horizon with it. So it
can be verified later, when more has come in: the same rows are read and every number is computed again.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from consumer.champion.evaluate import Evaluated, Terms, evaluate_snapshot
from consumer.champion.rows import statement
from consumer.champion.scope import Scope, Snapshot
from consumer.clock import utc_now
from consumer.contracts.horizons import Horizon
from consumer.errors import ConfigurationError, Fatal
from consumer.evaluation.plain import plain
from consumer.evaluation.policy import Policy, Targets
from consumer.services.clickhouse import PATIENT_SECONDS, connect
from consumer.settings import Settings

FORMAT = "bnpl-dossier/1"
_TOLERANCE = 1e-9
"""Relative: the same sums in another order may differ in their last digits."""
_NOT_COMPARED = ("made_at", "made_with", "in_force", "examples")
"""What may rightly be otherwise: when and with what it was made, who was champion then, and reasons that Kafka no
longer holds.
"""

LIMITS = (
    "Only transactions that were approved have outcomes. What the rules declined is not in any ratio; `observability` "
    "bounds what it could change.",
    "A default counts when it was known by the label's horizon; later ones are not in this evaluation.",
    "Intervals hold one look at one ratio; verdicts are corrected for the number of models and looks of the policy.",
    "Money counts what the models would have declined of what was approved. What they would have approved of what was "
    "declined is unknown.",
    "Segments are those that the shadow event tells: amount and instalments. Provider, product and person are not.",
)


def document(evaluated: Evaluated) -> dict[str, Any]:
    """The dossier as JSON has it: dicts, lists, text and finite numbers."""
    terms, snapshot, found = evaluated.terms, evaluated.snapshot, evaluated.evaluation
    scope = snapshot.scope
    figures = found.as_json()
    verdicts, recommendation = figures.pop("verdicts"), figures.pop("recommendation")
    return {
        "format": FORMAT,
        "made_at": _text(utc_now()),
        "made_with": f"bnpl-shadow-scoring {version('bnpl-shadow-scoring')}",
        "question": {
            "label": snapshot.horizon.label,
            "as_of": _text(scope.as_of),
            "since": _text(scope.since),
            "until": _text(scope.until),
            "artifact_version": scope.artifact_version,
        },
        "data": {
            "rule_set_version": snapshot.rule_set_version,
            "feature_spec_version": snapshot.feature_spec_version,
            "models": snapshot.models,
            "longest_plan": snapshot.longest_plan,
            "rows_of_other_rules": snapshot.other_identities,
            "score_ends": _keyed(snapshot.score_ends),
            "outcome_ends": _keyed(snapshot.outcome_ends),
            "weeks_from": _text(evaluated.began),
            "declined_with_outcome": evaluated.declined_with_outcome,
            "digest": evaluated.digest,
        },
        "sql": statement(snapshot).strip(),
        "parameters": {name: _text(value) for name, value in snapshot.parameters().items()},
        "terms": {
            "policy": plain(terms.policy),
            "policy_sha256": terms.policy_sha256,
            "policy_registered_at": _text(evaluated.policy_registered_at),
            "horizon": plain(snapshot.horizon),
            "horizons_sha256": terms.horizons_sha256,
            "targets": plain(terms.targets),
            "artifact_sha256": terms.artifact_sha256,
        },
        "in_force": plain(evaluated.in_force),
        "protected_features": plain(evaluated.protected),
        "limits": list(LIMITS),
        "recommendation": {"promote": evaluated.promote, "unfounded": evaluated.unfounded, **_said(recommendation)},
        "verdicts": verdicts,
        "evaluation": figures,
        "examples": {str(at): plain(each) for at, each in sorted(evaluated.examples.items())},
    }


def _said(recommendation: dict[str, Any]) -> dict[str, Any]:
    return {"figures_alone": recommendation["promote"], "sentences": recommendation["sentences"]}


def to_bytes(told: dict[str, Any]) -> bytes:
    """The file's content, whose SHA-256 goes into a promotion."""
    return json.dumps(told, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"


@dataclass(frozen=True)
class Loaded:
    """A dossier as read from a file."""

    told: dict[str, Any]
    sha256: str


def load(path: Path) -> Loaded:
    """Raises ConfigurationError when the file cannot be read or is no dossier."""
    try:
        content = path.read_bytes()
        told = json.loads(content)
    except OSError as error:
        raise ConfigurationError(f"the dossier {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path} is not JSON; name the .json file that `bnpl-shadow dossier` wrote") from error
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise ConfigurationError(f"{path} is no dossier of format {FORMAT}")
    return Loaded(told, hashlib.sha256(content).hexdigest())


@dataclass(frozen=True)
class Verification:
    """What came out otherwise; `differences` is empty when every number was found again."""

    numbers: int
    """How many were compared."""
    differences: list[str]


def verify(settings: Settings, told: dict[str, Any]) -> Verification:
    """Read the rows of a dossier again and compute every number of it. Raises Fatal when they cannot be read."""
    try:
        snapshot, terms = _again(told)
    except (KeyError, TypeError, ValueError) as error:
        raise Fatal(f"the dossier is damaged: {type(error).__name__} at {error}") from error
    with connect(settings, PATIENT_SECONDS) as client:
        found = document(evaluate_snapshot(settings, client, snapshot, terms))
    return _compare(told, found)


def snapshot_of(told: dict[str, Any]) -> Snapshot:
    """Which rows a dossier is of. Raises KeyError, TypeError or ValueError when it is damaged."""
    question, data = told["question"], told["data"]
    scope = Scope(
        _time(question["as_of"]),
        question["artifact_version"],
        question["since"] and _time(question["since"]),
        question["until"] and _time(question["until"]),
    )
    return Snapshot(
        scope,
        Horizon.model_validate(told["terms"]["horizon"]),
        data["rule_set_version"],
        data["feature_spec_version"],
        data["models"],
        data["longest_plan"],
        data["rows_of_other_rules"],
        {int(partition): end for partition, end in data["score_ends"].items()},
        {int(partition): end for partition, end in data["outcome_ends"].items()},
    )


def _again(told: dict[str, Any]) -> tuple[Snapshot, Terms]:
    snapshot, terms = snapshot_of(told), told["terms"]
    policy = Policy.model_validate_json(json.dumps(terms["policy"]))
    targets = Targets.model_validate_json(json.dumps(terms["targets"]))
    return snapshot, Terms(
        policy, terms["policy_sha256"], snapshot.horizon, terms["horizons_sha256"], targets, terms["artifact_sha256"]
    )


def _compare(told: Any, found: Any) -> Verification:
    differences: list[str] = []
    numbers = 0

    def visit(path: str, before: Any, now: Any) -> None:
        nonlocal numbers
        if isinstance(before, dict) and isinstance(now, dict):
            for name in dict.fromkeys([*before, *now]):
                if path or name not in _NOT_COMPARED:
                    visit(f"{path}.{name}".lstrip("."), before.get(name), now.get(name))
        elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
            for at, pair in enumerate(zip(before, now, strict=True)):
                visit(f"{path}[{at}]", *pair)
        else:
            numbers += isinstance(before, int | float)
            if not _same(before, now):
                differences.append(f"{path}: the dossier says {_short(before)}, the tables now give {_short(now)}")

    visit("", told, found)
    return Verification(numbers, differences)


def _same(before: Any, now: Any) -> bool:
    if isinstance(before, float) or isinstance(now, float):
        numbers = isinstance(before, int | float) and isinstance(now, int | float)
        return numbers and math.isclose(before, now, rel_tol=_TOLERANCE, abs_tol=1e-12)
    return bool(before == now)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _keyed(ends: dict[int, int]) -> dict[str, int]:
    return {str(partition): end for partition, end in sorted(ends.items())}


def _text(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
