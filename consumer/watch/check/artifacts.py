"""Artifacts: do rules, label horizons and models load as the services would load them, hashes, golden rows and pin
included, and does a transaction hold what they read?
"""

from __future__ import annotations

from consumer.contracts.horizons import Horizons
from consumer.contracts.transaction import REQUIRED
from consumer.scoring.artifacts import check_golden, load_model_set
from consumer.scoring.breaker import Budget
from consumer.scoring.features import ONE_HOT, ORDINAL, PLAIN
from consumer.scoring.predictor import BNPLMultiModelPredictor
from consumer.scoring.rules import RuleSet
from consumer.settings import Settings
from consumer.watch.check.finding import Findings, Stopped, fault, ok, stopping, warning
from consumer.watch.check.timeouts import check_model_budgets

_READ = {*PLAIN, *ORDINAL, *ONE_HOT, "transaction_id", "customer_id", "transaction_timestamp"}


def check_artifacts(settings: Settings) -> Findings:
    """Schema, rules and models, each apart, so that a fault of one does not hide another's."""
    if lacking := sorted(_READ - set(REQUIRED)):
        what = f"the transaction schema does not require what scoring reads: {', '.join(lacking)}"
        yield fault("schemas", what, "bring the file of schemas/ back that this version came with")
    try:
        with stopping("rules", "restore the file, or set BNPL_RULES_FILE"):
            rules = RuleSet.load(settings.rules_file)
        yield ok("rules", f"version {rules.version}, sha256 {rules.sha256[:12]}…, its examples come out")
    except Stopped as stopped:
        yield stopped.finding
    with stopping("artifacts", "restore the export, or set BNPL_ARTIFACTS_DIR and BNPL_ARTIFACT_VERSION"):
        directory = settings.artifacts_dir / settings.artifact_version
        model_set = load_model_set(directory, expected_digest=settings.artifact_sha256)
        predictor = BNPLMultiModelPredictor(model_set, Budget.of(settings))
        worst = check_golden(model_set, predictor.score_features)
    models = ", ".join(entry.name for entry in model_set.models)
    pin = "pinned" if settings.artifact_sha256 else "not pinned (BNPL_ARTIFACT_SHA256)"
    golden = f"{len(model_set.golden)} golden rows within {worst:.0e}"
    yield ok("artifacts", f"{model_set.version}: {models}; {golden}; sha256 {model_set.digest[:12]}…, {pin}")
    for note in model_set.warnings:
        yield warning("artifacts", note, "export the models again from the libraries that run here, calibrated")
    yield from check_model_budgets(settings, predictor.guarded_calls)


def check_horizons(settings: Settings) -> Findings:
    """The label horizons, by which the sink lets outcomes in."""
    with stopping("horizons", "restore the file, or set BNPL_HORIZONS_FILE"):
        horizons = Horizons.load(settings.horizons_file)
    yield ok("horizons", f"version {horizons.version}, sha256 {horizons.sha256[:12]}…: {', '.join(horizons.labels)}")
