"""A short run of the fuzzer, the fuzzer's own proof, and everything it ever found, again."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from random import SystemRandom
from typing import Any

import pytest
from click.testing import CliRunner
from fuzz.__main__ import main
from fuzz.batches import SIZE, Batch, Payload, batch
from fuzz.checks import Outcome, check
from fuzz.run import Report, run

from consumer.contracts import avro

SEED = 5 if "CI" in os.environ else SystemRandom().randrange(2**31)
CORPUS = json.loads((Path(__file__).parent / "corpus" / "decode.json").read_text())
TEXT = [{"name": "f0", "type": "string"}]
DEADLY, ENDLESS = 300, 600


def test_a_short_run_finds_nothing() -> None:
    report = Report(SEED)
    run(report, 1500, check)
    assert report.findings == [], f"seed {SEED}"
    assert report.payloads == sum(report.kinds.values()) == sum(report.told.values()) == 1500
    assert report.told["accepted"] > 100
    assert len(report.told) > 10


def test_the_command_tells_programs_what_it_tells_people() -> None:
    given = ["--seed", str(SEED), "--payloads", "300", "--processes", "1"]
    shown, told = (CliRunner().invoke(main, [*given, *more]) for more in ([], ["--json"]))
    assert (shown.exit_code, told.exit_code) == (0, 0), shown.output + told.output
    document = json.loads(told.stdout)
    assert (document["seed"], document["payloads"], document["findings"]) == (SEED, 300, [])
    for what, count in document["told"].items():
        assert f"  {what:<20} {count:>9,}" in shown.stdout.splitlines()


@pytest.mark.parametrize("found", CORPUS, ids=lambda found: found["shows"])
def test_what_was_found_stays_mended(found: dict[str, Any]) -> None:
    schema, value = found["schema"], bytes.fromhex(found["value"])
    family = "found" if found["sound"] else "malformed"
    payloads = (Payload(0, "found", value),)
    outcome = check(
        Batch(
            0,
            family,
            schema,
            value[:5],
            json.dumps(schema),
            TEXT if not found["sound"] else schema["fields"][:1],
            payloads,
        )
    )
    assert outcome.findings == []
    assert +outcome.told == {found["told"]: 1}


def test_a_batch_follows_from_its_seed_and_number() -> None:
    assert batch(SEED, 3) == batch(SEED, 3) != batch(SEED + 1, 3)


def test_a_difference_between_the_codecs_is_found_in_its_payload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(avro, "_signalling", lambda column: 0)
    found = next(found for number in range(60) if (found := check(batch(5, number)).findings))
    assert {each.fault for each in found} >= {"decoders: the decoders read other columns"}
    assert all(each.payload is not None for each in found)


def misbehaves(made: Batch) -> Outcome:
    numbers = [each.number for each in made.payloads]
    if DEADLY in numbers:
        os.kill(os.getpid(), signal.SIGSEGV)
    while ENDLESS in numbers:
        time.sleep(1)
    return Outcome()


def test_payloads_that_end_or_hang_a_process_are_named_and_the_run_goes_on() -> None:
    report = Report(SEED)
    run(report, 1000, misbehaves, processes=1, limit_seconds=2)
    found = {each.payload: each.fault for each in report.findings}
    assert found == {DEADLY: "ends the process with -11", ENDLESS: "hangs"}
    assert report.payloads == 1000 - 2 * SIZE
