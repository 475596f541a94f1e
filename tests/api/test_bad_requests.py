"""What cannot be served: a problem document with the right status, nothing leaked, nothing hung."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from datetime import datetime
from urllib.parse import quote, urlsplit

import httpx
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError
from samples import examples, transaction
from served import Api, serving

from consumer.api import bodies, connection
from consumer.api.bodies import plain_transaction
from consumer.api.openapi import EXAMPLES, OUTCOME, TRANSACTION, shapes
from consumer.api.problems import Refused
from consumer.contracts import outcome as outcomes
from consumer.contracts.avro import Decoded
from consumer.contracts.transaction import Limits, columns_from_dicts, refuse_impossible
from consumer.errors import InvalidRecord
from consumer.services import clickhouse
from consumer.settings import Settings


def is_problem(answer: httpx.Response, status: int, name: str) -> dict[str, object]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told: dict[str, object] = answer.json()
    assert told["status"] == status
    assert told["type"] == f"urn:bnpl-shadow:problem:{name}"
    assert told["title"]
    assert told["detail"]
    return told


NAN = json.dumps(transaction()).replace("120.5", "NaN").encode()
CUT = json.dumps(transaction())[:-30].encode()


BODIES: list[tuple[object, int, str, str | None]] = [
    (b"", 400, "malformed", None),
    (b"{", 400, "malformed", None),
    (CUT, 400, "malformed", None),
    (b"\xff\xfe", 400, "malformed", None),
    (b"[" * 200_000, 400, "malformed", None),
    (b"null", 422, "invalid", "#"),
    (b"[]", 422, "invalid", "#"),
    (b'"text"', 422, "invalid", "#"),
    (NAN, 422, "invalid", "#/amount"),
    (transaction(amount="12.5"), 422, "invalid", "#/amount"),
    (transaction(amount=-1), 422, "invalid", "#/amount"),
    (transaction(amount=1e400), 422, "invalid", "#/amount"),
    (transaction(device_is_trusted=1), 422, "invalid", "#/device_is_trusted"),
    (transaction(installment_count=2.5), 422, "invalid", "#/installment_count"),
    (transaction(installment_count=10**30), 422, "invalid", "#/installment_count"),
    (transaction(customer_id=...), 422, "invalid", "#/customer_id"),
    (transaction(customer_id=None), 422, "invalid", "#/customer_id"),
    (transaction(transaction_id=""), 422, "invalid", "#/transaction_id"),
    (transaction(transaction_id="é" * 200), 422, "invalid", "#/transaction_id"),
    (transaction(risk_level="x" * 257), 422, "invalid", "#/risk_level"),
    (transaction(transaction_timestamp="yesterday"), 422, "invalid", "#/transaction_timestamp"),
    (transaction(transaction_timestamp=10**18), 422, "invalid", "#/transaction_timestamp"),
    (transaction(transaction_timestamp=int(time.time() * 1000) + 10**7), 422, "invalid", "#/transaction_timestamp"),
    (transaction(transaction_timestamp="1999-01-01"), 422, "invalid", "#/transaction_timestamp"),
    (transaction(will_default=True), 422, "invalid", "#/will_default"),
    (transaction(**{"a/b~c": 1}), 422, "invalid", "#/a~1b~0c"),
    ([transaction(), transaction(risk_score=1.5)], 422, "invalid", "#/1/risk_score"),
    ([transaction(), transaction(transaction_timestamp=0)], 422, "invalid", "#/1/transaction_timestamp"),
    ([transaction()] * 1001, 422, "invalid", "#"),
]


@pytest.mark.parametrize(
    ("body", "status", "name", "pointer"),
    BODIES,
    ids=[f"{at}-{pointer}" for at, (*_, pointer) in enumerate(BODIES)],  # a body holds the time of collection
)
@pytest.mark.parametrize("path", ["/v1/score", "/v1/decision"])
def test_a_body_that_cannot_be_used_is_refused_with_the_field_at_fault(
    api: Api, path: str, body: object, status: int, name: str, pointer: str | None
) -> None:
    told = is_problem(api.post(path, body, "score"), status, name)
    if path == "/v1/decision" and isinstance(body, list | bytes) and (body[:1] in (b"[",) or isinstance(body, list)):
        return  # a decision is of one
    errors = told.get("errors")
    assert (errors is None) == (pointer is None)
    if pointer is not None:
        assert isinstance(errors, list)
        assert [each["pointer"] for each in errors] == [pointer]
        assert "Traceback" not in str(told)


def test_every_fault_of_a_transaction_is_named_at_once(api: Api) -> None:
    told = is_problem(api.post("/v1/score", {"amount": "x", "nonsense": 1}, "score"), 422, "invalid")
    errors = told["errors"]
    assert isinstance(errors, list)
    required = {f"#/{each}" for each in EXAMPLES[TRANSACTION] if each != "amount"}
    assert {each["pointer"] for each in errors} == required | {"#/amount", "#/nonsense"}


LIMITS = Limits(300, 1825, 256)
SHAPES = shapes(LIMITS)
WILD = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.floats(), st.text(max_size=300),
    st.sampled_from(["", "2026-11-01T10:15:00Z", "2026-11-01", 10**13, 2**63, -1, 0.5, "x" * 256, "é" * 129]),
)  # fmt: skip
FIELDS = st.sampled_from(sorted({*EXAMPLES[TRANSACTION], "approval_propensity", "business_decision", "currency"}))


def as_number(value: object) -> object:
    """What JSON says with it: one kind of number, so that a whole one beyond a double's is as good as its double."""
    return float(value) if type(value) is int and abs(value) > 2**53 else value


