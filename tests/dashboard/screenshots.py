"""`make screenshots`: pictures of a running dashboard, for README and docs.

Start what is to be seen first: `make season`, then `make up`; for the page Live let something flow, by
`bnpl-shadow produce FILE --rate 200 --loop`.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Literal

import click
from browsing import FIRST_ROW, chromium, drawn
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from consumer.settings import PROJECT, load_settings

_WIDTH, _COLOURS = 1280, 256
Theme = Literal["light", "dark"]

PICTURES: dict[str, tuple[str, Theme, int, str]] = {
    # file: (address, theme, height in pixels, a text that must be on it)
    "live": ("", "dark", 1010, "Scored"),
    "models": ("models", "light", 1060, "Leaderboard"),
    "rules-against-models": ("rules-against-models", "light", 1090, "Ratio at every share"),
    "vintages": ("vintages?as_of=2026-07-20", "light", 1180, "not settled"),
    "disagreements": ("disagreements?alone=elastic", "dark", 1400, "What made its scores"),
}


@click.command()
@click.option("--address", help="Of the dashboard.  [default: by the settings]")
@click.option("--to", "folder", type=click.Path(file_okay=False, path_type=Path), default=PROJECT / "docs" / "images")
@click.argument("names", nargs=-1, type=click.Choice(list(PICTURES)))
def main(address: str | None, folder: Path, names: tuple[str, ...]) -> None:
    """Take the pictures NAMES, or all."""
    settings = load_settings()
    address = address or f"http://{settings.dashboard_host}:{settings.dashboard_port}"
    folder.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        for name in names or PICTURES:
            click.echo(f"{name}: {take(browser, address, name, folder / f'{name}.png'):,} bytes")


def take(browser: Browser, address: str, name: str, file: Path) -> int:
    """One picture; gives its size."""
    path, theme, height, text = PICTURES[name]
    page = browser.new_page(viewport={"width": _WIDTH, "height": height}, color_scheme=theme)
    page.goto(f"{address}/{path}")
    drawn(page)
    if name == "disagreements":
        _choose_first(page)
    expect(page.get_by_text(text).first).to_be_visible()
    drawn(page)
    page.wait_for_timeout(1500)  # charts grow into their place
    drawn(page)  # again: Live draws itself anew every two seconds
    picture = Image.open(BytesIO(page.screenshot()))
    picture.convert("RGB").quantize(_COLOURS).save(file, optimize=True)
    page.close()
    return file.stat().st_size


def _choose_first(page: Page) -> None:
    """The transaction that is farthest above the threshold, and down to what made its scores."""
    page.locator("[data-testid=stDataFrame]").first.click(position=FIRST_ROW)
    heading = page.get_by_role("heading", name="One transaction")
    expect(page.get_by_text("What made its scores")).to_be_visible()
    drawn(page)
    heading.scroll_into_view_if_needed()
    heading.evaluate("each => each.scrollIntoView()")


if __name__ == "__main__":
    main()
