"""Timeouts against each other: which must be shorter than which, why, and what to change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from consumer.services.group import REVOKE_SHARE
from consumer.settings import Settings
from consumer.watch.check.finding import Finding, Findings, ok

STOP_SECONDS = 25.0
"""What a supervisor gives a service to end before it kills it; a deployment's grace period is no shorter."""
BACKLOG_SECONDS = 0.5
"""How long a service that is behind waits for a full batch."""
COMMIT_GRACE_SECONDS = 5.0
"""What score adds to a transaction's timeout before it gives a commit up."""
COMMIT_SECONDS = 5.0
"""What the sink gives one commit of offsets."""
FLUSH_SECONDS = 10.0
"""What the sink gives its dead letters to be acknowledged."""

Service = Literal["score", "sink"]


@dataclass(frozen=True)
class Rule:
    """`left` must be below `right`, both in seconds; a rule that only costs time when broken is a warning."""

    service: Service
    name: str
    left: Callable[[Settings], float]
    right: Callable[[Settings], float]
    reason: str
    remedy: str
    level: Literal["warning", "fault"]


def _score_turn(settings: Settings) -> float:
    read = max(BACKLOG_SECONDS, settings.batch_max_wait_ms / 1000)
    return read + settings.transaction_timeout_ms / 1000 + COMMIT_GRACE_SECONDS


def _sink_read(settings: Settings) -> float:
    return max(BACKLOG_SECONDS, settings.sink_max_wait_ms / 1000)


def _sink_turn(settings: Settings) -> float:
    return _sink_read(settings) + settings.clickhouse_timeout_seconds + FLUSH_SECONDS + COMMIT_SECONDS


def _poll_interval(settings: Settings) -> float:
    return settings.max_poll_interval_ms / 1000


def _revoke(settings: Settings) -> float:
    """What may be spent on work under way when partitions are given up."""
    return REVOKE_SHARE * _poll_interval(settings)


def _standstill(settings: Settings) -> float:
    return settings.stuck_after_seconds


RULES = (
    Rule(
        "score",
        "a batch's wait, a transaction and its grace < max poll interval",
        _score_turn,
        _poll_interval,
        "a score process that waits for one commit that long loses its partitions, and does the batch again for ever",
        "lower BNPL_BATCH_MAX_WAIT_MS or BNPL_TRANSACTION_TIMEOUT_MS, or raise BNPL_MAX_POLL_INTERVAL_MS",
        "fault",
    ),
    Rule(
        "score",
        "a batch's wait, a transaction and its grace < a stop's grace period",
        _score_turn,
        lambda _: STOP_SECONDS,
        "a stop while the broker hangs is cut short; nothing is lost, and the broker aborts the transaction",
        "lower BNPL_BATCH_MAX_WAIT_MS or BNPL_TRANSACTION_TIMEOUT_MS, or give the service longer to stop",
        "warning",
    ),
    Rule(
        "score",
        "a transaction and its grace < the deadline of a rebalance",
        lambda settings: settings.transaction_timeout_ms / 1000 + COMMIT_GRACE_SECONDS,
        _revoke,
        "a commit that the broker delays is cut short by a rebalance, and its batch done again",
        "lower BNPL_TRANSACTION_TIMEOUT_MS, or raise BNPL_MAX_POLL_INTERVAL_MS",
        "warning",
    ),
    Rule(
        "sink",
        "an insert, its dead letters and its commit < the deadline of a rebalance",
        lambda settings: settings.clickhouse_timeout_seconds + FLUSH_SECONDS + COMMIT_SECONDS,
        _revoke,
        "an insert that ClickHouse delays is cut short by a rebalance, and its rows are inserted again",
        "lower BNPL_CLICKHOUSE_TIMEOUT_SECONDS, or raise BNPL_MAX_POLL_INTERVAL_MS",
        "warning",
    ),
    Rule(
        "score",
        "a batch's wait, a transaction and its grace < the time after which it counts as stuck",
        _score_turn,
        _standstill,
        "a score process that waits for one commit that long is started again, although it would have gone on",
        "raise BNPL_STUCK_AFTER_SECONDS, or lower BNPL_BATCH_MAX_WAIT_MS or BNPL_TRANSACTION_TIMEOUT_MS",
        "warning",
    ),
    Rule(
        "sink",
        "a batch's wait, an insert, its dead letters and its commit < max poll interval",
        _sink_turn,
        _poll_interval,
        "a sink that waits for one insert that long loses its partitions, and inserts the batch again for ever",
        "lower BNPL_SINK_MAX_WAIT_MS or BNPL_CLICKHOUSE_TIMEOUT_SECONDS, or raise BNPL_MAX_POLL_INTERVAL_MS",
        "fault",
    ),
    Rule(
        "sink",
        "a batch's wait, an insert and its commit < a stop's grace period",
        lambda settings: _sink_read(settings) + settings.clickhouse_timeout_seconds + COMMIT_SECONDS,
        lambda _: STOP_SECONDS,
        "a stop while ClickHouse hangs is cut short; the rows are inserted again at the next start",
        "lower BNPL_SINK_MAX_WAIT_MS or BNPL_CLICKHOUSE_TIMEOUT_SECONDS, or give the service longer to stop",
        "warning",
    ),
    Rule(
        "sink",
        "a batch's wait, an insert, its dead letters and its commit < the time after which it counts as stuck",
        _sink_turn,
        _standstill,
        "a sink that waits for one insert that long is started again, although it would have gone on",
        "raise BNPL_STUCK_AFTER_SECONDS, or lower BNPL_SINK_MAX_WAIT_MS or BNPL_CLICKHOUSE_TIMEOUT_SECONDS",
        "warning",
    ),
)


def check_timeouts(settings: Settings, services: tuple[Service, ...]) -> Findings:
    """Every rule of these services; those that hold share one line."""
    held = 0
    for rule in RULES:
        if rule.service not in services:
            continue
        broken = list(_broken(rule, settings))
        yield from broken
        held += not broken
    if held:
        yield ok("timeouts", f"{held} rules hold for {' and '.join(services)}")


def check_model_budgets(settings: Settings, guarded_calls: int) -> Findings:
    """The rules on a turn of score once more, with what models that do not run fused may add to it: `guarded_calls`
    may take a whole budget each. What does not hold without them is not told again.
    """
    if not guarded_calls:
        return
    budgets = guarded_calls * settings.model_budget_ms / 1000
    longer = [
        replace(
            rule,
            name=f"{guarded_calls} model budgets, {rule.name}",
            left=lambda settings: budgets + _score_turn(settings),
            remedy=f"lower BNPL_MODEL_BUDGET_MS; or {rule.remedy}",
        )
        for rule in RULES
        if rule.left is _score_turn and not list(_broken(rule, settings))
    ]
    broken = [finding for rule in longer for finding in _broken(rule, settings)]
    yield from broken or [ok("timeouts", f"{guarded_calls} model budgets fit into a turn of score")]


def _broken(rule: Rule, settings: Settings) -> Findings:
    left, right = rule.left(settings), rule.right(settings)
    if left >= right:
        what = f"{rule.service}: {rule.name} does not hold: {left:g} s against {right:g} s; {rule.reason}"
        yield Finding("timeouts", rule.level, what, rule.remedy)
