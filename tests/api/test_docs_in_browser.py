"""`/docs` in a real browser, which is let nowhere else."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from browsing import CHROMIUM, NO_BROWSER, chromium
from playwright.sync_api import Request
from served import Api


@pytest.mark.skipif(not CHROMIUM, reason=NO_BROWSER)
def test_the_description_is_shown_and_nothing_is_loaded_from_elsewhere(api: Api) -> None:
    asked: list[str] = []
    faults: list[str] = []

    def note(request: Request) -> None:
        if not request.url.startswith("data:"):
            asked.append(request.url)

    with chromium() as browser:
        page = browser.new_page()
        page.on("request", note)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda told: faults.append(told.text) if told.type == "error" else None)
        page.goto(f"{api.url}/docs")
        page.wait_for_selector(".opblock", timeout=60_000)
        paths = page.locator(".opblock-summary-path").all_inner_texts()
        page.locator(".opblock-summary-path", has_text="/v1/score").click()
        page.wait_for_selector(".opblock-description", timeout=60_000)
        example = page.locator(".opblock-body").first.inner_text()
    assert len(paths) == 13
    assert "advisory" in example.lower()
    assert faults == []
    assert {urlsplit(url).netloc for url in asked} == {urlsplit(api.url).netloc}
