"""Grafana's dashboards: every panel says what it shows, leads to the runbook where it should, and can be asked."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path

import pytest
import yaml
from exported import DASHBOARDS, expressions, faults, panels, rules

from consumer.settings import PROJECT

ALERTS = {rule["alert"].lower() for rule in rules("alert_rules.yml")}

each_dashboard = pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)


def test_there_are_three() -> None:
    assert [path.stem for path in DASHBOARDS] == ["lag", "model", "service"]


@each_dashboard
def test_a_dashboard_asks_for_what_the_services_export(dashboard: Path) -> None:
    assert {where: found for where, expression in expressions(dashboard) if (found := faults(expression))} == {}


@each_dashboard
def test_every_panel_explains_itself_in_units_and_has_a_place_of_its_own(dashboard: Path) -> None:
    board = json.loads(dashboard.read_text())
    assert (board["uid"], board["schemaVersion"]) == (f"bnpl-{dashboard.stem}", 42)
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in panels(dashboard):
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    places = [panel["gridPos"] for panel in board["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)
    height = max(place["y"] + place["h"] for place in places)
    assert sum(place["w"] * place["h"] for place in places) == 24 * height  # and none leaves a hole


@each_dashboard
def test_the_variables_that_are_used_are_those_that_there_are(dashboard: Path) -> None:
    text = dashboard.read_text()
    named = {variable["name"] for variable in json.loads(text)["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", text))
    assert used == named
    assert {"datasource", "runbook"} < named


@each_dashboard
def test_links_lead_to_sections_of_the_runbook_and_nowhere_else(dashboard: Path) -> None:
    links = [link["url"] for panel in panels(dashboard) for link in panel.get("links", ())]
    assert links
    assert {url.removeprefix("${runbook}#") for url in links} <= ALERTS
    assert "http" not in dashboard.read_text()


def test_every_alert_is_led_to_from_some_panel() -> None:
    linked = {link for path in DASHBOARDS for link in re.findall(r"\$\{runbook\}#(\w+)", path.read_text())}
    assert linked == ALERTS


def test_the_provisioning_names_a_datasource_and_the_dashboards() -> None:
    folder = PROJECT / "deploy" / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "bnpl.yml").read_text())["datasources"]
    assert source["type"] == "prometheus"
    (provider,) = yaml.safe_load((folder / "dashboards" / "bnpl.yml").read_text())["providers"]
    assert provider["type"] == "file"
