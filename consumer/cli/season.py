"""`bnpl-shadow season`: the loop from the first transaction to a promotion, closed in three minutes."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path
from typing import get_args

import click

from consumer import logs
from consumer.champion.evaluate import read_terms
from consumer.cli.progress import progress
from consumer.cli.season_report import document, ending_text, power_document, power_text, week_text
from consumer.cli.signals import interrupt_on_terminate
from consumer.cli.stack import state_dir_option
from consumer.contracts.horizons import Horizons
from consumer.errors import ConfigurationError, Fatal, StackError
from consumer.research.power import power
from consumer.research.season import Plan, Scenario, teach
from consumer.scoring.rules import RuleSet
from consumer.settings import Settings, load_settings
from consumer.stack.local import ENV_FILE, LocalStack
from consumer.system.run import running_system
from consumer.system.season import kept
from consumer.system.season.play import SERVICES, Ending, Season, Week

_TAUGHT_VERSION = "season"
_KEPT_DAYS = 3650
"""Its checkouts stay in Kafka for as long as somebody may want to see why a model flagged one."""
_PLAN = Plan()


@click.command("season")
@click.option(
    "--scenario",
    type=click.Choice(get_args(Scenario)),
    default=_PLAN.scenario,
    show_default=True,
    help="What is hidden in the season.",
)
@click.option("--seed", type=click.IntRange(0), default=_PLAN.seed, show_default=True, help="Same seed, same season.")
@click.option(
    "--start",
    type=click.DateTime(["%Y-%m-%d"]),
    default=_PLAN.start.isoformat(),
    show_default=True,
    help="Its first day (UTC); all of it must be over today.",
)
@click.option(
    "--events-a-week",
    type=click.IntRange(1000),
    default=_PLAN.events_a_week,
    show_default=True,
    help="Checkouts. Fewer than 6,000 may be too few to find what is hidden.",
)
@click.option("--power", "wants_power", is_flag=True, help="Play no season: draw many, and count how they end.")
@click.option("--seeds", type=click.IntRange(1), default=200, show_default=True, help="How many, with --power.")
@state_dir_option
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object.")
def command(
    scenario: Scenario,
    seed: int,
    start: datetime,
    events_a_week: int,
    wants_power: bool,
    seeds: int,
    state_dir: Path | None,
    as_json: bool,
) -> None:
    """Play six weeks of checkouts and what becomes of them, evaluate week by week, and promote whom the verdict allows.

    Everything is real but the clock and the customers: Kafka, ClickHouse, score, sink and drift run as they do in
    production, in a folder `season` of their own under the state folder, on free ports. Outcomes are sent when the
    simulated clock reaches them, and each look sees what was known then. Nothing is left running, and the data of the
    season before are deleted. `bnpl-shadow run` then shows what was played. docs/season.md tells what it proves and
    what not.

    \b
    better  one of four models was taught what the others do not know: it is found and promoted
    clones  the shipped models, which are near clones of each other: nobody is promoted
    drift   the same, and from the fourth week on one feature moves: it is named, and nothing else

    Exits 0 only when every checkout reconciled and the season ended as it should.
    """
    logs.configure("error", "season")
    interrupt_on_terminate()
    if wants_power:
        _power(load_settings(), seeds, as_json)
        return
    began = time.monotonic()
    home = load_settings(state_dir=state_dir).state_dir
    plan = Plan(scenario, seed, start.date(), events_a_week)
    ending = _play(plan, home)
    seconds = time.monotonic() - began
    click.echo(json.dumps(document(plan, ending, seconds)) if as_json else ending_text(plan, ending, seconds))
    _say("`make up` shows it; `bnpl-shadow run --own` shows data of your own again")
    if ending.faults:
        logs_folder = kept.folder_of(home) / "logs"
        raise Fatal(f"the season did not end as it should: {'; '.join(ending.faults)}; logs are in {logs_folder}")


def _play(plan: Plan, home: Path) -> Ending:
    if (home / ENV_FILE).exists():
        raise ConfigurationError(
            f"{home} is a season's own folder: play another from a shell that has not read its env"
        )
    settings = load_settings(
        state_dir=kept.folder_of(home),
        score_metrics_port=0,
        sink_metrics_port=0,
        drift_metrics_port=0,
        pseudonym_key="season",
        transactions_retention_days=_KEPT_DAYS,
    )
    label = read_terms(settings, settings.artifact_version).horizon.label
    plan.require_past(plan.weeks(Horizons.load(settings.horizons_file), label), settings.event_max_age_days)
    with kept.alone(home):
        return _play_anew(plan, home, settings)


def _play_anew(plan: Plan, home: Path, settings: Settings) -> Ending:
    """In the place of the last season."""
    folder = settings.state_dir
    stack = LocalStack(folder, 0, 0)
    if stack.kafka.process or stack.clickhouse.process:
        raise StackError(f"the last season, in {folder}, is being shown or played: stop that first, it is deleted now")
    kept.begin(home)
    if plan.scenario == "better":
        settings = _taught(settings, plan)
    with running_system(settings, stack, _say, SERVICES) as system, progress() as bars:
        season = Season(system, plan)
        task = bars.add_task("", total=season.weeks)

        def show(week: Week) -> None:
            bars.advance(task)
            bars.console.print(week_text(week), highlight=False, markup=False, soft_wrap=True)

        ending = season.play(show, lambda step: bars.update(task, description=step))
    kept.keep(home, settings)
    return ending


def _taught(settings: Settings, plan: Plan) -> Settings:
    """With models of which one was taught more than the others, beside the season's data."""
    _say("training four models, one of which is taught more")
    artifacts = settings.state_dir / "artifacts"
    with progress() as bars:
        task = bars.add_task("training", total=None)
        rules = RuleSet.load(settings.rules_file)
        training = teach(plan, rules, _TAUGHT_VERSION, lambda step: bars.update(task, description=f"training: {step}"))
    training.write(artifacts / _TAUGHT_VERSION)
    return settings.model_copy(update={"artifacts_dir": artifacts, "artifact_version": _TAUGHT_VERSION})


def _power(settings: Settings, seeds: int, as_json: bool) -> None:
    terms = read_terms(settings, settings.artifact_version)
    with progress() as bars:
        task = bars.add_task("playing seasons", total=2 * seeds)
        found = power(terms.policy, terms.targets, seeds, lambda: bars.advance(task))
    click.echo(json.dumps(power_document(terms, found)) if as_json else power_text(terms, found))


def _say(line: str) -> None:
    click.echo(line, err=True)
