"""`bnpl-shadow dashboard`: the pages for analysts, in a browser."""

from __future__ import annotations

import logging
from importlib import import_module
from pathlib import Path

import click

from consumer import logs
from consumer.errors import ConfigurationError
from consumer.logs import get_logger
from consumer.settings import PROJECT, load_settings
from consumer.stack.endpoint import endpoint
from consumer.stack.part import free_port, refuse_taken_port

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
    logging.getLogger("consumer.services.kafka").setLevel(logging.CRITICAL)  # who is away is told on the page
    port = settings.dashboard_port or free_port()
    refuse_taken_port(port, "dashboard", "BNPL_DASHBOARD_PORT")
    _serve(_SCRIPT, settings.dashboard_host, port)


def _serve(script: Path, host: str, port: int) -> None:
    """Until a signal ends it. What a Streamlit file of settings says otherwise does not count.

    Raises ConfigurationError when the host is none of ours.
    """
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
    log.info("dashboard", url=f"http://{endpoint(host, port)}")
    try:
        bootstrap.run(str(script), False, [], options)
    except OSError as error:
        why = f"no dashboard: cannot listen on {endpoint(host, port)} ({error.strerror})"
        raise ConfigurationError(f"{why}; set BNPL_DASHBOARD_HOST to an address of this machine") from error
