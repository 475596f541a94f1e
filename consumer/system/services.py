"""What `bnpl-shadow run` keeps running: each service's command, what it is for, and where it answers."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.error import URLError
from urllib.request import urlopen

from consumer.settings import Settings
from consumer.stack.endpoint import endpoint, reached
from consumer.stack.part import free_port, refuse_taken_port

_ANSWER_SECONDS = 2.0


@dataclass(frozen=True)
class Service:
    """One of them. `host` and `port` are names of settings."""

    name: str
    does: str
    arguments: tuple[str, ...]
    port: str
    host: str = "metrics_host"
    ready: str = "/readyz"
    """The path that answers 200 once it does its work."""
    page: str = "/metrics"
    """The path that people look at."""

    @property
    def variable(self) -> str:
        return f"BNPL_{self.port.upper()}"

    def address(self, settings: Settings) -> str:
        return f"http://{self._place(settings)}{self.page}"

    def answers(self, settings: Settings) -> bool:
        try:
            with urlopen(f"http://{self._place(settings)}{self.ready}", timeout=_ANSWER_SECONDS) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):  # a 503 too
            return False

    def _place(self, settings: Settings) -> str:
        return endpoint(reached(getattr(settings, self.host)), getattr(settings, self.port))


SERVICES = (
    Service("score", "decides and scores checkouts", ("score",), "score_metrics_port"),
    Service("sink", "stores scores and outcomes", ("sink",), "sink_metrics_port"),
    Service(
        "reconcile",
        "proves that nothing is lost",
        ("reconcile", "--every", "300", "--since", "1h"),
        "reconcile_metrics_port",
    ),
    Service("drift", "compares traffic with training", ("drift", "--every", "60"), "drift_metrics_port"),
    Service("evaluate", "compares models by outcomes", ("evaluate", "--every", "300"), "evaluate_metrics_port"),
    Service("api", "answers programs over HTTP", ("api",), "api_port", "api_host", page="/docs"),
    Service(
        "dashboard", "shows it to analysts", ("dashboard",), "dashboard_port", "dashboard_host", "/_stcore/health", "/"
    ),
)
"""In the order in which they are started and told to stop."""


def with_ports(settings: Settings, services: tuple[Service, ...]) -> Settings:
    """The settings with a free port for each that is 0. Raises StackError that names the setting of a port that is
    taken, before anything is started.
    """
    ports = {each.port: getattr(settings, each.port) or free_port() for each in services}
    for each in services:
        refuse_taken_port(ports[each.port], each.name, each.variable)
    return settings.model_copy(update=ports)