@examples(300)
@example({"amount": 2**63})
@given(st.dictionaries(FIELDS, WILD, max_size=3))
def test_what_the_api_takes_is_what_the_contract_of_the_event_takes(changes: dict[str, object]) -> None:
    """Shape and columns together against the columns alone, which are what the services let in."""
    event = transaction() | {name: as_number(value) for name, value in changes.items()}
    try:
        batch = columns_from_dicts([event])
        good = not refuse_impossible(Decoded(batch, np.arange(1)), LIMITS).rejected
    except InvalidRecord:
        good = False
    good = good and not isinstance(event["transaction_timestamp"], float)
    body = json.dumps(transaction() | changes).encode()
    try:
        taken = SHAPES[TRANSACTION].one(body)
        checked = refuse_impossible(Decoded(columns_from_dicts([taken]), np.arange(1)), LIMITS)
        accepted = not checked.rejected
    except Refused:
        accepted = False
    assert plain_transaction(body, LIMITS) is None or accepted, "what is plain is good"
    if "currency" not in changes:  # scoring does not look at it; an event with a wrong one is no event
        assert accepted == good


STRANGE = {f"strange-{number}": 1 for number in range(50_000)}


@pytest.mark.parametrize("record", [STRANGE, transaction() | STRANGE, {}, 1])
@pytest.mark.parametrize("many", [False, True])
def test_a_hostile_body_costs_no_more_than_the_faults_that_are_named(
    monkeypatch: pytest.MonkeyPatch, record: object, many: bool
) -> None:
    """50,000 faults took seconds to name, and nobody else was answered meanwhile."""
    found, faults = [], bodies._faults

    def counting(error: ValidationError, *within: int) -> list[dict[str, str]]:
        found.append(error.error_count())
        return faults(error, *within)

    monkeypatch.setattr(bodies, "_faults", counting)
    large = isinstance(record, dict) and STRANGE.keys() <= record.keys()
    count = 3 if large else 1000  # the API reads 4 MB at the most
    body = json.dumps([record] * count if many else record).encode()
    with pytest.raises(Refused) as refused:
        SHAPES[TRANSACTION].one_or_many(body)
    assert refused.value.status == 422
    assert refused.value.errors
    assert sum(found) <= 200


