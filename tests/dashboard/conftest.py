from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from evaluated_past import COUNT, FIRST, Past, evaluated, fill
from harness import fresh_settings

from consumer.champion import evaluations
from consumer.champion.dossier import document
from consumer.champion.policies import register
from consumer.scoring.controller import ShadowModeController
from consumer.services import clickhouse
from consumer.stack.local import LocalStack


@pytest.fixture(scope="module")
def past(
    stack: LocalStack, controller: ShadowModeController, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Past]:
    with (
        fresh_settings(stack, tmp_path_factory.mktemp("past")) as settings,
        clickhouse.connect(settings) as client,
    ):
        fill(client, settings, controller, COUNT, seed=5)
        register(client, settings.policy_file, FIRST - timedelta(days=30))
        found = evaluated(settings)
        told = document(found)
        yield Past(settings, client, told, evaluations.store(client, told, found.curves))
