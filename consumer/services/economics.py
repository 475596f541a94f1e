"""What a decision is worth, kept where the view `shadow_predictions` reads it."""

from __future__ import annotations

from clickhouse_connect.driver.client import Client

from consumer.services.clickhouse import errors_named
from consumer.settings import Settings

TABLE = "economics"


def recorded(client: Client) -> tuple[float, float] | None:
    """(margin, loss given default) as the view reckons with them; None when none were recorded."""
    with errors_named():
        rows = client.query(
            f"SELECT margin, loss_given_default FROM {TABLE} ORDER BY recorded_at DESC LIMIT 1"  # noqa: S608
        ).result_rows
    return (rows[0][0], rows[0][1]) if rows else None


def record(client: Client, settings: Settings) -> bool:
    """Record those of the settings, unless they are what counts already; gives whether they were not."""
    ours = (settings.margin, settings.loss_given_default)
    if recorded(client) == ours:
        return False
    with errors_named():
        client.insert(TABLE, [ours], column_names=["margin", "loss_given_default"])
    return True