def test_an_outcome_is_held_to_its_contract(api: Api) -> None:
    for changes, pointer in (({"defaulted": "yes"}, "#/defaulted"), ({"version": -1}, "#/version"), ({"x": 1}, "#/x")):
        told = is_problem(api.post("/v1/outcomes", EXAMPLES[OUTCOME] | changes, "outcomes"), 422, "invalid")
        assert [each["pointer"] for each in told["errors"]] == [pointer]  # type: ignore[attr-defined]
    assert {each["name"] for each in outcomes.FIELDS} >= EXAMPLES[OUTCOME].keys()


HOSTILE = [
    "' OR 1=1 --",
    "x'; DROP TABLE shadow_scores; --",
    "{id:String}",
    "%27%20UNION%20SELECT%201",
    "../../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "a\x00b",
    "tab\there\nline\\back'quote\"",
    "\ufffd\U0001f4a9",
    "x" * 256,
    "$(reboot)",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_an_id_is_only_ever_a_value(api: Api, name: str) -> None:
    answer = api.get(f"/v1/predictions/{quote(name, safe='')}", "read")
    is_problem(answer, 404, "not-found")


def test_an_id_with_anything_in_it_is_found(api: Api) -> None:
    name = "a/b\\c'd\te%f?g#é"
    with clickhouse.connect(api.settings) as client:
        row = client.query("SELECT * FROM shadow_scores LIMIT 1")
        values = dict(zip(row.column_names, row.result_rows[0], strict=True))
        values |= {"transaction_id": name, "event_time": datetime(2020, 1, 1)}  # noqa: DTZ001 as the client takes it
        client.insert("shadow_scores", [list(values.values())], column_names=list(values))
        try:
            answer = api.get(f"/v1/predictions/{quote(name, safe='')}", "read")
            assert [each["transaction_id"] for each in answer.json()["predictions"]] == [name]
        finally:
            client.command("ALTER TABLE shadow_scores DROP PARTITION 202001")


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("/v1/predictions?limit=0", "limit"),
        ("/v1/predictions?limit=1001", "limit"),
        ("/v1/predictions?limit=many", "limit"),
        ("/v1/predictions?since=yesterday", "since"),
        ("/v1/predictions?since=2026-07-01&until=2026-06-01", "until"),
        ("/v1/predictions?as_of=9999-01-01", "as_of"),
        ("/v1/predictions?as_of=1' OR 1=1", "as_of"),
        ("/v1/vintages?as_of=2190-01-01", "as_of"),
        ("/v1/predictions?cursor=rubbish", "cursor"),
        ("/v1/predictions?cursor=", "cursor"),
        ("/v1/predictions?limit=5&limit=6", "limit"),
        ("/v1/predictions?asof=2026-11-01", "asof"),
        ("/v1/models?colour=blue", "colour"),
        ("/v1/predictions?cursor=" + "A" * 33, "cursor"),
        ("/v1/predictions/" + "x" * 257, "transaction_id"),
        ("/v1/evaluation?label=nonsense", "label"),
        ("/v1/vintages?label=d28';--", "label"),
        ("/v1/drift?days=0", "days"),
    ],
)
def test_a_parameter_that_cannot_be_used_is_named(api: Api, path: str, parameter: str) -> None:
    told = is_problem(api.get(path, "read"), 422, "invalid")
    assert [each["parameter"] for each in told["errors"]] == [parameter]  # type: ignore[attr-defined]


def test_what_is_not_there_and_what_cannot_be_done(api: Api) -> None:
    is_problem(api.get("/v1/nonsense"), 404, "not-found")
    is_problem(api.post("/echo", {}), 404, "not-found")  # a bench has it
    is_problem(api.get("/docs/../../pyproject.toml"), 404, "not-found")
    is_problem(api.get("/docs/%2e%2e%2fserved.py"), 404, "not-found")
    answer = api.get("/v1/score")
    is_problem(answer, 405, "method")
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_a_body_that_is_not_said_to_be_json_is_not_read(api: Api, kind: str) -> None:
    """Which a web page of another site cannot say without asking first."""
    is_problem(api.post("/v1/score", transaction(), headers={"Content-Type": kind}), 415, "media-type")
    is_problem(api.post("/v1/score", transaction(), headers={"Content-Encoding": "gzip"}), 415, "media-type")


