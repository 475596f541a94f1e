"""The repeated evaluation: as of now, whenever that may come to something new, stored and shown as metrics."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from clickhouse_connect.driver.client import Client

from consumer.champion import evaluations
from consumer.champion.dossier import document
from consumer.champion.evaluate import evaluate_snapshot, read_terms
from consumer.champion.policies import registered_at
from consumer.champion.scope import Scope, table_ends, take_snapshot
from consumer.clock import Deadline, utc_now
from consumer.errors import NothingToEvaluate, Retryable
from consumer.logs import get_logger
from consumer.metrics import Labels, Metrics
from consumer.services.clickhouse import PATIENT_SECONDS, connect
from consumer.settings import Settings

log = get_logger(__name__)

JOB = "evaluate"
_RETRY_SECONDS = 5.0


@dataclass(frozen=True)
class _Basis:
    """What an evaluation rests on: as long as it is the same, so are the figures."""

    day: date
    score_ends: dict[int, int]
    outcome_ends: dict[int, int]
    policy_sha256: str
    policy_registered_at: datetime | None
    horizons_sha256: str
    artifact_sha256: str


class EvaluateJob:
    """Evaluates the configured artifact by the policy's label. An evaluation of today, of the same rows and by the same
    terms, is not made again, also not by a process that starts anew.
    """

    def __init__(self, settings: Settings) -> None:
        """Raises ArtifactError for a policy, horizons or models that cannot be used."""
        self.metrics = Metrics("evaluate")
        self._settings = settings
        self._terms = read_terms(settings, settings.artifact_version)
        self._done: _Basis | None = None
        self._waits: str | None = None
        """Why there is nothing to evaluate."""
        self._not_asked: str | None = "nothing was asked yet"
        self._shown: dict[str, Any] | None = None
        self.metrics.evaluation.read_from(lambda: evaluation_series(self._shown))

    def run(self, every: float) -> None:
        """Without end; `every` seconds from start to start, and sooner after ClickHouse was away.

        Raises Fatal when trying again would not help.
        """
        while True:
            next_start = Deadline.after(every)
            if not self.once():
                next_start = Deadline.after(min(every, _RETRY_SECONDS))
            time.sleep(next_start.remaining)

    def once(self) -> bool:
        """One turn, whether it evaluates or finds nothing new; False when ClickHouse did not answer."""
        try:
            with connect(self._settings, PATIENT_SECONDS) as client:
                self._turn(client)
        except Retryable as error:
            self.metrics.evaluate_failures.inc()
            log.warning("not evaluated", reason=str(error))
            self._not_asked = str(error)
            return False
        self._not_asked = None
        self.metrics.job_success.labels(JOB).set_to_current_time()
        return True

    def live(self) -> list[str]:
        """Always: every wait of an evaluation has its end."""
        return []

    def ready(self) -> list[str]:
        """Having nothing to evaluate yet is no fault."""
        return [self._not_asked] if self._not_asked else []

    def _turn(self, client: Client) -> None:
        now = utc_now()
        basis = self._basis(client, now.date())
        if self._done is None:
            self._take_up(client, now)
        if self._done == basis:
            return
        try:
            self._evaluate(client, now)
        except NothingToEvaluate as waiting:
            if self._waits is None:
                log.info("nothing to evaluate yet", reason=str(waiting))
            self._waits, self._done = str(waiting), basis

    def _take_up(self, client: Client, now: datetime) -> None:
        """Go on from what was stored last, of all transactions."""
        label = self._terms.horizon.label
        found = evaluations.newest(client, self._settings.artifact_version, label, now)
        if found and found.listed.is_whole:
            self._shown, self._done = found.document, _basis_of(found.document)

    def _evaluate(self, client: Client, now: datetime) -> None:
        snapshot = take_snapshot(client, Scope(now, self._settings.artifact_version), self._terms.horizon)
        evaluated = evaluate_snapshot(self._settings, client, snapshot, self._terms)
        told = document(evaluated)
        another_of_the_day = self._shown is not None and _day_of(self._shown) == _day_of(told)
        stored = evaluations.store(client, told, evaluated.curves, interim=another_of_the_day)
        self._shown, self._done, self._waits = told, _basis_of(told), None
        log.info("evaluated", label=stored.label, as_of=stored.as_of.isoformat(), says=stored.says)

    def _basis(self, client: Client, day: date) -> _Basis:
        scores, outcomes = table_ends(client)
        terms = self._terms
        registered = registered_at(client, terms.policy_sha256)
        return _Basis(
            day,
            scores,
            outcomes,
            terms.policy_sha256,
            registered,
            terms.horizons_sha256,
            terms.artifact_sha256,
        )


def _day_of(told: Mapping[str, Any]) -> date:
    """As known on which."""
    return datetime.fromisoformat(told["question"]["as_of"]).date()


def _basis_of(told: Mapping[str, Any]) -> _Basis:
    """Of a stored evaluation."""
    data, terms = told["data"], told["terms"]
    return _Basis(
        _day_of(told),
        {int(partition): end for partition, end in data["score_ends"].items()},
        {int(partition): end for partition, end in data["outcome_ends"].items()},
        terms["policy_sha256"],
        _time(terms["policy_registered_at"]),
        terms["horizons_sha256"],
        terms["artifact_sha256"],
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def evaluation_series(told: Mapping[str, Any] | None) -> Mapping[str, Iterable[tuple[Labels, float]]]:
    """An evaluation (of `dossier.document`) as the series of `Metrics.evaluation`, without figures that are none."""
    if told is None:
        return {}
    label, rows = told["question"]["label"], told["evaluation"]["rows"]
    scorers: Mapping[str, Any] = told["evaluation"]["scorers"]
    ratios: dict[Labels, float | None] = {
        (name, label, bound): each["ratio"][key]
        for name, each in scorers.items()
        for bound, key in (("estimate", "estimate"), ("low", "interval_low"), ("high", "interval_high"))
    }
    calibrated = {name: each["calibration"] for name, each in scorers.items() if each["calibration"]}
    return {
        "bnpl_discrimination_ratio": _known(ratios),
        "bnpl_model_auc": _known({(name, label): each["ranking"]["auc"] for name, each in scorers.items()}),
        "bnpl_model_brier": _known({(name, label): each["brier"] for name, each in calibrated.items()}),
        "bnpl_model_oe_ratio": _known(
            {(name, label): each["observed_expected"]["estimate"] for name, each in calibrated.items()}
        ),
        "bnpl_outcome_coverage_ratio": [((label,), rows["coverage"])],
        "bnpl_evaluated_transactions": [((label,), rows["evaluated"])],
        "bnpl_evaluation_as_of_timestamp_seconds": [
            ((label,), datetime.fromisoformat(told["question"]["as_of"]).timestamp())
        ],
    }


def _known(figures: Mapping[Labels, float | None]) -> Iterator[tuple[Labels, float]]:
    return ((labels, figure) for labels, figure in figures.items() if figure is not None)
