"""`bnpl-shadow topics | migrate | schemas`: what must be there before the services start."""

from __future__ import annotations

import json

import click

from consumer import logs
from consumer.contracts.registry import schema_registry
from consumer.contracts.schemas import versions
from consumer.errors import ConfigurationError
from consumer.services import clickhouse, economics, sessions
from consumer.services import migrate as migrations
from consumer.services import topics as kafka_topics
from consumer.settings import load_settings


@click.group()
def topics() -> None:
    """Create Kafka's topics, or look at what they should be."""


@topics.command("apply")
@click.option("--alter", is_flag=True, help="Also set retention and compaction of topics that exist.")
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object.")
def apply(alter: bool, as_json: bool) -> None:
    """Create the topics that are missing, and report how those that exist differ from what they should be.

    What exists is left as it is unless --alter is given: shorter retention removes records. Partitions are never
    added to a topic that exists: keys would move. Both consumer groups get BNPL_SESSION_TIMEOUT_MS, unless the
    brokers' own minimum is longer.
    """
    settings = load_settings()
    logs.configure(settings.log_level, "topics")
    applied = kafka_topics.apply(settings, alter=alter)
    groups = sessions.apply(settings)
    if as_json:
        topics_told = [{"topic": each.topic.name, "outcome": each.outcome} for each in applied]
        groups_told = [{"group": each.group, "outcome": _session(each)} for each in groups]
        click.echo(json.dumps({"topics": topics_told, "groups": groups_told}))
        return
    for each in applied:
        click.echo(f"{each.topic.name:24} {each.outcome:10} {each.topic.purpose}")
    for group in groups:
        click.echo(f"{group.group:24} {_session(group)}")


def _session(group: sessions.Session) -> str:
    if group.refused:
        return f"the broker keeps its own session timeout: {group.refused}"
    return f"a member that died is missed after {group.timeout_ms / 1000:g} s"


@click.command()
def migrate() -> None:
    """Bring ClickHouse's tables up to date: apply the files of deploy/clickhouse not applied yet, in order.

    Records BNPL_MARGIN and BNPL_LOSS_GIVEN_DEFAULT too, by which shadow_predictions reckons.
    """
    settings = load_settings()
    logs.configure(settings.log_level, "migrate")
    with clickhouse.connect(settings) as client:
        now, before = migrations.migrate(client, settings.migrations_dir)
        changed = economics.record(client, settings)
    for each in now:
        click.echo(f"applied {each.name}")
    click.echo(f"{len(now)} applied now, {len(before)} before")
    if changed:
        worth = f"margin {settings.margin:g}, loss given default {settings.loss_given_default:g}"
        click.echo(f"recorded what decisions are worth: {worth}")


@click.group()
def schemas() -> None:
    """Register the event schemas where a schema registry is used."""


@schemas.command("register")
def register() -> None:
    """Register schemas/ under the subjects of their topics, oldest version first.

    The registry refuses a version that breaks the subject's compatibility. Needs BNPL_SCHEMA_REGISTRY_URL.
    """
    settings = load_settings()
    logs.configure(settings.log_level, "schemas")
    registry = schema_registry(settings)
    if registry is None:
        raise ConfigurationError("BNPL_SCHEMA_REGISTRY_URL is not set; without a registry nothing needs registering")
    for name, topic in kafka_topics.topics_of_kinds(settings).items():
        for named in versions(name):
            schema_id = registry.register(f"{topic}-value", named.schema)
            click.echo(f"{topic}-value  {name}.v{named.version}  id {schema_id}")
