"""What reads answer: the numbers of the tables and of the commands, as known on a day, with tags and pages."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from harness import clickhouse_rows, stored
from served import DAYS, FIRST, HISTORY, MATURE, RECENT, Api

from consumer.champion import evaluations
from consumer.champion.dossier import document, to_bytes
from consumer.champion.evaluate import evaluate_scope, read_terms
from consumer.champion.scope import Scope
from consumer.clock import utc_now
from consumer.services import clickhouse
from consumer.services.drift.export import load_export
from consumer.services.drift.look import document as drift_document
from consumer.services.drift.look import look
from consumer.settings import Settings
from consumer.views import predictions
from consumer.watch.lag import LagReader, topics_by_group
from consumer.watch.lag_document import document as lag_document
from consumer.watch.status import LagWindow


def all_pages(api: Api, **asked: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    with api.client("read") as client:
        while True:
            answer = client.get("/v1/predictions", params=asked).json()
            found += answer["predictions"]
            if answer["next"] is None:
                return found
            asked["cursor"] = answer["next"]


def test_a_prediction_says_what_the_view_says(api: Api) -> None:
    (name,) = clickhouse_rows(api.settings, "any(transaction_id)")[0]
    answer = api.get(f"/v1/predictions/{name}", "read").json()
    (told,) = answer["predictions"]
    with clickhouse.connect(api.settings) as client:
        asked = {"id": name}
        found = client.query("SELECT * FROM shadow_predictions WHERE transaction_id = {id:String}", asked)
    (row,) = found.named_results()
    assert answer["transaction_id"] == told["transaction_id"] == row["transaction_id"]
    for model in ("ridge", "logistic", "elastic", "ensemble"):
        assert told["models"][model]["score"] == row[f"{model}_prediction"]
    assert told["models"][row["champion"]]["role"] == "champion"
    assert told["consensus"] == row["consensus_prediction"]
    assert datetime.fromisoformat(told["timestamp"]) == row["timestamp"].replace(tzinfo=UTC)
    same = ("business_decision", "reason_codes", "opportunity_cost", "actual_default", "decision", "source_offset")
    assert [told[each] for each in same] == [row[each] for each in same]


def test_pages_hold_every_prediction_once_in_order_of_time(api: Api) -> None:
    found = all_pages(api, limit=700)
    assert len(found) == HISTORY + RECENT
    assert len({each["prediction_id"] for each in found}) == len(found)
    times = [datetime.fromisoformat(each["timestamp"]) for each in found]
    assert times == sorted(times)


def test_a_time_range_holds_what_happened_in_it(api: Api) -> None:
    since, until = FIRST + timedelta(days=3), FIRST + timedelta(days=9)
    found = all_pages(api, since=since.isoformat(), until=until.isoformat(), limit=50)
    asked = f"countIf(event_time >= '{since:%Y-%m-%d}' AND event_time < '{until:%Y-%m-%d}')"
    assert len(found) == stored(api.settings, asked) > 100
    assert all(since <= datetime.fromisoformat(each["timestamp"]) < until for each in found)
    before, until = FIRST - timedelta(days=9), FIRST - timedelta(days=3)
    assert all_pages(api, since=before.isoformat(), until=until.isoformat()) == [], "nothing happened then"


def test_a_row_that_was_written_again_is_on_one_page_only(api: Api) -> None:
    """A transaction that was sent twice has one row, the later one, wherever pages are cut."""
    columns = "* EXCEPT shadow_offset, shadow_offset + 1000000 AS shadow_offset"
    begin, end = FIRST + timedelta(days=20), FIRST + timedelta(days=21)
    window = {"since": begin.isoformat(), "until": end.isoformat()}
    before = {each["prediction_id"] for each in all_pages(api, **window)}
    with clickhouse.connect(api.settings) as client:
        names = [name for name, *_ in client.query("DESCRIBE shadow_scores").result_rows if name != "shadow_offset"]
        chosen = f"event_time >= '{begin:%Y-%m-%d}' AND event_time < '{end:%Y-%m-%d}'"
        client.command(
            f"INSERT INTO shadow_scores (`{'`, `'.join(names)}`, shadow_offset) SELECT {columns} FROM shadow_scores "
            f"FINAL WHERE {chosen}"
        )
    for limit in (11, 1000):
        again = [each["prediction_id"] for each in all_pages(api, limit=limit, **window)]
        assert sorted(again) == sorted(before)


def test_a_row_that_is_written_again_while_a_page_is_read_is_not_lost(api: Api) -> None:
    """Behind the page's last place it would be on the next one; before it, on none."""
    begin, end = FIRST + timedelta(days=25), FIRST + timedelta(days=26)
    with clickhouse.connect(api.settings) as client:
        before = predictions.page(client, utc_now(), begin, end, most=1000).predictions
        first = before[0]
        names = ", ".join(f"`{name}`" for name, *_ in client.query("DESCRIBE shadow_scores").result_rows)
        ask = client.query
        asked = 0

        def interrupted(*given: Any, **named: Any) -> Any:
            nonlocal asked
            asked += 1
            answer = ask(*given, **named)
            if asked == 1:
                client.command(
                    f"INSERT INTO shadow_scores ({names}) SELECT * REPLACE (shadow_offset + 1 AS shadow_offset) "
                    "FROM shadow_scores FINAL WHERE prediction_id = {id:String}",
                    {"id": first.prediction_id},
                )
            return answer

        client.query = interrupted  # type: ignore[method-assign]
        found = predictions.page(client, utc_now(), begin, end, most=1000).predictions
    assert asked == 2
    assert sorted(each.prediction_id for each in found) == sorted(each.prediction_id for each in before)


