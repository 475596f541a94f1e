"""What pages ask of the tables, against the records that were put into them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from evaluated_past import COUNT, FIRST, MATURE, Past
from harness import send

from consumer.champion.dossier import snapshot_of
from consumer.champion.rows import read_rows
from consumer.clock import utc_now
from consumer.errors import Fatal
from consumer.views import data_health, disagreements, live, money

MODELS = ("ridge", "logistic", "elastic", "ensemble")


def test_what_was_scored_just_now_is_counted_by_the_time_of_scoring(past: Past) -> None:
    newest = live.newest(past.client)
    assert newest is not None
    assert (newest.rows, newest.champion, newest.mode) == (COUNT, "ridge", "shadow")
    found = live.live(past.client, newest.scored_at + timedelta(seconds=10), 3600, 5)
    asked = "count(), countIf(business_decision = 'decline'), countIf(business_risk_flag = 'high')"
    ((count, declined, high),) = past.client.query(f"SELECT {asked} FROM shadow_scores").result_rows
    assert (found.events, found.declined, found.flagged) == (count, declined, high)
    assert found.rate(3600) == pytest.approx(COUNT / 3600)
    assert sorted(each.model for each in found.scores) == sorted(MODELS)
    assert all(each.events == COUNT and each.failed == 0 for each in found.scores)
    asked = "avg(ridge_prediction), medianExact(ridge_prediction)"
    ((mean, median),) = past.client.query(f"SELECT {asked} FROM shadow_predictions").result_rows
    ridge = next(each for each in found.scores if each.model == "ridge")
    assert ridge.mean == pytest.approx(mean)
    assert ridge.median == pytest.approx(median)
    quiet = live.live(past.client, newest.scored_at - timedelta(hours=1), 600, 5)
    assert (quiet.events, quiet.scores) == (0, [])


def test_the_lone_flags_are_those_of_the_ledger(past: Past) -> None:
    sample = read_rows(past.client, snapshot_of(past.told)).sample
    for ledger in past.told["evaluation"]["disagreements"]:
        alone = disagreements.flagged_alone(past.client, past.told, ledger["model"], COUNT)
        assert len(alone) == ledger["rate"]["rows"]
        assert sum(each.defaulted for each in alone) == ledger["rate"]["defaults"]
        assert sum(each.amount for each in alone) == pytest.approx(ledger["amount"])
        assert [each.distance for each in alone[:10]] == pytest.approx(ledger["distances"], abs=1e-12)
        named = [past.told["examples"][str(at)]["transaction_id"] for at in ledger["examples"]]
        assert [each.transaction_id for each in alone[:10]] == named
        assert [each.amount for each in alone[:10]] == sample.amount[ledger["examples"]].tolist()
    with pytest.raises(Fatal, match="ridge, logistic"):
        disagreements.flagged_alone(past.client, past.told, "nobody", 5)


def test_outcomes_of_a_transaction_are_those_known_then(past: Past) -> None:
    ((name,),) = past.client.query("SELECT transaction_id FROM outcomes WHERE label = 'full_term' LIMIT 1").result_rows
    known = disagreements.outcomes_of(past.client, name, MATURE + timedelta(days=400))
    assert {each.label for each in known} >= {"d28", "full_term"}
    before = min(each.observed_at for each in known) - timedelta(seconds=1)
    assert disagreements.outcomes_of(past.client, name, before) == []
    assert disagreements.is_stored(past.client, name)
    assert not disagreements.is_stored(past.client, "' OR 1 = 1 --")


def test_opportunity_is_the_sum_of_the_column(past: Past) -> None:
    (found,) = money.opportunities(past.client, "v1", FIRST + timedelta(weeks=52))
    asked = "count(), countIf(opportunity_cost IS NULL), sum(opportunity_cost)"
    ((count, unknown, total),) = past.client.query(f"SELECT {asked} FROM shadow_predictions").result_rows
    assert (found.champion, found.transactions, found.unknown) == ("ridge", count, unknown)
    assert found.total == pytest.approx(total)
    assert 0 < found.differing < count
    assert money.opportunities(past.client, "v9", utc_now()) == []


def test_opportunity_as_of_a_day_counts_no_outcome_that_was_observed_later(past: Past) -> None:
    known = "SELECT uniqExact(transaction_id) FROM outcomes WHERE observed_at <= %(as_of)s"
    found = []
    for weeks in (3, 8, 30):
        asked = {"as_of": FIRST + timedelta(weeks=weeks)}
        (told,) = money.opportunities(past.client, "v1", asked["as_of"])
        assert told.last < asked["as_of"].replace(tzinfo=None)
        assert told.differing <= past.client.query(known, asked).result_rows[0][0]
        found.append(told)
    early, middle, late = found
    assert early.transactions < middle.transactions == late.transactions == COUNT
    assert middle.unknown > late.unknown
    assert middle.total != late.total


def test_data_health_names_what_is_stored_and_what_was_refused(past: Past) -> None:
    (identity,) = data_health.stored(past.client, utc_now())
    assert (identity.artifact_version, identity.rows) == ("v1", COUNT)
    assert data_health.artifact_versions(past.client) == ["v1"]
    assert data_health.stored(past.client, identity.first) == []
    assert data_health.failed_scores(past.client, utc_now()) == []
    began = utc_now() - timedelta(minutes=1)
    settings = past.settings
    assert data_health.dead_letters(settings, began, 5).kinds == []
    send(settings, settings.topic_dead_letters, [{"key": b"k", "value": b"v", "headers": []} for _ in range(7)])
    found = data_health.dead_letters(settings, began, 5)
    assert [(each.error, each.state, each.letters) for each in found.kinds] == [("not a dead letter", "foreign", 7)]
    assert (found.total, len(found.newest)) == (7, 5)
