"""The evaluation of a scope: rows read, weeks counted, figures and verdict made, and by which policy that holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from clickhouse_connect.driver.client import Client

from consumer.champion.in_force import InForce, in_force
from consumer.champion.policies import registered_at
from consumer.champion.protected import ProtectedFeature, protected_features
from consumer.champion.reasons import Example, explain_examples
from consumer.champion.rows import Rows, read_rows
from consumer.champion.scope import Scope, Snapshot, take_snapshot
from consumer.contracts.horizons import Horizon, Horizons
from consumer.errors import ArtifactError, NothingToEvaluate
from consumer.evaluation.curves import Curves, curves
from consumer.evaluation.evaluate import Evaluation, evaluate
from consumer.evaluation.looks import look_at, look_week
from consumer.evaluation.multiplicity import Look
from consumer.evaluation.policy import Policy, Targets, load_policy
from consumer.evaluation.sample import Mask, Sample
from consumer.evaluation.vintages import FollowUp
from consumer.scoring.artifacts import load_model_set
from consumer.scoring.manifest import read_proven
from consumer.scoring.predictor import BNPLMultiModelPredictor
from consumer.services.clickhouse import PATIENT_SECONDS, connect
from consumer.settings import Settings

_WEEK = np.timedelta64(7, "D")
_BASELINE = "baseline_metrics.json"

Say = Callable[[str, int], None]
"""Told a step's name and how many rows it has done."""


@dataclass(frozen=True)
class Terms:
    """What an evaluation is made by: fixed before the data, or it proves nothing."""

    policy: Policy
    policy_sha256: str
    horizon: Horizon
    horizons_sha256: str
    targets: Targets
    artifact_sha256: str


@dataclass(frozen=True)
class Evaluated:
    """What was found, on which rows, by which terms."""

    terms: Terms
    snapshot: Snapshot
    began: datetime
    """From when weeks are counted: what was asked for, or the midnight before the first transaction."""
    policy_registered_at: datetime | None
    evaluation: Evaluation
    curves: Curves | None
    """Of the rows that were compared; None when there were none."""
    examples: dict[int, Example]
    """The transactions that the ledger of disagreements names, by their position in the sample."""
    protected: list[ProtectedFeature]
    """Features of the models that rest on a protected basis."""
    in_force: InForce
    """The champion at the time of evaluating, whatever the day is that is looked at from."""
    declined_with_outcome: int
    digest: str
    """Of the columns of the sample."""

    @property
    def unfounded(self) -> str | None:
        """Why nobody may be promoted on this, whatever the figures say; None when nothing stands against it."""
        label, wanted = self.snapshot.horizon.label, self.terms.policy.label_horizon
        if label != wanted:
            return f"the policy decides by {wanted}, and this is {label}"
        if self.policy_registered_at is None:
            return "the policy was never registered, so nothing shows that it is older than the data"
        if self.policy_registered_at > self.began:
            return (
                f"the policy was registered on {self.policy_registered_at:%Y-%m-%d %H:%M}, after the first "
                f"transactions of {self.began:%Y-%m-%d}: it may have been made for them"
            )
        return None

    @property
    def promote(self) -> str | None:
        """The model that may be promoted, if any."""
        return None if self.unfounded else self.evaluation.recommendation.promote


def read_terms(settings: Settings, artifact_version: str, label: str | None = None) -> Terms:
    """Policy, horizon and targets as configured. `label` is another horizon than the policy's.

    Raises ArtifactError naming the file at fault.
    """
    policy, sha256 = load_policy(settings.policy_file)
    horizons = Horizons.load(settings.horizons_file)
    horizon = horizons[label or policy.label_horizon]
    directory = settings.artifacts_dir / artifact_version
    _, digest, files = read_proven(directory)
    if _BASELINE not in files:
        raise ArtifactError(f"{directory} has no {_BASELINE}, which holds the targets of a ratio")
    return Terms(policy, sha256, horizon, horizons.sha256, _targets(files[_BASELINE], directory / _BASELINE), digest)


