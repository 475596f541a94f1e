"""What was scored just now, where models gave no score."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from harness import fresh_settings

from consumer.clock import utc_now
from consumer.services import clickhouse
from consumer.stack.local import LocalStack
from consumer.views import live


def test_scores_that_a_model_did_not_give_move_no_quantile(stack: LocalStack, tmp_path: Path) -> None:
    now = utc_now().replace(microsecond=0)
    with fresh_settings(stack, tmp_path) as settings, clickhouse.connect(settings) as client:
        client.command(
            "INSERT INTO shadow_scores (prediction_id, scored_at, `models.name`, `models.score`) "
            "SELECT toString(number), {at:DateTime64(3)}, ['half', 'none'], [if(number < 5, NULL, number / 10), NULL] "
            "FROM numbers(10)",
            {"at": now},
        )
        half, none = live.live(client, now + timedelta(seconds=10), 60, 5).scores
    assert (half.model, half.events, half.failed) == ("half", 10, 5)
    assert (half.tenth, half.median, half.ninetieth) == (0.5, 0.7, 0.9)
    assert (none.failed, none.mean, none.tenth, none.median, none.ninetieth) == (10, None, None, None, None)