def test_no_other_site_is_let_in_by_a_browser(api: Api) -> None:
    with api.client(None) as client:
        origin = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        asked = client.options("/v1/score", headers=origin)
    assert asked.status_code == 405
    assert "access-control-allow-origin" not in asked.headers


# who asks


@pytest.mark.parametrize(
    ("path", "scope"),
    [
        ("/v1/predictions", "read"), ("/v1/predictions/t", "read"), ("/v1/models", "read"), ("/v1/evaluation", "read"),
        ("/v1/vintages", "read"), ("/v1/drift", "read"), ("/v1/lag", "read"), ("/metrics", "read"),
        ("/v1/score", "score"), ("/v1/decision", "score"), ("/v1/outcomes", "outcomes"),
    ],
)  # fmt: skip
def test_a_token_opens_what_its_scope_says_and_nothing_else(api: Api, path: str, scope: str) -> None:
    writes = scope in ("score", "outcomes")
    for name in (None, "read", "score", "outcomes", "admin"):
        answer = api.post(path, b"{", name) if writes else api.get(path, name)
        if name is None:
            is_problem(answer, 401, "unauthenticated")
            assert answer.headers["www-authenticate"] == "Bearer"
        elif name in (scope, "admin"):
            assert answer.status_code in ((400,) if writes else (200, 404))
        else:
            is_problem(answer, 403, "out-of-scope")
            assert f'scope="{scope}"' in answer.headers["www-authenticate"]


def test_every_route_is_behind_a_scope_but_for_health_and_the_description(api: Api) -> None:
    described = api.get("/openapi.json", None).json()
    operations = [(path, each) for path, found in described["paths"].items() for each in found.values()]
    assert len(operations) == 13
    assert {path for path, each in operations if not each.get("security")} == {"/livez", "/readyz"}


@pytest.mark.parametrize("given", ["Bearer", "Bearer nonsense", "Basic cmVhZA==", "bearer \xe9", "nonsense"])
def test_a_wrong_token_is_refused(api: Api, given: str) -> None:
    with api.client(None) as client:
        answer = client.get("/v1/models", headers={"Authorization": given.encode("latin-1")})
    is_problem(answer, 401, "unauthenticated")
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_a_token_is_known_by_its_digest_alone(api: Api) -> None:
    assert api.settings.api_tokens_file
    kept = api.settings.api_tokens_file.read_text()
    assert not any(token in kept for token in api.tokens.values())
    with api.client(None) as client:
        digest = json.loads(kept)["tokens"][0]["sha256"]
        answer = client.get("/v1/models", headers={"Authorization": f"Bearer {digest}"})
    is_problem(answer, 401, "unauthenticated")


# how much, how often, how slowly


def sent_raw(api: Api, head: str, chunks: Iterator[bytes]) -> tuple[int, bytes]:
    """The first bytes of an answer, and how many were sent by when it came."""
    parts = urlsplit(api.url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20) as wire:
        own = f"Host: x\r\nContent-Type: application/json\r\nAuthorization: Bearer {api.tokens['score']}\r\n"
        wire.sendall(f"POST /v1/score HTTP/1.1\r\n{own}{head}\r\n".encode())
        wire.settimeout(0.01)
        sent = 0
        for chunk in chunks:
            try:
                return sent, wire.recv(4096)
            except TimeoutError:
                wire.settimeout(20)
                wire.sendall(chunk)
                sent += len(chunk)
                wire.settimeout(0.001)
        wire.settimeout(20)
        return sent, wire.recv(4096)


