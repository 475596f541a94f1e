"""A dead letter tells why beside what the record already carried, whatever that is."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from consumer.contracts.avro import Rejected
from consumer.contracts.dead_letter import (
    Coordinates,
    Replay,
    headers,
    is_marker,
    marker_headers,
    refusal,
    replay,
    replay_headers,
    was_replayed,
)
from consumer.errors import InvalidRecord

SOURCE = Coordinates("bnpl.transactions", 3, 42)
REJECTED = Rejected(0, InvalidRecord("truncated", "the record ends inside field amount"), "decode")
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def test_the_headers_say_where_when_and_why() -> None:
    told = dict(headers([], SOURCE, REJECTED, NOW))
    version = told.pop("bnpl.dlq.app_version")
    assert version
    assert told == {
        "__connect.errors.topic": b"bnpl.transactions",
        "__connect.errors.partition": b"3",
        "__connect.errors.offset": b"42",
        "__connect.errors.stage": b"decode",
        "__connect.errors.exception.class.name": b"truncated",
        "__connect.errors.exception.message": b"the record ends inside field amount",
        "bnpl.dlq.attempt": b"1",
        "bnpl.dlq.first_failed_at": b"2026-06-01T12:00:00.000+00:00",
    }


def test_the_records_own_headers_stay_first_untouched_and_in_order() -> None:
    own = [("trace", b"\xff\x00"), ("trace", b"again"), ("empty", None)]
    assert headers(own, SOURCE, REJECTED, NOW)[:3] == own


def test_a_second_failure_counts_on_and_keeps_when_the_first_was() -> None:
    first = headers([("trace", b"1")], SOURCE, REJECTED, NOW)
    second = headers(first, SOURCE, REJECTED, datetime(2026, 6, 2, tzinfo=UTC))
    assert [name for name, _ in second] == [name for name, _ in first]
    assert dict(second)["bnpl.dlq.attempt"] == b"2"
    assert dict(second)["bnpl.dlq.first_failed_at"] == b"2026-06-01T12:00:00.000+00:00"


@pytest.mark.parametrize("attempt", [None, b"", b"\xff\xfe", b"many", b"-3", b"9" * 5000, "²".encode()])
def test_headers_of_our_name_that_hold_rubbish_are_replaced(attempt: bytes | None) -> None:
    told = headers([("bnpl.dlq.attempt", attempt)], SOURCE, REJECTED, NOW)
    (value,) = [value for name, value in told if name == "bnpl.dlq.attempt"]
    assert value is not None
    assert value.decode().isdecimal()


OWN = [("trace", b"\xff\x00"), ("trace", b"again"), ("empty", None)]
TO = Replay(Coordinates("a/b.dlq", 2, 17), Coordinates("bnpl.transactions", 0, 4), "2026-06-02T00:00:00.000+00:00")


def test_what_a_letter_says_is_read_from_its_headers_as_it_was_written() -> None:
    said = refusal(headers(OWN, SOURCE, REJECTED, NOW))
    assert said
    assert (said.source, said.stage, said.error, said.attempt) == (SOURCE, "decode", "truncated", 1)
    assert (said.message, said.first_failed_at) == (str(REJECTED.reason), "2026-06-01T12:00:00.000+00:00")


def test_a_replayed_record_has_its_own_headers_and_what_a_second_failure_counts_on() -> None:
    letter = headers(OWN, SOURCE, REJECTED, NOW)
    again = replay_headers(letter)
    assert again[:3] == OWN
    assert dict(again[3:]) == {
        "bnpl.dlq.attempt": b"1",
        "bnpl.dlq.first_failed_at": b"2026-06-01T12:00:00.000+00:00",
    }
    assert was_replayed(again)
    assert not was_replayed(OWN)
    second = refusal(headers(again, SOURCE, REJECTED, datetime(2026, 6, 2, tzinfo=UTC)))
    assert second
    assert (second.attempt, second.first_failed_at) == (2, "2026-06-01T12:00:00.000+00:00")


def test_a_marker_is_no_letter_and_says_which_letter_became_which_record() -> None:
    marker = marker_headers(TO)
    assert is_marker(marker)
    assert not is_marker(headers(OWN, SOURCE, REJECTED, NOW))
    assert refusal(marker) is None
    assert replay(TO.of.topic, marker) == TO


def test_a_record_that_bears_a_markers_headers_becomes_a_letter_without_them() -> None:
    letter = headers([*OWN, *marker_headers(TO)], SOURCE, REJECTED, NOW)
    assert not is_marker(letter)
    assert letter[:3] == OWN


@given(
    st.lists(
        st.tuples(
            st.sampled_from([name for name, _ in [*headers([], SOURCE, REJECTED, NOW), *marker_headers(TO)]]),
            st.none() | st.binary(max_size=20) | st.text(max_size=20).map(str.encode),
        )
    )
)
@hypothesis_settings(deadline=None)
def test_headers_from_outside_are_understood_or_refused_and_never_raise(found: list[tuple[str, bytes | None]]) -> None:
    said, told = refusal(found), replay("t", found)
    assert said is None or said.attempt >= 1
    assert told is None or is_marker(found)
    assert refusal(replay_headers(found)) is None
