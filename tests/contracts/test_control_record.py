"""A control record is read as it was written, and what is no such record never rules."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from samples import examples

from consumer.contracts.control import STATE_KEY, Control, ControlLog, encode
from consumer.contracts.schemas import latest
from consumer.errors import InvalidRecord

SCHEMA = latest("control")
NOW = datetime(2026, 11, 1, 10, 15, 0, 123_000, tzinfo=UTC)


def control(revision: int = 1, **changes: Any) -> Control:
    given: dict[str, Any] = {
        "revision": revision,
        "action": "promote",
        "champion": "logistic",
        "mode": "shadow",
        "artifact_version": "v1",
        "artifact_sha256": "a" * 64,
        "made_by": "anna",
        "made_at": NOW,
        "reason": "the season's verdict",
        "dossier_sha256": "d" * 64,
        "previous_revision": revision - 1,
        "previous_champion": "ridge",
        "previous_mode": "shadow",
    }
    return Control(**given | changes)


def body(**changes: Any) -> bytes:
    """A record as another program writes it, right or wrong."""
    row = control().model_dump() | changes
    out = io.BytesIO(SCHEMA.header)
    out.seek(0, io.SEEK_END)
    fastavro.schemaless_writer(out, fastavro.parse_schema(SCHEMA.schema), row)
    return out.getvalue()


def taken(*records: tuple[bytes | None, bytes | None]) -> tuple[ControlLog, list[str]]:
    """The log of these records, and why some were passed over."""
    log, refused = ControlLog(), []
    for key, value in records:
        try:
            log.take(key, value)
        except InvalidRecord as reason:
            refused.append(reason.error)
    return log, refused


def both(one: Control) -> list[tuple[bytes | None, bytes | None]]:
    """As a promotion writes it."""
    return [(one.key, encode(one)), (STATE_KEY, encode(one))]


def test_another_program_reads_what_was_written() -> None:
    one = control(7, action="kill", mode="canary", canary_percent=12.5, override=True, unsupported="no dossier")
    value = encode(one)
    assert value.startswith(SCHEMA.header)
    read: Any = fastavro.schemaless_reader(
        io.BytesIO(value[len(SCHEMA.header) :]), fastavro.parse_schema(SCHEMA.schema), None
    )
    assert Control(**read) == one


def test_what_another_program_wrote_is_read() -> None:
    log, refused = taken((STATE_KEY, body(mode="canary", canary_percent=0.25)))
    assert not refused
    assert log.state == control(mode="canary", canary_percent=0.25)


def test_the_newest_rules_and_every_one_is_remembered() -> None:
    first, second, third = control(1), control(2, mode="champion"), control(3, action="kill")
    log, refused = taken(*both(first), *both(second), *both(third))
    assert not refused
    assert log.state == third
    assert [*log.history.values()] == [first, second, third]


def test_after_compaction_the_history_is_whole() -> None:
    first, second, third = control(1), control(2), control(3)
    log, refused = taken(both(first)[0], both(second)[0], *both(third))
    assert not refused
    assert [*log.history.values()] == [first, second, third]


def test_rubbish_over_the_newest_state_does_not_unseat_it_even_once_compaction_removed_that() -> None:
    first, second = control(1), control(2, mode="champion")
    log, refused = taken(both(first)[0], both(second)[0], (STATE_KEY, b"rubbish"))
    assert refused == ["unknown_framing"]
    assert log.state == second


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        (STATE_KEY, None, "tombstone"),
        (STATE_KEY, b"", "empty"),
        (None, b"rubbish", "unknown_framing"),
        (STATE_KEY, b"\xc3\x01" + bytes(8), "unknown_schema"),
        (STATE_KEY, b"\x00\x00\x00\x00\x07" + bytes(30), "unknown_schema"),
        (STATE_KEY, body(revision=2)[:-3], "truncated"),
        (STATE_KEY, body(revision=2) + b"\x00", "trailing_bytes"),
        (STATE_KEY, encode(control(1, reason="another one")), "revision_not_newer"),
        (STATE_KEY, body(revision=0, previous_revision=None), "invalid_control"),
        (None, body(revision=2), "foreign_key"),
        (b"champion", body(revision=2), "foreign_key"),
        (b"promotion/3", body(revision=2), "foreign_key"),
        (b"promotion/02", body(revision=2), "foreign_key"),
        (STATE_KEY, body(revision=2, mode="CHAMPION"), "invalid_control"),
        (STATE_KEY, body(revision=2, mode="canary"), "invalid_control"),
        (STATE_KEY, body(revision=2, canary_percent=5.0), "invalid_control"),
        (STATE_KEY, body(revision=2, mode="canary", canary_percent=float("nan")), "invalid_control"),
        (STATE_KEY, body(revision=2, mode="canary", canary_percent=100.0), "invalid_control"),
        (STATE_KEY, body(revision=2, made_at=2**62), "invalid_control"),
        (STATE_KEY, body(revision=2, champion=""), "invalid_control"),
        (STATE_KEY, body(revision=2, override=True), "invalid_control"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name_and_the_state_stays(
    key: bytes | None, value: bytes | None, error: str
) -> None:
    first = control(1)
    log, refused = taken(*both(first), (key, value))
    assert refused == [error]
    assert log.state == first
    log.take(STATE_KEY, encode(control(2)))
    assert log.state == control(2)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"mode": "canary"}, "canary_percent belongs to mode canary"),
        ({"canary_percent": 5.0}, "canary_percent belongs to mode canary"),
        ({"mode": "canary", "canary_percent": 0.123}, "canary_percent: .*more than two decimals"),
        ({"mode": "canary", "canary_percent": 0.0}, "canary_percent: .*greater than 0"),
        ({"previous_mode": "canary"}, "previous_canary_percent belongs"),
        ({"override": True}, "override and unsupported belong together"),
        ({"unsupported": "no dossier"}, "override and unsupported belong together"),
        ({"dossier_sha256": None}, "a promotion has a dossier or is an override"),
        ({"previous_revision": None}, "belong together"),
        ({"previous_revision": 1}, "previous_revision is not before revision"),
        ({"reason": "  "}, "reason"),
        ({"reason": "\x1b[2Jnothing to see"}, "reason"),
        ({"made_at": NOW.replace(tzinfo=None)}, "made_at"),
        ({"artifact_sha256": "A" * 64}, "artifact_sha256"),
        ({"revision": 1.0}, "revision"),
        ({"champion": "ridge; drop"}, "champion"),
    ],
)
def test_a_record_that_contradicts_itself_is_never_made(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told.partition(": .*")[0]) as refused:
        control(**changes)
    assert told.rpartition(": .*")[2] in str(refused.value)


def test_why_a_record_is_refused_names_the_field_and_holds_no_value() -> None:
    with pytest.raises(InvalidRecord, match=r"mode: Input should be 'shadow', 'canary' or 'champion'") as refused:
        ControlLog().take(STATE_KEY, body(mode="secret-mode", reason="a secret reason"))
    assert "secret" not in str(refused.value)


texts = st.text(max_size=30)


@examples(150)
@given(
    st.lists(
        st.tuples(st.one_of(st.none(), st.binary(max_size=12), st.just(STATE_KEY)), st.one_of(st.none(), st.binary())),
        max_size=6,
    ),
    st.binary(),
)
def test_no_bytes_unseat_the_state(records: list[tuple[bytes | None, bytes | None]], tail: bytes) -> None:
    ruling = control(5, mode="champion")
    rubbish = [*records, (STATE_KEY, SCHEMA.header + tail), (ruling.key, None)]
    log, refused = taken(*both(ruling), *rubbish)
    assert log.state == ruling
    assert len(refused) == len(rubbish)
