"""The dashboard in a real browser: every page on real data, its numbers against `evaluate`, and what it needs away."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from browsing import CHROMIUM, FIRST_ROW, NO_BROWSER, PATIENCE_MS, address_of, chromium, drawn, photograph, table
from evaluated_past import COUNT, FIRST, MATURE, Past
from harness import Commands, eventually
from kafka_proxy import KafkaProxy
from playwright.sync_api import Page, expect
from pydantic import SecretStr

from consumer.champion import evaluations
from consumer.champion.report.wording import interval, number, ratio
from consumer.clock import utc_now
from consumer.dashboard.shell import PAGES
from consumer.evaluation.thresholds import Thresholds, thresholds
from consumer.system.faults.proxy import Proxy, behaving

pytestmark = pytest.mark.skipif(not CHROMIUM, reason=NO_BROWSER)

_ERRORS = "[data-testid=stException], [data-testid=stAlertContentError]"


@dataclass(frozen=True)
class Site:
    """A running dashboard, the ways to ClickHouse and Kafka that it takes, and a visitor."""

    address: str
    clickhouse: Proxy
    kafka: KafkaProxy
    page: Page
    complaints: list[str]
    """What the browser says of scripts: a chart that cannot be drawn says so nowhere else."""

    def visit(self, path: str = "") -> Page:
        self.page.goto(f"{self.address}/{path}")
        drawn(self.page)
        return self.page


@pytest.fixture(scope="module")
def site(past: Past, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    assert past.settings.clickhouse_url
    commands = Commands(tmp_path_factory.mktemp("dashboard"))
    with (
        Proxy(past.settings.clickhouse_url.get_secret_value()) as proxy,
        KafkaProxy(str(past.settings.kafka_bootstrap_servers)) as kafka,
        chromium() as browser,
    ):
        given = {
            "clickhouse_url": SecretStr(proxy.address),
            "kafka_bootstrap_servers": kafka.address,
            "dashboard_port": 0,
        }
        dashboard = commands.start(past.settings.model_copy(update=given), "dashboard")
        try:
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            page.set_default_timeout(PATIENCE_MS)
            complaints: list[str] = []
            page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            yield Site(address_of(dashboard), proxy, kafka, page, complaints)
            dashboard.terminate()
            assert dashboard.ended(20) == 0
            assert "Traceback" not in dashboard.output
        finally:
            commands.kill_all()


@pytest.fixture(scope="module")
def at_shares(past: Past) -> Thresholds:
    return thresholds(past.told, evaluations.curves_of(past.client, past.listed).shares)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(os.environ.get("BNPL_SCREENSHOTS") or tmp_path_factory.mktemp("pictures"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"pictures of the pages: {folder}")
    return folder


@pytest.mark.parametrize("address", PAGES)
def test_every_page_opens_on_real_data(site: Site, pictures: Path, address: str) -> None:
    title, _ = PAGES[address]
    site.complaints.clear()
    page = site.visit() if address == "live" else site.page
    page.get_by_role("link", name=title, exact=True).click()
    expect(page.locator("h1")).to_have_text(title)
    drawn(page)
    expect(page.locator(_ERRORS)).to_have_count(0)
    expect(page.get_by_text("cannot be shown")).to_have_count(0)
    if address in ("models", "rules-against-models", "disagreements", "money"):
        expect(page.get_by_text(re.compile(r"^n = [\d,]+ evaluated transactions")).first).to_be_visible()
    charts = page.locator("[data-testid=stVegaLiteChart]").all()
    assert all((chart.get_attribute("aria-label") or "").strip() for chart in charts)
    levels = page.locator("h1, h2, h3, h4").evaluate_all("all => all.map(each => Number(each.tagName[1]))")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels)), f"headings skip a level: {levels}"
    photograph(page, pictures / f"{address}.png")
    assert site.complaints == []


_CUT_OFF = """() => [
    ...document.querySelectorAll('[data-testid=stVegaLiteChart], [data-testid=stMetric]')
].flatMap(each => {
    const {left, right} = each.getBoundingClientRect();
    return [...each.querySelectorAll('svg text, [data-testid=stMarkdownContainer]')].filter(text => {
        const box = text.getBoundingClientRect();
        const shortened = text instanceof HTMLElement && text.scrollWidth > text.clientWidth + 1;
        return shortened || box.right > right + 3 || box.left < left - 3;
    }).map(text => text.textContent);
})"""


@pytest.mark.parametrize("address", ["live", "models", "rules-against-models", "drift", "money"])
def test_no_word_of_a_chart_is_cut_off_on_a_narrow_screen(site: Site, address: str) -> None:
    site.page.set_viewport_size({"width": 800, "height": 900})
    try:
        page = site.visit(address if address != "live" else "")
        expect(page.locator("[data-testid=stVegaLiteChart] svg, [data-testid=stMetric]").first).to_be_visible()
        eventually(lambda: page.evaluate(_CUT_OFF) == [], 10, lambda: page.evaluate(_CUT_OFF))
    finally:
        site.page.set_viewport_size({"width": 1400, "height": 900})


def test_a_day_before_all_scores_says_so(site: Site) -> None:
    nothing = f"No score by models v1 is stored of a transaction before {FIRST:%Y-%m-%d}; choose a later day."
    for address in ("vintages", "money"):
        expect(site.visit(f"{address}?as_of={FIRST:%Y-%m-%d}").get_by_text(nothing)).to_be_visible()
    page = site.visit(f"data-health?as_of={FIRST:%Y-%m-%d}")
    expect(page.get_by_text("No score is stored of a transaction before the chosen day.")).to_be_visible()
    expect(page.get_by_text("every model scored every stored transaction")).to_have_count(0)


def test_data_health_has_the_dead_letters_of_transactions_and_of_outcomes(site: Site, past: Past) -> None:
    page = site.visit("data-health")
    for topic in (past.settings.topic_dead_letters, past.settings.topic_outcomes_dead_letters):
        expect(page.get_by_text(topic).first).to_be_visible()


def test_the_leaderboard_says_what_evaluate_says(site: Site, past: Past) -> None:
    page = site.visit("models")
    found = table(page, "AUC")
    for name, told in past.told["evaluation"]["scorers"].items():
        ranking = told["ranking"]
        assert found[name]["ratio"] == ratio(told["ratio"])
        assert (
            found[name]["AUC"]
            == f"{number(ranking['auc'], 3)} ({interval(ranking['auc_low'], ranking['auc_high'], 3)})"
        )
        assert found[name]["high band"].endswith(f"n\u00a0=\u00a0{told['ratio']['high']['rows']:,}")


def test_the_slider_re_thresholds_everybody_and_says_what_evaluate_says(
    site: Site, past: Past, at_shares: Thresholds
) -> None:
    page = site.visit("rules-against-models")
    scorers = past.told["evaluation"]["scorers"]
    for name, row in table(page, "lift").items():
        told, worth = scorers[name]["ratio"], scorers[name]["money"]
        assert row["flagged"] == f"{worth['declined']:,}"
        assert row["ratio"] == ratio(told)
        assert row["opportunity"] == (
            f"{number(worth['opportunity'], 0)} ({interval(worth['interval_low'], worth['interval_high'], 0)})"
        )
    handle = page.get_by_role("slider", name="Share of transactions that each flags")
    handle.focus()
    for place in (at_shares.own + 1, at_shares.own + 2):
        handle.press("ArrowRight")
        share = f"{at_shares.shares[place]:.1%}"
        expect(page.locator("[data-testid=stSlider]")).to_contain_text(share)
        drawn(page)
        expected = {each.scorer: each for each in at_shares.at(place)}
        for name, each in expected.items():
            expect(page.locator("[data-testid=stTable] table").first).to_contain_text(f"{each.flagged:,}")
            row = table(page, "lift")[name]
            assert row["flagged"] == f"{each.flagged:,}"
            assert row["lift"] == number(each.lift)
            said = f"{number(each.ratio)} ({interval(each.ratio_low, each.ratio_high)})" if each.ratio else each.why
            assert row["ratio"] == said


def test_the_day_is_in_the_address_and_what_is_not_settled_says_so(site: Site) -> None:
    page = site.visit("vintages?as_of=2026-07-20")
    expect(page.get_by_text("Not settled, and drawn grey")).to_be_visible()
    weeks = table(page, "coverage")
    assert weeks["2026-W23"]["state"] == "settled"
    assert weeks["2026-W28"] == weeks["2026-W28"] | {
        "state": "not settled: will change",
        "default rate": "none known yet",
    }
    page.get_by_role("link", name="Models", exact=True).click()
    expect(page.locator("h1")).to_have_text("Models")
    expect(
        page.get_by_text("bnpl-shadow evaluate --artifact v1 --label d28 --as-of 2026-07-20 --store")
    ).to_be_visible()


def test_what_is_older_than_was_asked_says_so_and_nothing_later_is_shown(site: Site, past: Past) -> None:
    page = site.visit(f"models?as_of={MATURE + timedelta(days=10):%Y-%m-%d}")
    expect(page.get_by_text("The newest that is stored is 10 days older than was asked")).to_be_visible()
    example = next(iter(past.told["examples"].values()))["transaction_id"]
    page = site.visit(f"disagreements?transaction={example}&as_of={FIRST:%Y-%m-%d}")
    expect(page.get_by_text(f"{example} is not of before the chosen day")).to_be_visible()


def test_an_evaluation_of_a_part_of_the_transactions_says_of_which(site: Site, past: Past) -> None:
    since = FIRST + timedelta(days=7)
    asked = past.told["question"] | {"label": "d42", "since": since.isoformat()}
    evaluations.store(past.client, past.told | {"question": asked}, None)
    page = site.visit("models?label=d42")
    expect(page.get_by_text(f"Only of transactions since {since:%Y-%m-%d}: none of all")).to_be_visible()


def test_defaults_against_scores_are_of_the_chosen_day_also_where_its_week_had_no_traffic(site: Site) -> None:
    page = site.visit("drift")
    expect(page.get_by_text("Nothing can be judged in this week")).to_be_visible()
    expect(
        page.get_by_text(f"full term, as known on {utc_now():%Y-%m-%d}; young weeks hold short plans")
    ).to_be_visible()


@pytest.mark.parametrize("given", ["as_of=2999-01-01", "as_of=1066-10-14", "as_of=*&label=**&artifact=../../etc"])
def test_an_address_that_makes_no_sense_is_as_none(site: Site, given: str) -> None:
    page = site.visit(f"vintages?{given}")
    expect(page.locator(_ERRORS)).to_have_count(0)
    expect(page.get_by_text("label d28 as known on").first).to_contain_text(f"{utc_now():%Y-%m-%d}")


def test_one_transaction_is_followed_from_the_ledger(site: Site, past: Past) -> None:
    example = next(iter(past.told["examples"].values()))
    page = site.visit(f"disagreements?transaction={example['transaction_id']}")
    rows = table(page, "threshold of the export")
    assert [name for name, row in rows.items() if row["flagged there"] == "flagged"] == [example["model"]]
    expect(page.get_by_text("No reasons:")).to_be_visible()  # these rows never were in Kafka
    page.get_by_text("Flagged by this model alone").scroll_into_view_if_needed()
    model = page.get_by_role("combobox", name="Flagged by this model alone").input_value()
    ledger = next(each for each in past.told["evaluation"]["disagreements"] if each["model"] == model)
    page.locator("[data-testid=stDataFrame]").first.click(position=FIRST_ROW)
    first = past.told["examples"][str(ledger["examples"][0])]["transaction_id"]
    expect(page.get_by_role("textbox", name="Transaction id")).to_have_value(first)
    expect(page.locator("[data-testid=stMarkdown] strong", has_text=first)).to_be_visible()
    page.goto(f"{site.address}/disagreements?transaction=**nobody**")
    expect(page.get_by_text("No score of **nobody** is stored")).to_be_visible()


def test_clickhouse_away_is_named_and_the_page_comes_back_by_itself(site: Site) -> None:
    page = site.page
    with behaving(site.clickhouse, "503"):
        page.goto(f"{site.address}/vintages?label=d42")
        expect(page.get_by_text("This page cannot be shown: ClickHouse")).to_be_visible()
        expect(page.get_by_text("comes back by itself")).to_be_visible()
        expect(page.locator("[data-testid=stException]")).to_have_count(0)
    expect(page.get_by_text("Default rate by week of origination").first).to_be_visible()
    expect(page.get_by_text("cannot be shown")).to_have_count(0)


def test_kafka_away_is_named_beside_what_clickhouse_has_and_the_lag_comes_back_by_itself(
    site: Site, past: Past
) -> None:
    page = site.visit("live")
    away = page.get_by_text("Lag is as last seen: ")
    expect(page.get_by_role("heading", name="Lag")).to_be_visible()
    expect(away).to_have_count(0)
    with site.kafka.away():
        for group in (past.settings.score_group, past.settings.sink_group):
            expect(
                away.filter(has_text=f"the lag of {group} cannot be asked of Kafka at {site.kafka.address}")
            ).to_be_visible()
        assert {row["messages"] for row in table(page, "oldest waits").values()} == {"0"}
        expect(page.get_by_text(f"the table holds {COUNT:,} rows")).to_be_visible()
        expect(page.get_by_text("cannot be shown")).to_have_count(0)
        expect(page.locator("[data-testid=stException]")).to_have_count(0)
    expect(away).to_have_count(0, timeout=2 * PATIENCE_MS)  # clients wait up to 10 s before they try again


def test_where_it_cannot_listen_is_named(past: Past, site: Site, tmp_path: Path) -> None:
    port, commands = site.address.rpartition(":")[2], Commands(tmp_path)
    elsewhere = {"BNPL_DASHBOARD_HOST": "203.0.113.1", "BNPL_DASHBOARD_PORT": "0"}
    refused = commands.start(past.settings, "dashboard", **elsewhere)
    ended = commands.run(past.settings, "dashboard", BNPL_DASHBOARD_PORT=port)
    assert (ended.process.returncode, refused.ended(60)) == (1, 1)
    assert "set BNPL_DASHBOARD_HOST to an address of this machine" in refused.output
    assert "Traceback" not in refused.output
    assert f"dashboard cannot listen on port {port}" in ended.output
    assert "BNPL_DASHBOARD_PORT" in ended.output
