"""`bnpl-shadow top`: everything at one glance, for a terminal."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import click
from rich.console import Console
from rich.live import Live

from consumer import logs
from consumer.cli.keys import keys
from consumer.cli.signals import interrupt_on_terminate
from consumer.cli.top_screen import document, screen
from consumer.clock import Deadline
from consumer.settings import load_settings
from consumer.watch.top.overview import Overview
from consumer.watch.top.watchpost import Watchpost, local_services

_EVERY_SECONDS = 2.0
_APART_SECONDS = 1.0
_BETWEEN_SECONDS = 1.5
"""From the first look to the one that is shown, where one is: a rate takes two, of the lag as well."""
_PATIENCE_SECONDS = 12.0
"""How long one frame waits for what has not answered yet."""
_POLL_SECONDS = 0.1
_PIPE_WIDTH = 160


@click.command("top")
@click.option(
    "--every",
    type=click.FloatRange(0.5, 20),
    help=f"Seconds between two looks.  [default: {_EVERY_SECONDS:.0f}]",
)
@click.option("--once", is_flag=True, help="One frame. So it is also where stdout is no terminal.")
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object, with --every one a line.")
@click.option(
    "--at",
    "urls",
    multiple=True,
    metavar="URL",
    help="Where a service answers (http://host:9650); again for more.  [default: this machine, ports as set]",
)
def command(every: float | None, once: bool, as_json: bool, urls: Sequence[str]) -> None:
    """Show how the services fare: health, lag, rates, where their time goes, who decides, dead letters, drift.

    Looks again every two seconds; q or Ctrl-C ends it. Rates and shares are of the last ten seconds. What is away is
    named, and shown again once it is back. It takes part in no group and changes nothing.

    Exits 0, whatever it shows; `bnpl-shadow lag` and `bnpl-shadow check` judge.
    """
    settings = load_settings()
    logs.configure("critical", "top")  # what the clients complain of, the screen says
    interrupt_on_terminate()
    services = {url: url.rstrip("/") for url in urls} or local_services(settings)
    console = Console()
    live = console.is_terminal and not once and not as_json
    seconds = every or (_EVERY_SECONDS if live else _APART_SECONDS)
    try:
        with Watchpost(settings, services, seconds) as post:
            if live:
                _keep_showing(post, console, seconds)
            elif as_json and every and not once:
                _keep_telling(post, seconds)
            else:
                _show_once(post, console, as_json)
    except KeyboardInterrupt:
        pass  # which is how it ends, and no failure


def _keep_showing(post: Watchpost, console: Console, every: float) -> None:
    with keys() as key, Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            live.update(screen(post.look(), every), refresh=True)
            next_look = Deadline.after(every if post.settled else _POLL_SECONDS)
            while not next_look.passed:
                if key(next_look.remaining) in ("q", "Q"):
                    return


def _keep_telling(post: Watchpost, every: float) -> None:
    _settled(post)
    while True:
        time.sleep(every)
        click.echo(json.dumps(document(post.look())))


def _show_once(post: Watchpost, console: Console, as_json: bool) -> None:
    _settled(post)
    time.sleep(_BETWEEN_SECONDS)
    overview = post.look()
    if as_json:
        click.echo(json.dumps(document(overview), indent=2))
        return
    console.width = console.width if console.is_terminal else _PIPE_WIDTH
    console.print(screen(overview))


def _settled(post: Watchpost) -> Overview:
    """The first look, once everything has answered or has had the time to."""
    deadline = Deadline.after(_PATIENCE_SECONDS)
    overview = post.look()
    while not post.settled and not deadline.passed:
        time.sleep(_POLL_SECONDS)
        overview = post.look()
    return overview
