"""The house's own rules: who may import whom, how long a file may be, and that every command explains itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest

from consumer.cli.main import COMMANDS
from consumer.settings import PROJECT

CONSUMER = PROJECT / "consumer"
MODULES = sorted(CONSUMER.rglob("*.py"))
ORDER = [
    "ground",
    "contracts",
    "scoring",
    "evaluation",
    "stack",
    "services",
    "watch",
    "champion",
    "research",
    "views",
    "api",
    "dashboard",
    "system",
    "cli",
]
"""A module imports from its own package and from those before it."""
GROUND = {"__init__", "errors", "settings", "clock", "logs", "metrics"}
LONGEST_FILE = 450

FORBIDDEN = {
    "contracts": {"confluent_kafka", "sklearn", "clickhouse_connect", "chdb"},
    "scoring": {"confluent_kafka", "clickhouse_connect", "chdb", "requests"},
    "evaluation": {"confluent_kafka", "clickhouse_connect", "chdb", "requests"},
    "research": {"confluent_kafka", "clickhouse_connect", "chdb"},
}
"""Libraries that a package must not know, whatever else it imports."""
MAY = {"consumer.contracts.registry": {"confluent_kafka"}}
"""The one module that asks a registry, with Confluent's own client."""


def package_of(module: str) -> str:
    """`consumer.scoring.rules` → scoring; `consumer.errors` → ground; `consumer.__main__` stands with cli."""
    name = module.split(".")[1] if "." in module else "__init__"
    if name == "__main__":
        return "cli"
    return "ground" if name in GROUND else name


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PROJECT).with_suffix("").parts)


def imports(path: Path) -> Iterator[str]:
    """Every module a file imports, at whatever depth, also for type checkers only."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            source = node.module or ""
            yield from (f"{source}.{alias.name}" if source == "consumer" else source for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_from_its_own_package_and_those_before_it(path: Path) -> None:
    own = package_of(name_of(path))
    allowed = ORDER[: ORDER.index(own) + 1]
    taken = {module for module in imports(path) if module.split(".")[0] == "consumer"}
    assert sorted(module for module in taken if package_of(module) not in allowed) == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_package_stays_clear_of_the_libraries_that_are_not_its_business(path: Path) -> None:
    module = name_of(path)
    forbidden = FORBIDDEN.get(package_of(module), set()) - MAY.get(module, set())
    assert {name.split(".")[0] for name in imports(path)} & forbidden == set()


def modules_loaded_by(code: str) -> list[str]:
    """Names of all modules that a fresh process has after running the code."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, {code}; print('\\n'.join(sys.modules))"],
        capture_output=True, text=True, check=True, timeout=60, cwd=PROJECT,
    )  # fmt: skip
    return done.stdout.splitlines()


def test_checkout_can_call_the_rules_without_models_or_clients() -> None:
    loaded = modules_loaded_by("consumer.scoring.rules")
    unwanted = ("sklearn", "scipy", "joblib", "confluent_kafka", "clickhouse_connect", "chdb", "jgo")
    assert [name for name in loaded if name.split(".")[0] in unwanted] == []
    ours = {name for name in loaded if name.startswith("consumer.scoring.")}
    assert ours == {"consumer.scoring.rules"}


def test_what_scores_nothing_starts_without_the_models_library() -> None:
    """It takes longer to load than all the rest: a sink that died is back two seconds earlier without it."""
    commands = ("sink", "reconcile", "kill", "control", "top", "lag", "dlq", "produce", "topics", "migrate", "up")
    loaded = modules_loaded_by(", ".join(COMMANDS[name][0].split(":")[0] for name in commands))
    assert [name for name in loaded if name.split(".")[0] in ("sklearn", "scipy")] == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_file_is_too_long_to_read(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST_FILE


def _commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        for inner_name, inner in command.commands.items():
            yield from _commands(inner, f"{name} {inner_name}")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_explains_itself(name: str) -> None:
    target, summary = COMMANDS[name]
    module, attribute = target.split(":")
    assert summary.endswith(".")
    for full_name, command in _commands(getattr(import_module(module), attribute), name):
        assert command.help, full_name
        options = [each for each in command.params if isinstance(each, click.Option)]
        assert [option.name for option in options if not option.help] == [], full_name


def test_the_help_lists_every_command_and_imports_none() -> None:
    code = "import sys; from consumer.cli.main import cli; cli(['--help'], standalone_mode=False); print(*sys.modules)"
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, cwd=PROJECT
    ).stdout
    assert [name for name in COMMANDS if f"  {name} " not in shown] == []
    loaded = shown.splitlines()[-1].split()
    assert [name for name in loaded if name.startswith("consumer.") and package_of(name) not in ("ground", "cli")] == []