@pytest.mark.parametrize("day", [5, 40, 75, 130])
def test_as_of_a_day_outcomes_are_those_that_were_known(api: Api, day: int) -> None:
    at = FIRST + timedelta(days=day)
    with clickhouse.connect(api.settings) as client:
        known = client.query(
            "SELECT transaction_id, max(defaulted), countIf(label = 'full_term') FROM (SELECT transaction_id, label, "
            "argMax(defaulted, version) AS defaulted FROM outcomes FINAL WHERE observed_at <= {at:DateTime64(3)} "
            "GROUP BY transaction_id, label) GROUP BY transaction_id",
            {"at": at},
        ).result_rows
    expected = {name: True if bad else (False if done else None) for name, bad, done in known}
    found = all_pages(api, as_of=at.isoformat(), until=(FIRST + timedelta(days=DAYS)).isoformat(), limit=1000)
    assert len(found) == HISTORY
    assert all(each["actual_default"] == expected.get(each["transaction_id"]) for each in found)
    assert bool(expected) == (day > 5)


def test_an_answer_tells_its_time_and_is_not_sent_again_while_it_is_the_same(api: Api) -> None:
    paths = ["/v1/models", f"/v1/predictions?limit=5&as_of={MATURE:%Y-%m-%d}"]
    for path in paths:
        first = api.get(path)
        assert first.status_code == 200, first.text
        tag = first.headers["etag"]
        assert tag.startswith('"')
        assert datetime.fromisoformat(first.headers["bnpl-as-of"]) <= datetime.now(UTC)
        for given in (tag, f'W/"x", {tag}', "*", f"W/{tag}"):
            same = api.get(path, headers={"If-None-Match": given})
            assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
        assert api.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    dated = api.get(paths[1])
    assert dated.headers["bnpl-as-of"] == MATURE.replace(hour=0).isoformat()