def test_a_body_of_100_mb_is_refused_before_it_is_read(api: Api) -> None:
    sent, answer = sent_raw(api, f"Content-Length: {100 * 2**20}\r\n", iter([b"x" * 1000] * 100))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"problem:too-large" in answer
    assert sent < 100_000


def test_a_body_without_an_end_is_refused_when_it_is_too_large(api: Api) -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    most = api.settings.api_max_body_bytes
    sent, answer = sent_raw(api, "Transfer-Encoding: chunked\r\n", iter([chunk] * 1600))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert sent < most + 20 * 2**20


def told_raw(api: Api, sent: bytes) -> bytes:
    """All of the answer to bytes as they are, to the end of the connection."""
    parts = urlsplit(api.url)
    told = b""
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20) as wire:
        wire.sendall(sent)
        while more := wire.recv(65_536):
            told += more
    return told


GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


def too_long(begun: bytes, more: bytes) -> bytes:
    """One byte more than a head may have: the answer comes when all is read."""
    return (begun + more * connection.MOST_HEAD_BYTES)[: connection.MOST_HEAD_BYTES + 1]


@pytest.mark.parametrize(
    ("sent", "status", "name"),
    [
        (too_long(GET + b"X: ", b"x"), 431, "head-too-large"),
        (too_long(GET, b"X: y\r\n"), 431, "head-too-large"),
        (too_long(b"GET /", b"x"), 431, "head-too-large"),
        (b"nonsense\r\n\r\n", 400, "malformed"),
        (b"GET /v1/predictions/\xff HTTP/1.1\r\n\r\n", 400, "malformed"),
        (too_long(POST + b"0\r\n", b"X: y\r\n"), 431, "head-too-large"),
    ],
    ids=["one header", "many headers", "path", "no HTTP", "no ASCII", "trailers"],
)
def test_a_head_without_an_end_or_none_of_http_is_refused(api: Api, sent: bytes, status: int, name: str) -> None:
    told = told_raw(api, sent)
    head, _, body = told.rpartition(b"HTTP/1.1 ")[2].partition(b"\r\n\r\n")
    assert head.startswith(str(status).encode())
    assert json.loads(body)["type"].endswith(name)
    assert api.get("/livez", None).status_code == 200


def test_a_head_that_does_not_come_ends_the_connection(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.3)
    for begun in (b"", GET, GET + b"\r\n" + GET):
        told = told_raw(api, begun)
        assert told.count(b"HTTP/1.1 200") == begun.count(b"\r\n\r\n")


def test_line_breaks_after_an_answer_keep_no_connection(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.3)
    parts = urlsplit(api.url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20) as wire:
        for _ in range(2):  # another request may follow them
            wire.sendall(GET + b"\r\n")
            told = b""
            while not told.endswith(b"}"):
                told += wire.recv(65_536)
            wire.sendall(b"\r\n")
        assert wire.recv(1) == b""


def test_a_large_body_in_small_pieces_is_read(api: Api) -> None:
    body = json.dumps([transaction()] * 900).encode()
    with api.client("score") as client:
        answer = client.post(
            "/v1/score",
            content=(body[at : at + 100] for at in range(0, len(body), 100)),
            headers={"Content-Type": "application/json"},
        )
    assert (answer.status_code, len(answer.json())) == (200, 900)


def test_without_tokens_this_machine_alone_is_served_and_not_too_often(history: Settings) -> None:
    alone = history.model_copy(update={"api_tokens_file": None, "api_rate_limit": "5/hour"})
    with serving(alone) as api:
        is_problem(api.get("/v1/models", None, headers={"Host": "evil.example"}), 403, "foreign-host")
        codes = [api.get("/v1/models", None).status_code for _ in range(6)]
        assert codes == [200] * 5 + [429]
        answer = api.get("/v1/models", None)
        is_problem(answer, 429, "too-many")
        assert 0 < int(answer.headers["retry-after"]) <= 3600
        assert api.get("/livez", None).status_code == 200
