"""ClickHouse and Kafka away: what needs them says so in time, the rest is served, and both are found again."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from harness import eventually
from kafka_proxy import KafkaProxy
from pydantic import SecretStr
from samples import transaction
from served import Api, let_decide, serving

from consumer.api.openapi import EXAMPLES, OUTCOME
from consumer.scoring.controller import ShadowModeController
from consumer.settings import Settings
from consumer.system.faults.proxy import Proxy, behaving


def refused(api: Api, path: str, content: object = None) -> None:
    answer = api.get(path, None) if content is None else api.post(path, content, None)
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) > 0
    assert not any(secret in answer.text for secret in ("127.0.0.1", "password", "Traceback", "clickhouse_connect"))


def test_a_part_that_is_away_is_told_in_time_and_found_again(history: Settings) -> None:
    assert history.clickhouse_url
    with (
        KafkaProxy(str(history.kafka_bootstrap_servers)) as kafka,
        Proxy(history.clickhouse_url.get_secret_value()) as proxy,
        ThreadPoolExecutor(1) as pool,
        ExitStack() as at_first,
    ):
        at_first.enter_context(kafka.away())
        changes = {
            "api_tokens_file": None,
            "clickhouse_url": SecretStr(proxy.address.replace("//", "//default:@")),
            "clickhouse_timeout_seconds": 1,
            "kafka_bootstrap_servers": kafka.address,
        }
        with serving(history.model_copy(update=changes), ready=False) as api:
            waiting = pool.submit(refused, api, "/v1/outcomes", EXAMPLES[OUTCOME])
            for path, content in (("/v1/decision", transaction()), ("/v1/models", None), ("/v1/lag", None)):
                refused(api, path, content)
            ready = api.get("/readyz", None)
            assert (ready.status_code, ready.json()["ok"]) == (503, False)
            assert api.get("/livez", None).status_code == 200
            assert api.post("/v1/score", transaction(), None).status_code == 200

            assert api.get("/v1/predictions?limit=1", None).status_code == 200
            for mode in ("cut", "500", "503"):
                with behaving(proxy, mode):  # type: ignore[arg-type]
                    for path in ("/v1/predictions", "/v1/predictions/t", "/v1/evaluation", "/v1/vintages", "/v1/drift"):
                        refused(api, path)
                    assert api.post("/v1/score", transaction(), None).status_code == 200
            proxy.seconds = 2.0
            with behaving(proxy, "slow"):
                refused(api, "/v1/predictions?limit=1")
            assert api.get("/v1/predictions?limit=1", None).status_code == 200

            waiting.result(30)
            at_first.close()
            eventually(lambda: api.get("/readyz", None).status_code == 200, 30, "Kafka is found again")
            assert api.post("/v1/decision", transaction(), None).json()["decided_by"] == "rules"
            assert api.post("/v1/outcomes", EXAMPLES[OUTCOME], None).status_code in (202, 503)
            eventually(lambda: api.get("/v1/lag", None).status_code == 200, 30, "the lag is known again")
            assert json.loads(api.get("/readyz", None).text)["away"] == []


def test_while_kafka_is_silent_no_model_decides_and_a_kill_meanwhile_is_obeyed(
    settings: Settings, controller: ShadowModeController
) -> None:
    let_decide(settings, controller, "champion")
    with KafkaProxy(str(settings.kafka_bootstrap_servers)) as kafka:
        changes = {"kafka_bootstrap_servers": kafka.address, "api_control_max_silence_seconds": 5}
        with serving(settings.model_copy(update=changes)) as api:

            def decided(mode: str, by: str) -> dict[str, Any] | None:
                told: dict[str, Any] = api.post("/v1/decision", transaction(), None).json()
                return told if (told["mode"], told["decided_by"]) == (mode, by) else None

            assert decided("champion", "champion")
            assert api.get("/readyz", None).json()["doubt"] is None
            with kafka.away():
                told = eventually(lambda: decided("champion", "fallback"), 30, "the champion is not trusted any more")
                assert told["decision"] == told["business_decision"] == "approve"
                assert told["advisory"] is True
                assert told["fallback_reason"] == "for 5 s Kafka has not said whether that still rules"
                ready = api.get("/readyz", None)
                assert (ready.status_code, ready.json()["doubt"]) == (200, told["fallback_reason"])
                let_decide(settings, controller, "shadow")
                assert decided("champion", "fallback")
            told = eventually(lambda: decided("shadow", "rules"), 60, "the kill is obeyed")
            assert told["fallback_reason"] is None
            eventually(lambda: api.get("/readyz", None).json()["doubt"] is None, 20, "Kafka is heard again")
