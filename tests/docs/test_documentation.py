"""What the README and docs/ say is run, compared or followed here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from harness import (
    environment,
    read_topic,
    running,
    send_events,
    simulated,
    stored,
    wait_scored,
    wait_stored,
)

from consumer.cli.main import COMMANDS, cli
from consumer.cli.settings import markdown_table
from consumer.contracts.events import EventReader
from consumer.contracts.schemas import WriterSchemas
from consumer.contracts.transaction import FIELDS
from consumer.scoring.controller import ShadowModeController
from consumer.services.feed import feeds
from consumer.services.score import ScoreService
from consumer.services.sink import SinkService
from consumer.settings import PROJECT, Settings

README = (PROJECT / "README.md").read_text()
PAGES = [PROJECT / "README.md", PROJECT / "CHANGELOG.md", *sorted((PROJECT / "docs").rglob("*.md"))]
OUTCOMES = (PROJECT / "docs" / "outcomes.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README + OUTCOMES, re.S)
SHELL = re.findall(r"```sh\n(.*?)```", "\n".join(page.read_text() for page in PAGES), re.S)


def python_block(containing: str, settings: Settings) -> str:
    """The Python block of README or outcomes page that has this text, led to the test's own topics and database."""
    (block,) = [block for block in PYTHON if containing in block]
    assert settings.clickhouse_url
    return (
        block.replace("127.0.0.1:19092", settings.kafka_bootstrap_servers or "")
        .replace("http://127.0.0.1:18123", settings.clickhouse_url.get_secret_value())
        .replace("bnpl.transactions", settings.topic_transactions)
        .replace("bnpl.outcomes", settings.topic_outcomes)
    )


def test_the_producer_example_sends_a_transaction_that_is_let_in(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PROJECT)
    exec(python_block('produce("bnpl.transactions', settings), {})
    (message,) = read_topic(settings, settings.topic_transactions)
    decoded = EventReader(WriterSchemas("transaction"), FIELDS).read([message.value()])
    assert decoded.batch.column("transaction_id").to_pylist() == ["t-1001"]
    assert message.key() == b"c-77"


def test_the_producer_example_of_outcomes_sends_one_that_is_let_in(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PROJECT)
    exec(python_block('produce("bnpl.outcomes', settings), {})
    (message,) = read_topic(settings, settings.topic_outcomes)
    taken = feeds(settings)[settings.topic_outcomes].read([message.value()])
    assert taken.rejected == []
    assert taken.batch.column("transaction_id").to_pylist() == ["t-1001"]
    assert message.key() == b"t-1001"


def test_the_query_example_shows_what_was_stored(
    settings: Settings, controller: ShadowModeController, capsys: pytest.CaptureFixture[str]
) -> None:
    send_events(settings, simulated(200))
    with running(ScoreService(settings, controller)), running(SinkService(settings)):
        wait_stored(settings, 200)
    exec(python_block("query_df", settings), {})
    assert "approve" in capsys.readouterr().out


def test_the_in_process_example_prints_a_decision_and_a_score(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    exec(python_block("score_single", settings), {})
    decision, score = capsys.readouterr().out.split()
    assert decision == "approve"
    assert 0 < float(score) < 1


def test_the_round_trip_of_a_dead_letter_goes_as_the_readme_says(
    settings: Settings, controller: ShadowModeController, tmp_path: Path
) -> None:
    """Poison, seen, mended, replayed, stored: every line of the block, one after the other."""
    (block,) = [block for block in re.findall(r"```sh\n(.*?)```", README, re.S) if "dlq replay" in block]
    lines = [line.partition("  #")[0].strip() for line in block.splitlines()]

    def run(line: str) -> str:
        place = next(iter(read_topic(settings, settings.topic_dead_letters)), None)
        if place:
            line = line.replace("PARTITION/OFFSET", f"{place.partition()}/{place.offset()}")
        line = line.replace("TRANSACTION_ID", str(stored(settings, "any(transaction_id)")))
        line = line.replace(".venv/bin/bnpl-shadow", f"{sys.executable} -m consumer")
        given = {"cwd": tmp_path, "env": environment(settings), "timeout": 120}
        done = subprocess.run(line, shell=True, capture_output=True, text=True, **given)  # type: ignore[call-overload]
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        wait_scored(settings)
        return str(done.stdout)

    at = next(at for at, line in enumerate(lines) if line.endswith("make up"))
    name, _, value = lines[at].removesuffix(" make up").partition("=")
    mended = settings.model_copy(update={name.removeprefix("BNPL_").lower(): int(value)})
    with running(ScoreService(settings, controller)):
        _, _, seen, shown = map(run, lines[:at])
    assert "validate  too_old  waiting       20" in seen
    assert "refused   at validate: too_old" in shown
    with running(ScoreService(mended, controller)), running(SinkService(mended)):
        would, did, after = map(run, lines[at + 1 : -1])
        wait_stored(settings, 10)
        told = run(lines[-1])
    assert "10 letters would be replayed\n10 more fit, beyond --max" in would
    assert "10 letters were replayed\n10 more fit, beyond --max" in did
    assert "validate  too_old  replayed       10" in after
    assert "validate  too_old  waiting        10" in after
    assert "sent 2 times, 1 of them by a replay" in told
    assert int(stored(settings, "uniqExact(transaction_id)")) == 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]*)(?:#[^)]*)?\)", page.read_text()):
        assert not target or (page.parent / target).exists(), target


def test_the_settings_page_holds_every_setting_as_it_is() -> None:
    assert markdown_table() in (PROJECT / "docs" / "settings.md").read_text()


def test_every_command_of_a_page_exists() -> None:
    named = {match for block in SHELL for match in re.findall(r"bnpl-shadow ([a-z-]+)", block)}
    assert named, "no page names a command"
    assert named <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert len(result.output.split()) > 15


def test_make_help_lists_what_the_readme_names() -> None:
    listed = subprocess.run(
        ["make", "help"], cwd=PROJECT, capture_output=True, text=True, timeout=30, check=True
    ).stdout
    named = set(re.findall(r"make ([a-z]+)", README))
    assert {"demo", "test", "up"} <= named
    assert all(f"make {target}" in listed for target in named)


def test_every_reason_of_a_dead_letter_is_on_the_page_that_lists_them() -> None:
    code = "\n".join(path.read_text() for path in (PROJECT / "consumer").rglob("*.py"))
    contracts = PROJECT / "consumer" / "contracts"
    checks = "\n".join((contracts / f"{name}.py").read_text() for name in ("checks", "transaction", "outcome"))
    reasons = set(re.findall(r'InvalidRecord\(\s*"([a-z_0-9]+)"', code))
    reasons |= set(re.findall(r'\("([a-z_]+)", f?"[^"]*\b(?:is|lies)\b', checks))
    page = (PROJECT / "docs" / "architecture.md").read_text() + OUTCOMES
    assert len(reasons) > 20
    assert not [reason for reason in reasons if f"`{reason}`" not in page]
