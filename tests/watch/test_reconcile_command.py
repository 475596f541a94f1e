"""The proof as a command: what it refuses, how it ends, and what it shows when it goes on."""

from __future__ import annotations

import json
import time
import urllib.request

import pytest
from harness import Commands, eventually, outcome, running, send, send_events, send_outcomes, simulated
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from reconciling import execute, pass_over, score_and_store

from consumer.errors import TRY_AGAIN, Fatal
from consumer.scoring.controller import ShadowModeController
from consumer.services.sink import SinkService
from consumer.settings import Settings
from consumer.stack.part import free_port
from consumer.watch.reconcile.reconcile import KINDS, reconcile
from consumer.watch.records import TopicReader


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE schema_migrations DELETE WHERE number = 3",
        "ALTER TABLE schema_migrations UPDATE sha256 = 'other' WHERE number = 1",
        "ALTER TABLE shadow_scores DROP COLUMN source_offset",
        "DROP TABLE shadow_scores",
    ],
    ids=["pending", "changed", "column", "table"],
)
def test_a_half_migrated_table_is_refused_before_anything_is_read(settings: Settings, statement: str) -> None:
    execute(settings, statement)
    read: list[str] = []
    with pytest.raises(Fatal, match="run `bnpl-shadow migrate`"):
        reconcile(settings, progress=lambda topic, done, total: read.append(topic))
    assert read == []


def test_the_exit_code_says_it(settings: Settings, controller: ShadowModeController, commands: Commands) -> None:
    send_events(settings, simulated(50, seed=2))
    score_and_store(settings, controller)
    holds = commands.run(settings, "reconcile")
    assert holds.ended(1) == 0, holds.output
    assert "holds: lost 0, twice 0, unknown 0, not stored 0, rows too many 0" in holds.output
    assert "50 transactions: 50 shadow events, 0 dead letters, 0 waiting for score" in holds.output

    with TopicReader(settings) as reader:
        _, first = reader.held(settings.topic_transactions)[0]
    send(settings, settings.topic_transactions, [{"value": b"x", "partition": 0}] * 2)
    pass_over(settings, settings.score_group, settings.topic_transactions)
    nobody = SecretStr(f"http://127.0.0.1:{free_port()}")
    nowhere = f"127.0.0.1:{free_port()}"
    does_not, for_programs, *away = [
        commands.start(settings, "reconcile"),
        commands.start(settings, "reconcile", "--json", "--since", "1h"),
        commands.start(settings.model_copy(update={"clickhouse_url": nobody}), "reconcile"),
        commands.start(settings.model_copy(update={"kafka_bootstrap_servers": nowhere}), "reconcile"),
    ]
    assert [each.ended(90) for each in (does_not, for_programs)] == [1, 1]
    assert [each.ended(90) for each in away] == [TRY_AGAIN, TRY_AGAIN]
    assert "DOES NOT HOLD: lost 2," in does_not.output
    assert f"lost {settings.topic_transactions}/0 offsets {first}-{first + 1}\n" in does_not.output
    document = json.loads(for_programs.output)
    assert (document["holds"], document["lost"], document["produced"]) == (False, 2, 52)
    assert document["faults"][0]["ranges"] == [[first, first + 1]]
    assert [each["partition"] for each in document["transactions"]] == [0, 1, 2]


def test_it_goes_on_and_shows_what_it_found_last(settings: Settings, commands: Commands) -> None:
    send(settings, settings.topic_transactions, [{"value": b"x", "partition": 1}])
    started = time.time()
    watch = commands.start(settings, "reconcile", "--every", "1", BNPL_RECONCILE_METRICS_PORT="0")
    eventually(lambda: "holds" in watch.output, 60, lambda: watch.output)
    url = next(each.split()[1] for each in watch.output.splitlines() if each.startswith("metrics: "))

    def gauge(name: str, **labels: str) -> float | None:
        with urllib.request.urlopen(url, timeout=10) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        samples = [each for family in families for each in family.samples]
        return next((each.value for each in samples if (each.name, each.labels) == (name, labels)), None)

    eventually(lambda: gauge("bnpl_reconcile_last_success_timestamp_seconds"), 30, lambda: watch.output)
    assert [gauge("bnpl_reconcile_faults", kind=kind) for kind in KINDS] == [0] * len(KINDS)
    assert gauge("bnpl_reconcile_in_flight_records", lane="shadow") == 1
    assert gauge("bnpl_outcomes", label="d28", state="orphaned") is None
    send_outcomes(settings, [outcome("t-1"), outcome("t-2", version=2), outcome("t-2")])
    with running(SinkService(settings)):
        eventually(lambda: gauge("bnpl_outcomes", label="d28", state="orphaned") == 2, 60, lambda: watch.output)
        eventually(lambda: gauge("bnpl_outcomes", label="d28", state="corrected") == 1, 30, lambda: watch.output)
    assert started < (gauge("bnpl_reconcile_last_success_timestamp_seconds") or 0) < time.time() + 1
    with urllib.request.urlopen(url.replace("metrics", "readyz"), timeout=10) as answer:
        assert answer.status == 200
    pass_over(settings, settings.score_group, settings.topic_transactions)
    eventually(lambda: gauge("bnpl_reconcile_faults", kind="lost") == 1, 30, lambda: watch.output)
    assert gauge("bnpl_reconcile_in_flight_records", lane="shadow") == 0
    assert f"lost {settings.topic_transactions}/1 offsets 0" in watch.output
    watch.terminate()
    assert watch.ended(30) == 1, "the last result says it"
