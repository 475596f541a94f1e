"""Rules and models of the configured versions, proved and put together."""

from __future__ import annotations

from consumer.scoring.artifacts import check_golden, load_model_set
from consumer.scoring.breaker import Budget
from consumer.scoring.controller import ShadowModeController
from consumer.scoring.predictor import BNPLMultiModelPredictor
from consumer.scoring.rules import RuleSet
from consumer.settings import Settings


def load_controller(settings: Settings) -> ShadowModeController:
    """Hashes are checked before anything is unpickled, and golden rows, through the serving code, after it.

    Raises ArtifactError that names the file at fault.
    """
    rules = RuleSet.load(settings.rules_file)
    directory = settings.artifacts_dir / settings.artifact_version
    model_set = load_model_set(directory, expected_digest=settings.artifact_sha256)
    predictor = BNPLMultiModelPredictor(model_set, Budget.of(settings))
    check_golden(model_set, predictor.score_features)
    return ShadowModeController(rules, predictor)
