"""Every command explains itself, and settings that cannot be used are all named at once."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

import click
import pytest
from click.testing import CliRunner

from consumer.cli.main import COMMANDS, cli
from consumer.errors import ConfigurationError
from consumer.settings import load_settings


def every_command() -> Iterator[tuple[str, ...]]:
    def below(path: tuple[str, ...], command: click.Command) -> Iterator[tuple[str, ...]]:
        yield path
        if isinstance(command, click.Group):
            for name, inner in command.commands.items():
                yield from below((*path, name), inner)

    for name, (where, _) in COMMANDS.items():
        module, attribute = where.split(":")
        yield from below((name,), getattr(import_module(module), attribute))


@pytest.mark.parametrize("path", list(every_command()), ids=" ".join)
def test_every_command_explains_itself_and_each_of_its_options(path: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli, [*path, "--help"])
    assert done.exit_code == 0
    usage, explained = done.output.split("\n", 1)
    assert usage.startswith(f"Usage: cli {' '.join(path)}")
    assert len(explained.split("Options:")[0].split()) >= 5, "says what it does"
    command: click.Command = cli
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        assert found
        command = found
    for option in command.params:
        assert not isinstance(option, click.Option) or option.help, f"{option.name} is not explained"


@pytest.mark.parametrize("command", [("evaluate",), ("dossier", "make")], ids=" ".join)
def test_what_will_be_known_on_a_later_day_is_not_asked_for(command: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli, [*command, "--as-of", "2190-01-01"])
    assert done.exit_code == 2
    assert "'2190-01-01' is in the future" in done.output


def test_the_list_of_commands_is_shown_without_importing_any(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    monkeypatch.setattr("consumer.cli.main.import_module", refuse)
    done = CliRunner().invoke(cli, ["--help"])
    assert done.exit_code == 0
    for name, (_, summary) in COMMANDS.items():
        assert name in done.output
        assert summary in done.output


def test_all_faults_of_the_settings_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("BNPL_BATCH_MAX_RECORDS", "many"),
        ("BNPL_DEAD_LETTER_MAX_RATIO", "2"),
        ("BNPL_GROUP_PROTOCOL", "newest"),
        ("BNPL_SCOREGROUP", "x"),
    ):
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as refused:
        load_settings()
    told = str(refused.value)
    for name in ("BNPL_BATCH_MAX_RECORDS", "BNPL_DEAD_LETTER_MAX_RATIO", "BNPL_GROUP_PROTOCOL"):
        assert f"  {name}: " in told
    assert "BNPL_SCOREGROUP" in told
    assert "BNPL_SCORE_GROUP" in told, "the closest known name is suggested"


def test_a_variable_that_nothing_reads_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BNPL_WHATEVER", "1")
    with pytest.raises(ConfigurationError, match="BNPL_WHATEVER"):
        load_settings()


def test_timeouts_that_cannot_work_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BNPL_TRANSACTION_TIMEOUT_MS", "60000")
    with pytest.raises(ConfigurationError, match="BNPL_TRANSACTION_TIMEOUT_MS"):
        load_settings()


def test_a_service_is_told_to_die_only_where_tests_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BNPL_CRASH_POINT", "score:6")
    with pytest.raises(
        ConfigurationError, match="BNPL_CRASH_POINT kills the service on purpose: unset it, or set BNPL_P"
    ):
        load_settings()
    monkeypatch.setenv("BNPL_PROFILE", "test")
    assert load_settings().crash_point == "score:6"
    for nowhere in ("score:9", "sink:6", "score", "sink:1@0"):
        monkeypatch.setenv("BNPL_CRASH_POINT", nowhere)
        with pytest.raises(ConfigurationError, match="BNPL_CRASH_POINT"):
            load_settings()
