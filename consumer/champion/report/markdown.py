"""A dossier as a page to read, review and keep."""

from __future__ import annotations

from typing import Any

from consumer.champion.report.template import environment


def markdown(told: dict[str, Any]) -> str:
    """The whole dossier but for the tables of tenths, which its JSON and the HTML report have."""
    return environment(escape=False).get_template("dossier.md.j2").render(told=told)
