"""A dead letter tells why beside what the record already carried, whatever that is."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from consumer.contracts.avro import Rejected
from consumer.contracts.dead_letter import Coordinates, headers
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
