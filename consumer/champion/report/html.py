"""The report: one HTML page that needs nothing else, for whoever decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from consumer.champion.report import figures
from consumer.champion.report.template import environment
from consumer.errors import ConfigurationError


def write_html(told: dict[str, Any], path: Path) -> None:
    """Write the report of a dossier. Raises ConfigurationError when the file cannot be written."""
    try:
        path.write_text(html(told))
    except OSError as error:
        raise ConfigurationError(f"the report {path} cannot be written: {error.strerror}") from error


def html(told: dict[str, Any]) -> str:
    """The page. What stands in the dossier is escaped; the plots are ours."""
    plots = {
        "ratios": figures.ratios(told),
        "vintages": figures.vintages(told),
        "lifts": figures.lifts(told),
        "calibrations": figures.calibrations(told),
    }
    return environment(escape=True).get_template("evaluation.html.j2").render(told=told, plots=plots)
