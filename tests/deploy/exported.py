"""What the services export, as expressions of rules and dashboards may use it."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import yaml
from prometheus_client import Histogram
from promql import Asked, asked

from consumer.metrics import STAGES, ColumnHistogram, Lane, Metrics, declared
from consumer.scoring.activation import DECIDERS
from consumer.settings import PROJECT
from consumer.watch.reconcile.reconcile import KINDS

PROMETHEUS = PROJECT / "deploy" / "prometheus"
DASHBOARDS = sorted((PROJECT / "deploy" / "grafana" / "dashboards").glob("*.json"))

OF_THE_TARGET = {"job", "instance", "service"}
"""Labels that every series has from prometheus.yml."""
_OTHERS: dict[str, set[str]] = {
    "up": set(),
    "process_start_time_seconds": set(),
    "process_cpu_seconds_total": set(),
    "process_resident_memory_bytes": set(),
    "ALERTS": {"alertname", "alertstate"},
}
"""Of Prometheus itself, and of its client."""
_HISTOGRAM_PARTS = ("_bucket", "_sum", "_count")


def _bounds() -> dict[str, set[str]]:
    """The buckets of each histogram, as a scrape shows them."""
    metrics = Metrics("shadow")
    for metric in vars(metrics).values():
        if isinstance(metric, ColumnHistogram):
            metric.observe("any", np.zeros(1))
        elif isinstance(metric, Histogram) and metric._labelnames:
            metric.labels(*metric._labelnames)
    found: dict[str, set[str]] = defaultdict(set)
    for sample in (sample for family in metrics.registry.collect() for sample in family.samples):
        if "le" in sample.labels:
            found[sample.name].add(sample.labels["le"])
    return found


BOUNDS = _bounds()
VALUES = {
    "lane": set(get_args(Lane)),
    "stage": set(STAGES),
    "decided_by": set(DECIDERS),
    "point": {"published", "stored"},
    "result": {"ok", "failed"},
    "agree": {"yes", "no"},
    "bound": {"estimate", "low", "high"},
    "kind": {"assign", "revoke", "lost", "feature", "score", "flag", *KINDS},
}
"""Labels with few values: a rule that asks for another one would be silent for ever."""


def _labels() -> dict[str, set[str]]:
    found = dict(_OTHERS)
    for name, kind, labels, _ in declared():
        if kind == "histogram":
            found |= {name + part: set(labels) | ({"le"} if part == "_bucket" else set()) for part in _HISTOGRAM_PARTS}
        else:
            found[name] = set(labels)
    return found


def faults(
    expression: str, labels: dict[str, set[str]] | None = None, recorded: dict[str, set[str]] | None = None
) -> list[str]:
    """What an expression asks for that no service exports; `recorded` are labels by the names that rules record."""
    known = (labels or _labels()) | (recorded or {})
    wanted: Asked = asked(expression)
    found = [f"no metric {each.metric}" for each in wanted.selectors if each.metric not in known]
    for selector in wanted.selectors:
        for label, operator, value in selector.matchers:
            if label not in known.get(selector.metric, set()) | OF_THE_TARGET:
                found.append(f"{selector.metric} has no label {label}")
            elif operator in ("=", "=~") and "$" not in value:
                possible = BOUNDS[selector.metric] if label == "le" else VALUES.get(label)
                found += [f"{label} is never {each}" for each in value.split("|") if possible and each not in possible]
    groupable = set().union(
        OF_THE_TARGET, wanted.strings, *(known.get(each.metric, set()) for each in wanted.selectors)
    )
    return found + [f"nothing has a label {label}" for label in sorted(wanted.grouped - groupable)]


def rules(file: str) -> list[dict[str, Any]]:
    """All rules of a file in deploy/prometheus."""
    return [rule for group in yaml.safe_load((PROMETHEUS / file).read_text())["groups"] for rule in group["rules"]]


def panels(dashboard: Path) -> list[dict[str, Any]]:
    """Those of a dashboard that show something."""
    return [each for each in json.loads(dashboard.read_text())["panels"] if each["type"] != "row"]


def expressions(dashboard: Path) -> Iterator[tuple[str, str]]:
    """(where, PromQL) of everything that a dashboard asks: panels, variables and annotations."""
    board = json.loads(dashboard.read_text())
    for panel in panels(dashboard):
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", target["expr"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            match = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert match, variable
            yield f"${variable['name']}", f"count by ({match[2]}) ({match[1]})"
    for annotation in board["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


def with_variables(expression: str, interval: str) -> str:
    """As Grafana sends it when everything is chosen."""
    return re.sub(r"\$(?!__)\w+", ".*", expression.replace("$__rate_interval", interval))
