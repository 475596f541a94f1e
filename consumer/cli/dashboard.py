"""`bnpl-shadow dashboard`: the pages for analysts, in a browser."""

from __future__ import annotations

import errno
import socket
from importlib import import_module
from pathlib import Path

import click

from consumer import logs
from consumer.errors import ConfigurationError
from consumer.logs import get_logger
from consumer.settings import PROJECT, Settings, load_settings

_SCRIPT = PROJECT / "consumer" / "dashboard" / "app.py"

log = get_logger(__name__)


@click.command("dashboard")
def command() -> None:
    """Show in a browser what is scored, how models compare by real outcomes, drift, money, and the data's health.

    Reads ClickHouse, and Kafka for lag, dead letters and reasons; changes nothing. Figures of models are those of
    `bnpl-shadow evaluate --store` and `evaluate --every`. What is away is named on the page, which comes back by
    itself.

    Listens on 127.0.0.1 unless BNPL_DASHBOARD_HOST says otherwise, on port BNPL_DASHBOARD_PORT. It knows no users and
    no passwords. SIGTERM or Ctrl-C ends it. docs/dashboard.md tells what each page answers.
    """
    settings = load_settings()
    logs.configure(settings.log_level, "dashboard")
    port = _free_port(settings)
    _serve(_SCRIPT, settings.dashboard_host, port)


def _free_port(settings: Settings) -> int:
    """Raises ConfigurationError when the port is taken or the host is none of ours."""
    host, port = settings.dashboard_host, settings.dashboard_port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as asked:
        asked.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            asked.bind((host, port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            why = f"port {port} of {host} is taken" if taken else f"cannot listen on {host}:{port} ({error.strerror})"
            raise ConfigurationError(
                f"no dashboard: {why}; set BNPL_DASHBOARD_PORT to another, or 0 for any"
            ) from error
        return int(asked.getsockname()[1])


def _serve(script: Path, host: str, port: int) -> None:
    """Until a signal ends it. Streamlit's own files of settings do not count here."""
    from streamlit.web import bootstrap  # takes a second

    options = {
        "server_address": host,
        "server_port": port,
        "server_headless": True,
        "server_fileWatcherType": "none",
        "server_runOnSave": False,
        "server_showEmailPrompt": False,
        "browser_gatherUsageStats": False,
        "client_showErrorDetails": "none",
        "client_showErrorLinks": False,
        "client_toolbarMode": "minimal",
        "logger_level": "error",
        "logger_hideWelcomeMessage": True,
    }
    bootstrap.load_config_options(options)
    import_module("consumer.dashboard.shell")  # once, and not while the first visitor waits
    log.info("dashboard", url=f"http://{host}:{port}")
    bootstrap.run(str(script), False, [], options)
