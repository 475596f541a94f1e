"""Pages without a browser, where the other tests do not get them: no outcome known, and Kafka away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from evaluated_past import evaluated
from harness import environment, eventually, fresh_settings
from history import transactions
from streamlit.testing.v1 import AppTest

from consumer.champion import evaluations
from consumer.champion.dossier import document
from consumer.dashboard import data
from consumer.dashboard.shell import PAGES
from consumer.errors import ClickHouseUnavailable, NothingToEvaluate
from consumer.scoring.controller import ShadowModeController
from consumer.services import clickhouse
from consumer.settings import PROJECT
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


def test_a_policy_that_cannot_be_read_is_named_and_read_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stack: LocalStack
) -> None:
    def whole() -> None:
        from consumer.dashboard.shell import run

        run()

    policy = tmp_path / "policy.json"
    monkeypatch.setenv("BNPL_POLICY_FILE", str(policy))
    monkeypatch.setenv("BNPL_CLICKHOUSE_URL", stack.clickhouse.address)
    monkeypatch.setenv("BNPL_KAFKA_BOOTSTRAP_SERVERS", NOBODY)
    forget()
    page = AppTest.from_function(whole, default_timeout=60).run()
    assert [each.message for each in page.exception] == []
    assert str(policy) in page.warning[0].value
    policy.write_bytes((PROJECT / "artifacts" / "policy" / "promotion_v1.json").read_bytes())
    page.run()
    assert [each.message for each in page.exception] == []
    assert not any("policy" in each.value for each in page.warning)
    forget()


def policies(margin: float) -> None:
    import numpy as np

    from consumer.champion.evaluations import Stored
    from consumer.dashboard.screens import money
    from consumer.evaluation.curves import SUMS, Shares
    from consumer.evaluation.thresholds import thresholds

    ten = np.full((1, len(SUMS)), 10.0)
    told = {
        "terms": {
            "policy": {
                "alpha": 0.05,
                "minimum_defaults": 1,
                "economics": {"margin": margin, "loss_given_default": 0.6},
            }
        },
        "evaluation": {"rows": {"evaluated": 40, "defaults": 40, "customers": 1, "week": 4}},
        "data": {"weeks_from": "2026-08-03T00:00:00+00:00"},
        "question": {"label": "d28", "as_of": "2026-11-01T00:00:00+00:00"},
    }
    sums = Shares((0.25,), 0, 4 * ten[0], {"rules": ten}, {"rules": ten})
    money._policies(Stored(None, told), thresholds(told, sums))  # type: ignore[arg-type] # only its document is shown


def test_an_evaluation_by_another_policy_is_shown_by_the_economics_of_that_one() -> None:
    page = AppTest.from_function(policies, default_timeout=60, kwargs={"margin": 0.02}).run()
    page.number_input[0].set_value(3.0).run()
    assert "economics of your own" in page.caption[0].value
    page.kwargs = {"margin": 0.05}
    page.run()
    assert [each.message for each in page.exception] == []
    assert page.number_input[0].value == 5.0
    assert "the policy's economics" in page.caption[0].value


def picked() -> None:
    import streamlit as st

    from consumer.dashboard.choice import pick

    st.text(pick().artifact)


def test_models_that_were_chosen_stay_chosen_while_clickhouse_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> list[str]:
        raise ClickHouseUnavailable("away")

    monkeypatch.setattr(data, "artifact_versions", lambda: ["v2", "v1"])
    page = AppTest.from_function(picked, default_timeout=60).run()
    assert page.text[0].value == "v1"
    page.selectbox(key="artifact").select("v2").run()
    assert page.text[0].value == "v2"
    monkeypatch.setattr(data, "artifact_versions", away)
    page.run()
    assert page.text[0].value == "v2"
    monkeypatch.setattr(data, "artifact_versions", lambda: ["v2", "v1"])
    page.run()
    assert page.text[0].value == "v2"

    monkeypatch.setattr(data, "artifact_versions", away)
    sent = AppTest.from_function(picked, default_timeout=60)
    sent.query_params["artifact"] = "v2"
    assert sent.run().text[0].value == "v2"