def test_an_evaluation_is_byte_for_byte_what_the_command_prints(api: Api) -> None:
    assert api.get("/v1/evaluation").status_code == 404
    settings = api.settings
    evaluated = evaluate_scope(settings, Scope(MATURE, "v1"), read_terms(settings, "v1"))
    told = document(evaluated)
    with clickhouse.connect(settings) as client:
        listed = evaluations.store(client, told, evaluated.curves)
    answer = api.get("/v1/evaluation", "read")
    assert answer.content == to_bytes(told)
    assert answer.headers["bnpl-as-of"] == listed.as_of.isoformat()
    assert answer.json()["evaluation"]["rows"]["evaluated"] > 1000
    part = {"since": (FIRST + timedelta(weeks=1)).isoformat(), "as_of": (MATURE + timedelta(days=9)).isoformat()}
    with clickhouse.connect(settings) as client:
        evaluations.store(client, told | {"question": told["question"] | part}, None)
    assert api.get("/v1/evaluation").content == to_bytes(told)
    assert api.get("/v1/evaluation", params={"as_of": FIRST.isoformat()}).status_code == 404
    assert api.get("/v1/evaluation", params={"artifact": "v2"}).status_code == 404


def test_vintages_of_weeks_that_are_old_enough_are_those_of_the_evaluation(api: Api) -> None:
    settings = api.settings
    told = document(evaluate_scope(settings, Scope(MATURE, "v1"), read_terms(settings, "v1")))
    by_week = {each["week"]: each for each in told["evaluation"]["vintages"]}
    answer = api.get("/v1/vintages", "read", params={"as_of": MATURE.isoformat()}).json()
    assert answer["label"] == "d28"
    mature = [each for each in answer["vintages"] if each["mature"]]
    assert len(mature) >= 5
    for each in mature:
        assert each["observed"]["rate"] == pytest.approx(by_week[each["week"]]["observed"]["rate"])
    assert api.get("/v1/vintages", params={"artifact": "v99"}).status_code == 404


def test_lag_and_drift_are_what_the_commands_print(api: Api) -> None:
    told = api.get("/v1/lag", "read").json()["groups"]
    reports = []
    for group, topics in topics_by_group(api.settings).items():
        with LagReader(api.settings, group, topics) as reader:
            window = LagWindow(group)
            reports.append(window.add(reader.look()))
    printed = json.loads(json.dumps(lag_document(reports, utc_now())))["groups"]
    same = ("group", "state", "messages", "expired", "failed")
    assert [[each[name] for name in same] for each in told] == [[each[name] for name in same] for each in printed]
    drift = api.get("/v1/drift", "read", params={"as_of": "2026-07-01"}).json()
    with clickhouse.connect(api.settings) as client:
        found = look(client, load_export(api.settings), date(2026, 7, 1))
    assert drift == json.loads(json.dumps(drift_document(found), default=str))
    assert any(each["rows"] for each in drift["scores"])


def test_models_tell_what_is_loaded(api: Api) -> None:
    told = api.get("/v1/models", "read").json()
    model_set = api.parts.controller.predictor.model_set
    assert told["artifact_sha256"] == model_set.digest
    assert [each["name"] for each in told["models"]] == [each.name for each in model_set.models]
    assert told["models"][0]["research"]["auc"] > 0.5
    assert (told["champion"], told["mode"], told["control_revision"], told["since"]) == ("ridge", "shadow", 0, None)
    assert len(told["features"]) == 36


def test_metrics_count_requests_by_route_and_no_id(api: Api) -> None:
    api.get("/v1/predictions/some-secret-id")
    told = api.get("/metrics", "read").text
    route = 'route="/v1/predictions/{transaction_id}"'
    assert f'bnpl_api_requests_total{{method="GET",{route},status="4xx"}}' in told
    assert 'bnpl_api_refused_total{reason="not-found"}' in told
    assert "some-secret-id" not in told


def test_health_needs_no_token(api: Api, history: Settings) -> None:
    assert api.get("/livez", None).json() == {"ok": True, "reasons": []}
    assert api.get("/readyz", None).json() == {"ok": True, "reasons": [], "away": [], "doubt": None}
    assert history.api_tokens_file
