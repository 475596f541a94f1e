"""Pages without a browser, where the other tests do not get them: no outcome known, and Kafka away."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import streamlit as st
from evaluated_past import evaluated
from harness import environment, eventually, fresh_settings
from history import transactions
from streamlit.testing.v1 import AppTest

from consumer.champion import evaluations
from consumer.champion.dossier import document
from consumer.dashboard.shell import PAGES
from consumer.errors import NothingToEvaluate
from consumer.scoring.controller import ShadowModeController
from consumer.services import clickhouse
from consumer.stack.local import LocalStack
from consumer.system.bench.history import store_scores

NOBODY = "127.0.0.1:1"


@pytest.fixture(scope="module")
def without_outcomes(
    stack: LocalStack, controller: ShadowModeController, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """The environment of a dashboard over scores alone, old enough for their outcomes, which nobody sent; no Kafka."""
    with (
        fresh_settings(stack, tmp_path_factory.mktemp("without")) as settings,
        clickhouse.connect(settings) as client,
        pytest.MonkeyPatch.context() as patch,
    ):
        store_scores(client, settings, controller, transactions(2_000, 42))
        found = evaluated(settings)
        listed = evaluations.store(client, document(found), found.curves)
        with pytest.raises(NothingToEvaluate, match="no outcome of the evaluated transactions is known"):
            evaluations.curves_of(client, listed)
        away = settings.model_copy(update={"kafka_bootstrap_servers": NOBODY})
        for name, value in environment(away).items():
            patch.setenv(name, value)
        forget()
        yield
        forget()


def forget() -> None:
    """What pages keep."""
    st.cache_data.clear()
    st.cache_resource.clear()


def script(address: str) -> None:
    from consumer.dashboard.choice import pick
    from consumer.dashboard.shell import PAGES, draw

    draw(*PAGES[address], pick())


def opened(address: str) -> AppTest:
    return AppTest.from_function(script, default_timeout=60, args=(address,)).run()


MISSING = {
    "models": "no outcome of the evaluated transactions is known yet",
    "rules-against-models": "no outcome of the evaluated transactions is known yet",
    "money": "no outcome of the evaluated transactions is known yet",
    "vintages": "Not settled, and drawn grey, are 6 of 6 weeks",
    "disagreements": "No model could be compared",
    "data-health": "Dead letters cannot be shown: Kafka: ",
}


@pytest.mark.usefixtures("without_outcomes")
@pytest.mark.parametrize("address", PAGES)
def test_pages_say_what_is_missing_and_show_the_rest(address: str) -> None:
    page = opened(address)
    assert [each.message for each in page.exception] == []
    assert MISSING.get(address, "") in " ".join(told(page))
    assert page.caption, "what does not need the missing part"
    waits = any("comes back by itself" in each.value for each in page.caption)
    assert waits == (address == "data-health")
    if address == "data-health":
        assert [each.value for each in page.header][-1] == "Reconcile"


@pytest.mark.usefixtures("without_outcomes")
def test_lag_that_cannot_be_asked_is_named_beside_what_was_scored() -> None:
    eventually(lambda: any("Lag is as last seen: " in each for each in told(opened("live"))), 30, "no word of Kafka")


def told(page: AppTest) -> list[str]:
    return [each.value for each in (*page.warning, *page.info)]
