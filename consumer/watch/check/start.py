"""What a service must find well before it starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from consumer.errors import Fatal, Retryable
from consumer.logs import get_logger
from consumer.settings import Settings
from consumer.watch.check.clickhouse import check_clickhouse
from consumer.watch.check.finding import Finding, Findings, Stopped, all_pass
from consumer.watch.check.kafka import check_kafka, check_names
from consumer.watch.check.schemas import check_schemas
from consumer.watch.check.timeouts import Service, check_model_budgets, check_timeouts

log = get_logger(__name__)

Check = Callable[[], Findings]
PARTS = ("kafka", "topics", "contents", "schemas", "clickhouse", "rules", "horizons", "artifacts", "timeouts", "clocks")
"""In the order of a report."""


def refuse_faults(settings: Settings, service: Service, guarded_calls: int = 0) -> None:
    """What a service calls before it starts. Looks at what it does not prove by itself: not at artifacts, which score
    proves as it loads them, nor at the contents of topics, which the dead-letter limit guards. `guarded_calls`: of the
    models that score has loaded.

    Logs warnings. Raises Retryable when all faults may pass by themselves, else Fatal; either lists every fault with
    its remedy.
    """
    checks: list[Sequence[Check]] = [
        [lambda: check_names(settings), lambda: check_kafka(settings, topics_of(settings, service))],
        [lambda: check_schemas(settings, ("shadow_event",) if service == "score" else ())],
        [lambda: check_timeouts(settings, (service,)), lambda: check_model_budgets(settings, guarded_calls)],
    ]
    if service == "sink":
        checks.append([lambda: check_clickhouse(settings, view=False)])
    findings = run(checks)
    for each in findings:
        if each.level == "warning":
            log.warning("check", part=each.part, what=each.what, remedy=each.remedy)
    _refuse(findings, f"{service} cannot start:")


def refuse_unready_table(settings: Settings) -> None:
    """What must hold before the table is read: ClickHouse answers, its migrations are applied and unchanged, and the
    table is as the sink fills it. Raises as `refuse_faults` does.
    """
    findings = run([[lambda: check_clickhouse(settings, view=False)]])
    _refuse([each for each in findings if each.part == "clickhouse"], "the table cannot be compared:")


def _refuse(findings: Sequence[Finding], head: str) -> None:
    faults = [each for each in findings if each.level == "fault"]
    if not faults:
        return
    lines = [": ".join(filter(None, (each.what, each.remedy))) for each in faults]
    told = lines[0] if len(lines) == 1 else "\n".join([head, *(f"  {line}" for line in lines)])
    raise (Retryable if all_pass(faults) else Fatal)(told)


def topics_of(settings: Settings, service: Service) -> set[str]:
    """The topics that a service reads or writes."""
    both = {settings.topic_shadow_scores, settings.topic_dead_letters}
    own = {
        "score": {settings.topic_transactions, settings.topic_control},
        "sink": {settings.topic_outcomes, settings.topic_outcomes_dead_letters},
    }
    return both | own[service]


def run(chains: Sequence[Sequence[Check]]) -> list[Finding]:
    """Chains side by side, the checks of a chain one after the other until one cannot go on; findings by PARTS."""
    with ThreadPoolExecutor(len(chains), thread_name_prefix="check") as pool:
        findings = [each for found in pool.map(_run_chain, chains) for each in found]
    return sorted(findings, key=lambda each: PARTS.index(each.part))


def _run_chain(chain: Sequence[Check]) -> list[Finding]:
    findings: list[Finding] = []
    try:
        for each in chain:
            findings.extend(each())
    except Stopped as stopped:
        findings.append(stopped.finding)
    return findings
