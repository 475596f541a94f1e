"""`bnpl-shadow api` as people start and stop it, its tokens, and the examples of its page."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from harness import Commands, eventually
from served import Api, serving

from consumer.cli.api import api as api_command
from consumer.cli.main import cli
from consumer.settings import PROJECT, Settings

PAGE = (PROJECT / "docs" / "api.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.S)


def test_it_starts_says_what_it_uses_answers_and_ends(history: Settings, commands: Commands) -> None:
    own = history.model_copy(update={"api_port": 0})
    running = commands.start(own, "api", BNPL_API_PORT="0")
    eventually(lambda: running.says("serving"), 60, lambda: running.output)
    told = next(each for each in running.events if each["event"] == "serving")
    assert told["kafka"] == history.kafka_bootstrap_servers
    assert told["clickhouse"] in str(history.clickhouse_url and history.clickhouse_url.get_secret_value())
    assert told["tokens"] == "asked for"
    eventually(lambda: _status(told["url"] + "/readyz") == 200, 30, lambda: running.output)
    assert _status(told["url"] + "/v1/predictions/some-secret-id") == 401
    running.process.send_signal(signal.SIGINT)
    assert running.ended(20) == 0
    assert running.events[-1]["event"] == "stopped"
    assert "some-secret-id" not in running.output, "no id is ever logged"


def _status(url: str) -> int:
    try:
        return httpx.get(url, timeout=5).status_code
    except httpx.TransportError:
        return 0


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"BNPL_API_HOST": "0.0.0.0"}, "set BNPL_API_TOKENS_FILE"),
        ({"BNPL_API_TOKENS_FILE": "/nowhere/tokens.json"}, "No such file"),
        ({"BNPL_API_HOST": "203.0.113.7", "BNPL_API_TOKENS_FILE": "{file}"}, "cannot listen on 203.0.113.7:9660"),
        ({"BNPL_API_TOKENS_FILE": "{broken}"}, "tokens.0.scopes.0: Input should be 'read', 'score', 'outcomes' or"),
        ({"BNPL_API_RATE_LIMIT": "often"}, "BNPL_API_RATE_LIMIT"),
    ],
)
def test_it_refuses_to_start_on_what_is_unsafe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, history: Settings, variables: dict[str, str], told: str
) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps({"tokens": [{"name": "a", "sha256": "0" * 64, "scopes": ["everything"]}]}))
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(file=history.api_tokens_file, broken=broken))
    result = CliRunner().invoke(cli, ["api"])
    assert result.exit_code == 1
    assert told in str(result.exception), result.exception
    assert "everything" not in str(result.exception)


def test_a_token_is_shown_once_and_its_digest_is_kept(tmp_path: Path, history: Settings) -> None:
    result = CliRunner().invoke(api_command, ["token", "checkout", "--scope", "score", "--scope", "read"])
    assert result.exit_code == 0
    secret = result.stderr.strip().rpartition(" ")[2]
    kept = json.loads(result.stdout)
    assert kept["sha256"] == hashlib.sha256(secret.encode()).hexdigest()
    assert sorted(kept["scopes"]) == ["read", "score"]
    assert secret not in result.stdout
    file = tmp_path / "tokens.json"
    file.write_text(json.dumps({"tokens": [kept]}))
    with serving(history.model_copy(update={"api_tokens_file": file}), {"mine": secret}) as api:
        assert api.get("/v1/models", "mine").status_code == 200
        assert api.post("/v1/outcomes", {}, "mine").status_code == 403


def test_a_token_without_a_name_or_a_scope_is_not_made() -> None:
    for arguments in (["token", "no name", "--scope", "read"], ["token", "x"], ["token", "x", "--scope", "all"]):
        assert CliRunner().invoke(api_command, arguments).exit_code != 0


def _scored(said: list[str]) -> bool:
    return said[0].startswith("approve 0.0") and said[0].endswith("True") and said[1] == "approve rules shadow"


EXPECTED: list[Callable[[list[str]], bool]] = [
    _scored,
    lambda said: [int(each) > 10 for each in said[0].split()] == [True, True],
    lambda said: said[0].startswith("1 [{'index': 1, 'errors': [{'pointer': '#/1/label'"),
]


@pytest.mark.parametrize("number", range(len(EXPECTED)))
def test_the_examples_of_the_page_do_what_it_says(api: Api, capsys: pytest.CaptureFixture[str], number: int) -> None:
    assert len(PYTHON) == len(EXPECTED)
    block = PYTHON[number].replace("http://127.0.0.1:9660", api.url).replace("TOKEN", api.tokens["admin"])
    given: dict[str, object] = {}
    exec(block, given)
    assert EXPECTED[number](capsys.readouterr().out.splitlines())
    client = given["api"]
    assert isinstance(client, httpx.Client)
    client.close()


def test_the_shell_examples_of_the_page_are_answered(api: Api, commands: Commands) -> None:
    (block,) = [each for each in re.findall(r"```sh\n(.*?)```", PAGE, re.S) if "curl" in each]
    for line in block.splitlines():
        line = line.replace("http://127.0.0.1:9660", api.url).replace("$TOKEN", api.tokens["read"])
        done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=30, check=True)
        assert json.loads(done.stdout).keys() & {"models", "predictions"}


def test_every_request_of_the_description_is_on_the_page(api: Api) -> None:
    described = api.get("/openapi.json", None).json()
    for path, operations in described["paths"].items():
        for method in operations:
            assert f"`{method.upper()} {path}`" in PAGE, path
