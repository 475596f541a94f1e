"""Times as a command takes them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from consumer.clock import utc_now

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Since(click.ParamType[datetime]):
    """A time, or how long ago."""

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        if ago := re.fullmatch(r"(\d{1,6})([smhd])", value):
            return utc_now() - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        try:
            told = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is neither 30m, 6h, 2d nor a time such as 2026-11-20T08:00", param, ctx)
        return told if told.tzinfo else told.replace(tzinfo=UTC)


class AsOf(Since):
    """A time that has come: as known on a later day, weeks that are too young would pass for settled."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        told = super().convert(value, param, ctx)
        if told > utc_now():
            self.fail(f"{value!r} is in the future, of which nothing is known yet", param, ctx)
        return told
