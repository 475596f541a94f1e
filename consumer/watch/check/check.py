"""Everything that `bnpl-shadow check` looks at."""

from __future__ import annotations

from collections.abc import Sequence

from consumer.services.topics import wanted
from consumer.settings import Settings
from consumer.watch.check.artifacts import check_artifacts, check_horizons
from consumer.watch.check.clickhouse import check_clickhouse
from consumer.watch.check.contents import check_contents
from consumer.watch.check.finding import Finding
from consumer.watch.check.kafka import check_clients, check_kafka, check_names
from consumer.watch.check.schemas import check_schemas
from consumer.watch.check.start import Check, run, topics_of
from consumer.watch.check.timeouts import Service, check_timeouts


def check(settings: Settings, service: Service | None = None) -> list[Finding]:
    """Everything, or what one service needs, in the order of a report. Takes up to 15 s when nothing answers.

    A part that cannot be looked at is a fault, and the others are looked at all the same.
    """
    services: tuple[Service, ...] = (service,) if service else ("score", "sink")
    topics = topics_of(settings, service) if service else {each.name for each in wanted(settings)}
    checks: list[Sequence[Check]] = [
        [
            lambda: check_names(settings),
            lambda: check_clients(settings),
            lambda: check_kafka(settings, topics),
            lambda: check_contents(settings, topics),
        ],
        [lambda: check_schemas(settings)],
        [lambda: check_timeouts(settings, services)],
    ]
    if "sink" in services:
        checks += [[lambda: check_clickhouse(settings)], [lambda: check_horizons(settings)]]
    if "score" in services:
        checks.append([lambda: check_artifacts(settings)])
    return run(checks)
