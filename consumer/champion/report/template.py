"""The templates that stand beside this file, and the words they use."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from consumer.champion.report import wording


def environment(*, escape: bool) -> Environment:
    """`escape` is for HTML; Markdown is taken as it stands. A name that a dossier does not have is an error."""
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=escape,  # noqa: S701 off for Markdown alone
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("number", "percent", "interval", "ratio", "headline", "rows_line"):
        found.globals[name] = getattr(wording, name)
    return found
