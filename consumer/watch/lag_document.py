"""Lag as programs read it: by the command and by the API."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from consumer.watch.lag import PartitionLag
from consumer.watch.status import LagReport


def document(reports: Iterable[LagReport], now: datetime) -> dict[str, Any]:
    """What `bnpl-shadow lag --json` prints of the groups that exist: seconds are numbers, what is not known is null,
    and nothing is ever NaN or infinite.
    """
    there = [each for each in reports if each.look is not None and each.look.exists]
    return {"at": now.isoformat(), "groups": [group_document(each, now) for each in there]}


def group_document(report: LagReport, now: datetime) -> dict[str, Any]:
    drain = report.drain_seconds
    return {
        "group": report.group,
        "state": report.look.state if report.look else None,
        "messages": report.messages,
        "expired": report.expired,
        "seconds": round(report.seconds(now), 3),
        "status": report.worst.name if report.worst is not None else None,
        "draining": None if drain is None else math.isfinite(drain),
        "drain_seconds": drain if drain is not None and math.isfinite(drain) else None,
        "age_seconds": round(report.age(now), 3),
        "failed": report.failed,
        "partitions": [_partition(report, each, now) for each in report.partitions],
    }


def _partition(report: LagReport, lag: PartitionLag, now: datetime) -> dict[str, Any]:
    status = report.statuses[lag.key]
    return {
        "topic": lag.topic,
        "partition": lag.partition,
        "begin": lag.begin,
        "committed": lag.committed,
        "end": lag.end,
        "messages": lag.messages,
        "expired": lag.expired,
        "seconds": round(lag.seconds(now), 3),
        "status": status.name if status is not None else None,
    }
