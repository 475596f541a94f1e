"""Chromium before a page of ours, as a visitor has it."""

from __future__ import annotations

import os
import re
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import Command, eventually
from playwright.sync_api import Browser, Page, Position, expect, sync_playwright

CHROMIUM = os.environ.get("BNPL_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
NO_BROWSER = "no Chromium on this machine: install Debian's package chromium"
PATIENCE_MS = 30_000
FIRST_ROW: Position = {"x": 16, "y": 52}
"""Where the box of the first row of a table is that rows can be chosen of, from the table's corner."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless one that is the machine's own."""
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def address_of(dashboard: Command) -> str:
    """Where a `bnpl-shadow dashboard` answers, once it does."""
    eventually(lambda: dashboard.says("dashboard"), 60, lambda: dashboard.output)
    address = next(str(each["url"]) for each in dashboard.events if each["event"] == "dashboard")
    eventually(lambda: _answers(f"{address}/_stcore/health"), 30, lambda: dashboard.output)
    return address


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def drawn(page: Page) -> None:
    """Wait until the page is whole: its script has ended, and its charts are there."""
    expect(page.locator("h1")).to_be_visible(timeout=PATIENCE_MS)
    expect(page.locator("[data-testid=stApp]")).to_have_attribute("data-test-script-state", "notRunning")
    expect(page.locator("[data-testid=stSkeleton]")).to_have_count(0)


def table(page: Page, containing: str) -> dict[str, dict[str, str]]:
    """Cells by row and column of the first table that has such a column."""
    found = page.locator("[data-testid=stTable] table").filter(
        has=page.locator("th", has_text=re.compile(f"^{re.escape(containing)}$"))
    )
    read = "table => [...table.rows].map(row => [...row.cells].map(cell => cell.innerText.trim()))"
    columns, *rows = found.first.evaluate(read)
    return {name: dict(zip(columns[1:], cells, strict=True)) for name, *cells in rows}


def photograph(page: Page, path: Path) -> None:
    """The whole page, however long, as PNG."""
    width = (page.viewport_size or {"width": 1280})["width"]
    height = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
    page.set_viewport_size({"width": width, "height": int(height) + 20})
    page.screenshot(path=path)