def _targets(content: bytes, path: Path) -> Targets:
    try:
        return Targets.model_validate_json(json.dumps(json.loads(content)["targets"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} does not name the targets minimum, success and acceptable") from error


def evaluate_scope(settings: Settings, scope: Scope, terms: Terms, say: Say = lambda *_: None) -> Evaluated:
    """Read and judge what the scope asks for. Raises NothingToEvaluate, ClickHouseUnavailable or Fatal."""
    with connect(settings, PATIENT_SECONDS) as client:
        snapshot = take_snapshot(client, scope, terms.horizon)
        return evaluate_snapshot(settings, client, snapshot, terms, say)


def evaluate_snapshot(
    settings: Settings, client: Client, snapshot: Snapshot, terms: Terms, say: Say = lambda *_: None
) -> Evaluated:
    """The same of rows that are fixed: what a dossier is verified by. Raises ArtifactError when the models cannot be
    loaded.
    """
    predictor = BNPLMultiModelPredictor(load_model_set(settings.artifacts_dir / snapshot.scope.artifact_version))
    rows = read_rows(client, snapshot, lambda count: say("reading", count))
    if not len(rows.sample):
        raise NothingToEvaluate(_too_young(snapshot))
    began = _began(snapshot.scope, rows)
    week = look_week(terms.policy, _whole_weeks(snapshot, began))
    rows = _within(rows, began, max(week, 1))
    say("evaluating", len(rows.sample))
    earlier = [_look(rows, began, each, terms) for each in terms.policy.looks_at_weeks if each < week]
    found = evaluate(rows.sample, terms.policy, terms.targets, week, earlier=earlier, follow_up=_follow_up(rows))
    drawn = curves(_compared(rows.sample, found))
    say("explaining", len(rows.sample))
    examples = explain_examples(settings, client, snapshot, rows.sample, found, predictor)
    registered = registered_at(client, terms.policy_sha256)
    return Evaluated(
        terms,
        snapshot,
        began,
        registered,
        found,
        drawn,
        examples,
        protected_features(predictor),
        in_force(settings, predictor.model_set),
        rows.declined_with_outcome,
        _digest(rows.sample),
    )


def _compared(sample: Sample, found: Evaluation) -> Sample:
    """The rows and models that `evaluate` compared."""
    models = tuple(model for model in sample.models if model in found.scorers)
    return sample.only(sample.evaluable(models), models)


def _began(scope: Scope, rows: Rows) -> datetime:
    if scope.since is not None:
        return scope.since
    first: datetime = rows.sample.event_time.min().astype("datetime64[D]").astype("datetime64[ms]").astype(datetime)
    return first.replace(tzinfo=UTC)


def _whole_weeks(snapshot: Snapshot, began: datetime) -> int:
    """Weeks of transactions that are all old enough: the longest plan decides, also while it is too young itself."""
    end = min(snapshot.scope.as_of - snapshot.wait, snapshot.scope.period["until"])
    return max(0, (end - began) // timedelta(weeks=1))


def _within(rows: Rows, began: datetime, weeks: int) -> Rows:
    """The first so many weeks."""
    kept: Mask = rows.sample.event_time < np.datetime64(began.replace(tzinfo=None), "ms") + weeks * _WEEK
    if kept.all():
        return rows
    return replace(
        rows, sample=rows.sample.only(kept), due_days=rows.due_days[kept], default_days=rows.default_days[kept]
    )


def _look(rows: Rows, began: datetime, week: int, terms: Terms) -> Look:
    """An earlier look as it would be taken now: of the transactions it had, with the outcomes known since."""
    return look_at(_within(rows, began, week).sample, terms.policy, week)


def _follow_up(rows: Rows) -> FollowUp:
    """Each observed transaction until its default, or until its label was due."""
    observed = rows.sample.observed
    defaulted = rows.sample.defaulted[observed]
    days = np.where(defaulted & (rows.default_days[observed] > 0), rows.default_days[observed], rows.due_days[observed])
    return FollowUp(days.astype(np.float64), defaulted)


def _too_young(snapshot: Snapshot) -> str:
    scope, horizon = snapshot.scope, snapshot.horizon
    length = f"{horizon.days} days" if horizon.days else f"{horizon.days_per_instalment} days an instalment"
    return (
        f"no transaction of artifact version {scope.artifact_version} is old enough for {horizon.label} as of "
        f"{scope.as_of:%Y-%m-%d}: it is due after {length} and {horizon.grace_days} days of grace"
    )


def _digest(sample: Sample) -> str:
    """SHA-256 of the columns a verdict rests on."""
    columns = (sample.order, sample.event_time, sample.amount, sample.rules_flag, sample.observed, sample.weight)
    known = sample.defaulted & sample.observed
    digest = hashlib.sha256()
    for column in (*columns, known, *sample.scores.values()):
        digest.update(column.tobytes())
    return digest.hexdigest()
