"""The endpoint itself: many clients at once, connections that go on, data that outlives its process."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import clickhouse_connect
import pyarrow as pa
import pytest
import urllib3
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from consumer.clock import Deadline
from consumer.stack.clickhouse import ClickHouse
from consumer.stack.local import LocalStack
from consumer.stack.part import free_port, last_lines


@pytest.fixture
def http(stack: LocalStack) -> Iterator[urllib3.HTTPConnectionPool]:
    with urllib3.connection_from_url(stack.clickhouse.address, maxsize=1, timeout=20, retries=False) as pool:
        yield pool


def test_it_answers_pings(http: urllib3.HTTPConnectionPool) -> None:
    assert http.request("GET", "/ping").data == b"Ok.\n"
    assert http.request("GET", "/").data == b"Ok.\n"


def test_the_headers_of_an_answer(http: urllib3.HTTPConnectionPool) -> None:
    answer = http.request("POST", "/?query_id=mine&default_format=CSV", body=b"SELECT 'a', 1")
    assert answer.data == b'"a",1\n'
    assert answer.headers["X-ClickHouse-Query-Id"] == "mine"
    assert answer.headers["X-ClickHouse-Format"] == "CSV"
    assert answer.headers["X-ClickHouse-Timezone"] == "UTC"
    assert '"result_rows": "1"' in answer.headers["X-ClickHouse-Summary"]


@pytest.mark.parametrize(
    ("path", "headers", "body", "status", "code"),
    [
        ("/", {}, b"", 400, "62"),
        ("/?query=SELECT+1+FROM+nothere", {}, b"", 404, "60"),
        ("/?no_such_setting=1", {}, b"SELECT 1", 404, "115"),
        ("/?session_id=s&session_check=1", {}, b"SELECT 1", 404, "372"),
        ("/?decompress=1", {}, b"SELECT 1", 501, "48"),
        ("/nowhere", {}, b"SELECT 1", 404, "1001"),
        ("/", {"Content-Encoding": "br"}, b"SELECT 1", 500, "89"),
        ("/", {"Content-Encoding": "lz4"}, b"this is not lz4", 500, "271"),
        ("/", {"X-ClickHouse-User": "someone"}, b"SELECT 1", 403, "516"),
        ("/", {"Origin": "https://example.com"}, b"SELECT 1", 403, "497"),
    ],
)
def test_a_refusal_has_a_status_and_a_code_and_keeps_the_connection(
    http: urllib3.HTTPConnectionPool, path: str, headers: dict[str, str], body: bytes, status: int, code: str
) -> None:
    answer = http.request("POST", path, headers=headers, body=body)
    assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (status, code)
    assert answer.data.startswith(f"Code: {code}. DB::Exception: ".encode())
    assert http.request("POST", "/", body=b"SELECT 1").data == b"1\n"
    assert http.num_connections == 1


def test_a_get_cannot_write(http: urllib3.HTTPConnectionPool) -> None:
    answer = http.request("GET", "/", fields={"query": "CREATE TABLE by_get (a UInt8) ENGINE = Memory"})
    assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (500, "164")


def test_an_insert_may_come_in_chunks_behind_a_statement_in_the_url(
    http: urllib3.HTTPConnectionPool, clickhouse: Client
) -> None:
    clickhouse.command("CREATE TABLE chunked (a UInt64) ENGINE = MergeTree ORDER BY a")
    fields = f"database={clickhouse.database}&query=INSERT+INTO+chunked+FORMAT+CSV"
    lines = (b"%d\n" % i for i in range(1000))
    answer = http.request("POST", f"/?{fields}", body=lines, chunked=True)
    assert answer.status == 200
    assert '"written_rows": "1000"' in answer.headers["X-ClickHouse-Summary"]
    assert clickhouse.command("SELECT sum(a) FROM chunked") == sum(range(1000))


def test_a_session_serves_one_request_at_a_time(http: urllib3.HTTPConnectionPool, clickhouse: Client) -> None:
    slow = "SELECT sum(sipHash64(number)) AS of_the_session FROM numbers(100000000000)"
    enough = {"max_execution_time": 2, "timeout_overflow_mode": "break"}
    session = clickhouse.get_client_setting("session_id")
    clickhouse.command("SET max_threads = 1")  # from here on there is a session
    running = threading.Thread(target=clickhouse.raw_query, args=(slow,), kwargs={"settings": enough})
    running.start()
    wait_for_query(http, "%of_the_session%")
    answer = http.request("POST", f"/?session_id={session}", body=b"SELECT 1")
    running.join()
    assert answer.headers["X-ClickHouse-Exception-Code"] == "373"


def wait_for_query(http: urllib3.HTTPConnectionPool, pattern: str) -> None:
    running = f"SELECT count() FROM system.processes WHERE query LIKE '{pattern}' AND query NOT LIKE '%processes%'"
    deadline = Deadline.after(10)
    while http.request("POST", "/", body=running.encode()).data != b"1\n":
        assert not deadline.passed


def test_inserts_go_on_while_a_slow_query_runs(clickhouse: Client, clickhouse_database: str) -> None:
    clickhouse.command("CREATE TABLE busy (a UInt64) ENGINE = MergeTree ORDER BY a")
    slow_seconds = 2

    def slow() -> None:
        with clickhouse_connect.get_client(dsn=clickhouse_database) as other:
            other.command(
                "SELECT sum(sipHash64(number)) FROM numbers(100000000000)",
                settings={
                    "max_execution_time": slow_seconds,
                    "timeout_overflow_mode": "break",
                    "max_threads": 1,
                },
            )

    running = threading.Thread(target=slow)
    running.start()
    longest, inserts = 0.0, 0
    while running.is_alive():
        began = time.monotonic()
        clickhouse.raw_insert("busy", ["a"], b"1\n", fmt="CSV")
        longest = max(longest, time.monotonic() - began)
        inserts += 1
    assert clickhouse.command("SELECT count() FROM busy") == inserts
    assert inserts > 5
    assert longest < slow_seconds


def _insert_from_another_process(database: str, first: int) -> None:
    with clickhouse_connect.get_client(dsn=database) as client:
        for block in range(5):
            ids = pa.array(range(first + block * 1000, first + (block + 1) * 1000), pa.uint64())
            client.insert_arrow("shared", pa.table({"a": ids}))


def test_processes_write_side_by_side(clickhouse: Client, clickhouse_database: str) -> None:
    clickhouse.command("CREATE TABLE shared (a UInt64) ENGINE = MergeTree ORDER BY a")
    spawn = multiprocessing.get_context("spawn")
    writers = [
        spawn.Process(target=_insert_from_another_process, args=(clickhouse_database, n * 5000)) for n in range(3)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert clickhouse.query("SELECT count(), uniqExact(a) FROM shared").result_rows == [(15_000, 15_000)]


def test_no_acknowledged_row_is_lost_when_it_is_killed(own_server: ClickHouse) -> None:
    with clickhouse_connect.get_client(dsn=own_server.address) as client:
        client.command("CREATE TABLE kept (block UInt64, n UInt64) ENGINE = MergeTree ORDER BY (block, n)")
    for round_ in range(3):
        acknowledged: list[int] = []
        writer = threading.Thread(target=_insert_until_refused, args=(own_server.address, round_, acknowledged))
        writer.start()
        deadline = Deadline.after(20)
        while len(acknowledged) < 10 and not deadline.passed:
            time.sleep(0.01)
        own_server.kill()
        writer.join(20)
        own_server.start()
        with clickhouse_connect.get_client(dsn=own_server.address) as client:
            stored = dict(client.query("SELECT block, count() FROM kept GROUP BY block").result_rows)
        assert len(acknowledged) >= 10
        assert {block: stored.get(block) for block in acknowledged} == dict.fromkeys(acknowledged, 1000)


def _insert_until_refused(address: str, round_: int, acknowledged: list[int]) -> None:
    with clickhouse_connect.get_client(dsn=address) as client:
        for i in range(100_000):
            block = round_ * 1_000_000 + i
            rows = pa.table({"block": pa.array([block] * 1000, pa.uint64()), "n": pa.array(range(1000), pa.uint64())})
            try:
                client.insert_arrow("kept", rows)
            except ClickHouseError:
                return
            acknowledged.append(block)


def test_sigterm_lets_a_running_insert_end_and_keeps_the_data(own_server: ClickHouse) -> None:
    with clickhouse_connect.get_client(dsn=own_server.address) as client:
        client.command("CREATE TABLE kept (a UInt64) ENGINE = MergeTree ORDER BY a")
        insert = "INSERT INTO kept SELECT number FROM numbers(3) WHERE sleepEachRow(0.3) = 0"
        running = threading.Thread(target=client.command, args=(insert,))
        running.start()
        with urllib3.connection_from_url(own_server.address) as http:
            wait_for_query(http, "INSERT%")
        process = own_server.process
        assert process is not None
        own_server.request_stop()
        assert process.wait(15) == 0
        running.join(5)
    own_server.start()
    with clickhouse_connect.get_client(dsn=own_server.address) as client:
        assert client.command("SELECT count() FROM kept") == 3


HANGING = """
import sys, time
from consumer.stack.clickhouse_server import __main__, engine
engine.Engine.close = lambda self: time.sleep(600)
__main__.main(sys.argv[1:])
"""


def test_an_engine_that_does_not_close_holds_no_process(tmp_path: Path) -> None:
    number = free_port()
    command = [sys.executable, "-c", HANGING, "--data", str(tmp_path), "--port", str(number)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout is not None
        assert '"serving"' in server.stdout.readline()
        server.terminate()
        assert server.wait(14) == 0, "sooner than whoever stops it loses patience"
        assert '"engine_closed": false' in server.stdout.read()


def test_no_statement_and_no_value_reaches_the_log(own_server: ClickHouse) -> None:
    with clickhouse_connect.get_client(dsn=own_server.address) as client:
        client.query("SELECT {who:String}", parameters={"who": "customer-4711"})
        with pytest.raises(ClickHouseError):
            client.query("SELECT toUInt8('customer-4711')")
    own_server.stop()
    told = last_lines(own_server.log, 1000)
    assert any("query_failed" in line for line in told)
    assert not any("4711" in line or "SELECT" in line for line in told)


def test_the_host_time_zone_does_not_matter(tmp_path: Path) -> None:
    number = free_port()
    command = [
        sys.executable,
        "-m",
        "consumer.stack.clickhouse_server",
        "--data",
        str(tmp_path),
        "--port",
        str(number),
    ]
    with subprocess.Popen(command, env={"TZ": "Asia/Tokyo", "PATH": ""}, stderr=subprocess.DEVNULL) as server:
        deadline = Deadline.after(20)
        with urllib3.connection_from_url(f"http://127.0.0.1:{number}", retries=False) as pool:
            while True:
                try:
                    told = pool.request("GET", "/?query=SELECT+timezone()", timeout=5).data
                    break
                except urllib3.exceptions.HTTPError:
                    assert not deadline.passed
                    time.sleep(0.05)
        server.send_signal(signal.SIGTERM)
    assert told == b"UTC\n"


def test_an_insert_that_the_engine_could_not_store_is_not_acknowledged(clickhouse_alone: Client) -> None:
    """chDB says "stored" of a streamed insert that failed at its end: nothing may believe it."""
    rows = pa.table({"n": [1, 2, 3]})
    clickhouse_alone.command("CREATE TABLE full (n Int64) ENGINE = MergeTree ORDER BY n")
    clickhouse_alone.command("ALTER TABLE full MODIFY SETTING min_free_disk_bytes_to_perform_insert = 1000000000000000")
    with pytest.raises(ClickHouseError, match="NOT_ENOUGH_SPACE") as refused:
        clickhouse_alone.insert_arrow("full", rows)
    assert refused.value.code == 243
    assert clickhouse_alone.query("SELECT count() FROM full").result_rows == [(0,)]
    clickhouse_alone.command("ALTER TABLE full RESET SETTING min_free_disk_bytes_to_perform_insert")
    clickhouse_alone.insert_arrow("full", rows)
    assert clickhouse_alone.query("SELECT count() FROM full").result_rows == [(3,)]
    clickhouse_alone.command("CREATE TABLE picky (n Int64, CONSTRAINT small CHECK n < 3) ENGINE = MergeTree ORDER BY n")
    with pytest.raises(ClickHouseError, match="VIOLATED_CONSTRAINT"):
        clickhouse_alone.insert_arrow("picky", rows)
