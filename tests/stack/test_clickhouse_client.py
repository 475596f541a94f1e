"""`clickhouse-connect`, unchanged, against the local endpoint: what works with a server must work here."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import clickhouse_connect
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError

START = datetime(2026, 6, 1, tzinfo=UTC)
COLUMNS = ["id", "name", "kind", "score", "at", "reasons"]


@pytest.fixture
def table(clickhouse: Client) -> str:
    return make_table(clickhouse)


def make_table(client: Client) -> str:
    client.command(
        "CREATE TABLE events (id UInt64, name String, kind LowCardinality(String), score Nullable(Float64), "
        "at DateTime64(3, 'UTC'), reasons Array(String)) ENGINE = MergeTree ORDER BY id "
        "SETTINGS non_replicated_deduplication_window = 100"
    )
    return "events"


def rows(count: int, start: int = 0) -> list[list[Any]]:
    return [
        [
            i,
            f"naïve '{i}'\t\\",
            "approve",
            None if i % 2 else i / 7,
            START + timedelta(milliseconds=i),
            ["a", "b'"],
        ]
        for i in range(start, start + count)
    ]


def as_read(given: list[list[Any]]) -> list[tuple[Any, ...]]:
    """The client gives UTC times without their zone."""
    return [tuple(v.replace(tzinfo=None) if isinstance(v, datetime) else v for v in row) for row in given]


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip"])
def test_rows_come_back_as_they_went_in(clickhouse_database: str, table: str, compress: bool | str) -> None:
    given = rows(30_000)  # several blocks
    with clickhouse_connect.get_client(dsn=clickhouse_database, compress=compress) as client:
        summary = client.insert(table, given, column_names=COLUMNS)
        read = client.query(f"SELECT * FROM {table} ORDER BY id")
    assert summary.written_rows == 30_000
    assert read.result_rows == as_read(given)


def test_server_side_parameters(clickhouse: Client) -> None:
    values = {
        "n": 7,
        "text": "tab\there \\ \n 'q' ü",
        "many": ["a'b", "c\n"],
        "at": START,
    }
    read = clickhouse.query("SELECT {n:UInt64}, {text:String}, {many:Array(String)}, {at:DateTime}", parameters=values)
    assert read.result_rows == as_read([list(values.values())])


def test_parameters_too_long_for_a_url_travel_as_a_form(clickhouse: Client) -> None:
    many = list(range(100_000))
    assert clickhouse.query("SELECT {many:Array(UInt64)}", parameters={"many": many}).result_rows == [(many,)]


def test_data_frames(clickhouse: Client, table: str) -> None:
    given = pd.DataFrame(
        {
            "id": np.arange(500, dtype="uint64"),
            "name": [f"n{i}" for i in range(500)],
            "score": np.linspace(0, 1, 500),
        }
    )
    assert clickhouse.insert_df(table, given).written_rows == 500
    read = clickhouse.query_df(f"SELECT id, name, score FROM {table} ORDER BY id")
    assert read["id"].tolist() == given["id"].tolist()
    assert read["name"].tolist() == given["name"].tolist()
    assert read["score"].tolist() == given["score"].tolist()


def test_arrow_tables(clickhouse: Client, table: str) -> None:
    given = pa.table({"id": pa.array(range(70_000), pa.uint64()), "name": [f"n{i}" for i in range(70_000)]})
    assert clickhouse.insert_arrow(table, given).written_rows == 70_000
    assert (
        clickhouse.query_arrow(f"SELECT id, name FROM {table} ORDER BY id", use_strings=True).to_pydict()
        == given.to_pydict()
    )


def test_numpy_arrays(clickhouse: Client) -> None:
    read = clickhouse.query_np("SELECT number AS a, number / 2 AS b FROM numbers(4)")
    assert read["a"].tolist() == [0, 1, 2, 3]
    assert read["b"].tolist() == [0.0, 0.5, 1.0, 1.5]


@pytest.mark.parametrize("stream", ["query_row_block_stream", "query_df_stream", "query_arrow_stream"])
def test_streams(clickhouse: Client, stream: str) -> None:
    blocks = 0
    seen = 0
    with getattr(clickhouse, stream)("SELECT number, toString(number) FROM numbers(200000)") as source:
        for block in source:
            blocks += 1
            seen += len(block)
    assert seen == 200_000
    assert blocks > 1


def test_a_stream_left_early_leaves_the_client_usable(clickhouse: Client) -> None:
    with clickhouse.query_row_block_stream("SELECT number FROM numbers(50000000)") as source:
        next(iter(source))
    assert clickhouse.command("SELECT 1") == 1


def test_raw_bytes_both_ways(clickhouse: Client, table: str) -> None:
    assert clickhouse.raw_insert(table, ["id", "name"], b"1,x\n2,y\n", fmt="CSV").written_rows == 2
    read = clickhouse.raw_query(f"SELECT id, name FROM {table} ORDER BY id", fmt="JSONEachRow")
    assert read == b'{"id":1,"name":"x"}\n{"id":2,"name":"y"}\n'


def test_commands(clickhouse: Client, table: str) -> None:
    assert clickhouse.command(f"EXISTS {table}") == 1
    assert clickhouse.command(f"SELECT id FROM {table}") == ""  # rows are what it answers with: none
    clickhouse.command(f"INSERT INTO {table} (id, name) VALUES (1, 'a;b'), (2, 'FORMAT x')")
    clickhouse.command(f"INSERT INTO {table} (id) FORMAT CSV", data="3\n4\n")
    clickhouse.command(f"INSERT INTO {table} SELECT * FROM {table}")
    assert clickhouse.command(f"SELECT count() FROM {table}") == 8


def test_the_columns_of_no_rows(clickhouse: Client, table: str) -> None:
    assert list(clickhouse.query(f"SELECT * FROM {table} LIMIT 0").column_names) == COLUMNS


def test_a_repeated_token_is_acknowledged_and_stored_once(clickhouse: Client, table: str) -> None:
    for _ in range(2):
        clickhouse.insert(
            table, rows(100), column_names=COLUMNS, settings={"insert_deduplication_token": "offsets-0-99"}
        )
    assert clickhouse.command(f"SELECT count() FROM {table}") == 100


def test_a_setting_lasts_for_its_request(clickhouse: Client) -> None:
    asked = "SELECT getSetting('max_threads')"
    before = clickhouse.command(asked)
    assert clickhouse.command(asked, settings={"max_threads": 17}) == 17
    assert clickhouse.command(asked) == before


def test_a_session_keeps_settings_and_temporary_tables(clickhouse: Client, clickhouse_database: str) -> None:
    clickhouse.command("SET max_threads = 19")
    clickhouse.command("CREATE TEMPORARY TABLE mine (a UInt8)")
    clickhouse.insert("mine", [[1], [2]], column_names=["a"])
    assert clickhouse.command("SELECT getSetting('max_threads')", settings={"max_threads": 3}) == 3
    assert clickhouse.command("SELECT getSetting('max_threads')") == 19
    assert clickhouse.command("SELECT sum(a) FROM mine") == 3
    with (
        clickhouse_connect.get_client(dsn=clickhouse_database) as other,
        pytest.raises(DatabaseError, match="UNKNOWN_TABLE"),
    ):
        other.command("SELECT sum(a) FROM mine")


@pytest.mark.parametrize(
    ("statement", "settings", "code", "name"),
    [
        ("SELECT * FROM nothere", {}, 60, "UNKNOWN_TABLE"),
        ("SELECT nothere", {}, 47, "UNKNOWN_IDENTIFIER"),
        ("SELEC 1 1", {}, 62, "SYNTAX_ERROR"),
        ("SELECT 1; SELECT 2", {}, 62, "SYNTAX_ERROR"),
        ("SELECT 1", {"max_threads": "many"}, 27, "CANNOT_PARSE_INPUT_ASSERTION_FAILED"),
        (
            "SELECT sum(sipHash64(number)) FROM numbers(1000000000000)",
            {"max_execution_time": "1"},
            159,
            "TIMEOUT_EXCEEDED",
        ),
    ],
)
def test_errors_have_clickhouse_code_and_name(
    clickhouse: Client, statement: str, settings: dict[str, str], code: int, name: str
) -> None:
    with pytest.raises(DatabaseError) as caught:
        clickhouse.query(statement, settings=settings)
    assert (caught.value.code, caught.value.name) == (code, name)
    assert clickhouse.command("SELECT 1") == 1  # the connection goes on


def test_an_insert_that_fails_keeps_nothing(clickhouse_alone: Client) -> None:
    table = make_table(clickhouse_alone)
    bad = b"1\n" * 200_000 + b"bad\n" + b"1\n" * 2_000_000  # refused while the client still sends
    with pytest.raises(DatabaseError) as caught:
        clickhouse_alone.raw_insert(table, ["id"], bad, fmt="CSV")
    assert caught.value.name is not None
    assert clickhouse_alone.command(f"SELECT count() FROM {table}") == 0


def test_an_insert_into_no_table(clickhouse_alone: Client) -> None:
    with pytest.raises(DatabaseError) as caught:
        clickhouse_alone.raw_insert("nothere", ["a"], b"1\n", fmt="CSV")
    assert (caught.value.code, caught.value.name) == (60, "UNKNOWN_TABLE")


def test_a_failure_in_the_middle_of_a_stream_is_told(clickhouse: Client) -> None:
    late = "SELECT throwIf(number = 400000), number FROM numbers(500000)"
    seen = 0
    with (
        pytest.raises(StreamFailureError, match="FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"),
        clickhouse.query_row_block_stream(late, settings={"max_block_size": 10_000}) as source,
    ):
        for block in source:
            seen += len(block)
    assert 0 < seen < 500_000


def test_times_are_utc_whatever_the_host_says(clickhouse: Client) -> None:
    assert clickhouse.command("SELECT timezone()") == "UTC"
    assert str(clickhouse.server_tz) == "UTC"


def test_only_the_default_user_is_known(clickhouse_database: str) -> None:
    with clickhouse_connect.get_client(dsn=clickhouse_database, username="default") as client:
        assert client.ping()
    with pytest.raises(DatabaseError) as caught:
        clickhouse_connect.get_client(dsn=clickhouse_database, username="someone")
    assert caught.value.code == 516
