"""What a season leaves behind, and which data `bnpl-shadow run` shows: the last season's, or the user's own.

The season lies in a folder of its own under the state folder, with the settings that go with it. So neither touches the
other's events, and what is shown is a choice: the last one holds, and a season that was played to its end is one.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from consumer.errors import ConfigurationError, StackError
from consumer.settings import Settings
from consumer.stack.local import ENV_FILE
from consumer.system.supervisor import variables

_SETTINGS = (
    "state_dir",
    "artifacts_dir",
    "artifact_version",
    "rules_file",
    "horizons_file",
    "policy_file",
    "pseudonym_key",
    "transactions_retention_days",
)
"""Which of its settings are the data's: the others are those of whoever shows it."""
_CHOICE = "shows-season"


def folder_of(state_dir: Path) -> Path:
    """Where the season of a state folder lies."""
    return state_dir.resolve() / "season"


@contextmanager
def alone(state_dir: Path) -> Iterator[None]:
    """No other season begins while the block runs, or the process lives. Raises StackError when one is being played."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        folder = os.open(state_dir, os.O_RDONLY)
    except OSError as error:
        raise StackError(f"{state_dir} cannot be used ({error.strerror}); choose another --state-dir") from None
    try:
        _lock(folder, state_dir)
        yield
    finally:
        os.close(folder)


def _lock(folder: int, state_dir: Path) -> None:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StackError(
            f"another season is being played in {state_dir}: wait for its end or stop it, or choose another --state-dir"
        ) from None


def begin(state_dir: Path) -> None:
    """Delete the last season, for the next one. Raises StackError when that cannot be done."""
    show(state_dir, season=False)
    folder = folder_of(state_dir)
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise StackError(f"the last season, in {folder}, cannot be deleted ({error.strerror}): delete it") from None


def keep(state_dir: Path, settings: Settings) -> None:
    """A season was played to its end: from now on it is shown. Its settings lie beside it, for a shell too."""
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in variables(settings, _SETTINGS).items()]
    folder_of(state_dir).joinpath(ENV_FILE).write_text("".join(lines))
    show(state_dir, season=True)


def show(state_dir: Path, *, season: bool) -> None:
    """Choose what `bnpl-shadow run` shows."""
    if season:
        settings_of(state_dir)
        (state_dir / _CHOICE).touch()
    else:
        (state_dir / _CHOICE).unlink(missing_ok=True)


def shows_season(state_dir: Path) -> bool:
    return (state_dir / _CHOICE).exists()


def settings_of(state_dir: Path) -> dict[str, Any]:
    """The settings that go with the season's data, by field. Raises ConfigurationError when there is no season."""
    file = folder_of(state_dir) / ENV_FILE
    try:
        lines = file.read_text().splitlines()
    except OSError:
        raise ConfigurationError(
            f"no season was played to its end in {file.parent}: play one by `bnpl-shadow season`, or show data of your "
            "own by `bnpl-shadow run --own`"
        ) from None
    pairs = (shlex.split(line)[1].partition("=") for line in lines)
    return {name.removeprefix("BNPL_").lower(): value for name, _, value in pairs}
