"""The tokenizer that rules and dashboards are judged by."""

from __future__ import annotations

import pytest
from exported import faults
from promql import Selector, asked


def test_metrics_matchers_and_grouping_are_told_apart() -> None:
    found = asked(
        'sum by (group, topic) (rate(a_total{lane=~"x|y", b!="}(,"}[5m] offset 1h)) / on (group) group_left (name) '
        "max without (le) (b:c) > 0.5 and time() - 1e3 < bool d{} or deriv(sum(e)[15m:1m]) unless "
        "label_replace(f, 'n', \"$1\", 'm', `.*`) # by (g)"
    )
    assert found.selectors == [
        Selector("a_total", (("lane", "=~", "x|y"), ("b", "!=", "}(,"))),
        Selector("b:c", ()),
        Selector("d", ()),
        Selector("e", ()),
        Selector("f", ()),
    ]
    assert found.grouped == {"group", "topic", "name", "le"}
    assert found.strings == {"n", "$1", "m", ".*"}


def test_what_is_no_promql_is_refused() -> None:
    with pytest.raises(ValueError, match="not PromQL at 4"):
        asked("sum(?)")
    with pytest.raises(ValueError, match="without a metric"):
        asked('{__name__="a"}')


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("bnpl_consumer_lag", ["no metric bnpl_consumer_lag"]),
        ("sum(rate(bnpl_model_score[5m]))", ["no metric bnpl_model_score"]),
        ('bnpl_publish_total{lane="shadow"}', ["bnpl_publish_total has no label lane"]),
        ('bnpl_lane_halted{lane="score"}', ["lane is never score"]),
        ('bnpl_event_age_seconds_bucket{le="60"}', ["le is never 60"]),
        ("sum by (grp) (bnpl_consumer_lag_messages)", ["nothing has a label grp"]),
        ('sum by (group, instance) (bnpl_consumer_lag_messages{job="bnpl", topic=~"$topic"})', []),
    ],
)
def test_what_nobody_exports_is_found(expression: str, told: list[str]) -> None:
    assert faults(expression) == told
