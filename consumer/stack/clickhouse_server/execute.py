"""One statement of one request, run on a connection: rows out, or rows in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, BinaryIO

from consumer.stack.clickhouse_server import sql
from consumer.stack.clickhouse_server.engine import set_all
from consumer.stack.clickhouse_server.errors import QueryError
from consumer.stack.clickhouse_server.inserts import Inserts

HEAD_BYTES = 256 * 1024
"""ClickHouse's own `max_query_size`: an INSERT's statement ends within it, its data may be of any size."""
MAX_STATEMENT_BYTES = 64 * 1024 * 1024
CHUNK_BYTES = 1024 * 1024
_inserts = Inserts()


@dataclass(frozen=True)
class Statement:
    """What a request carries: SQL alone, or the head of an INSERT and a stream of its data."""

    text: bytes
    keyword: str
    insert: sql.InsertHead | None
    data: Iterable[bytes]

    @classmethod
    def read(cls, query: bytes, body: BinaryIO) -> Statement:
        """The URL's query, if any, with the body put behind it, as ClickHouse reads them.

        Raises QueryError 62 when there is nothing to run, or when two statements came, and 307 when a
        statement that is no `INSERT … FORMAT X` with data is longer than 64 MiB.
        """
        head = query + b"\n" if query else b""
        head += _read_up_to(body, HEAD_BYTES)
        insert = sql.split_insert(head)
        if insert is not None:
            return cls(head, "INSERT", insert, chain([head[insert.data_start :]], _chunks(body)))
        statement = (head + _read_up_to(body, MAX_STATEMENT_BYTES)).strip()
        if len(statement) >= MAX_STATEMENT_BYTES:
            raise QueryError(
                307,
                "TOO_MANY_BYTES",
                "a statement is limited to 64 MiB: send rows as `INSERT … FORMAT X` and data",
            )
        keyword = sql.first_word(statement)
        if not keyword:
            raise QueryError(62, "SYNTAX_ERROR", "Syntax error: Empty query")
        if keyword != "INSERT" and sql.has_second_statement(statement):
            raise QueryError(62, "SYNTAX_ERROR", "Syntax error: Multi-statements are not allowed")
        return cls(statement, keyword, None, ())

    @property
    def leaves_state(self) -> bool:
        """Whether it is meant to be felt by the later requests of its session."""
        return self.keyword in ("SET", "USE") or sql.creates_temporary_table(self.text)


@dataclass
class Answer:
    """Rows encoded in `format`; `format` is None for a statement that answers with none."""

    format: str | None
    chunks: Iterable[bytes | memoryview] = ()
    summary: dict[str, str] = field(default_factory=dict)
    streamed: bool = False
    """The chunks are made while they are read, and reading one may raise QueryError."""


def execute(
    connection: Any, statement: Statement, parameters: dict[str, str], default_format: str, *, stream: bool
) -> Answer:
    """Run it; `stream` allows the rows to be made while they are sent. Raises QueryError."""
    if statement.insert is not None:
        set_all(connection, {f"param_{name}": value for name, value in parameters.items()})
        with _inserts.proved(connection):
            return _insert(connection, statement.insert, statement.data)
    fmt = sql.output_format(statement.text)
    try:
        if stream and sql.is_streamable(statement.keyword, fmt):
            return _stream(connection, statement.text, fmt, parameters)
        result = connection.query(statement.text, default_format, params=parameters)
    except RuntimeError as error:
        raise QueryError.of_engine(error) from None
    has_rows = sql.answers_with_rows(statement.keyword) or result.size()
    fmt = (fmt or default_format) if has_rows else None
    summary = _summary(
        result.elapsed(),
        read_rows=result.storage_rows_read(),
        read_bytes=result.storage_bytes_read(),
        written_rows=result.rows_written(),
        written_bytes=result.bytes_written(),
        result_rows=result.rows_read(),
        result_bytes=result.bytes_read(),
    )
    return Answer(fmt, [result.bytes()] if result.size() else [], summary)


def _insert(connection: Any, head: sql.InsertHead, data: Iterable[bytes]) -> Answer:
    try:
        inserter = connection.send_insert(head.statement, head.format)
    except RuntimeError as error:
        raise QueryError.of_engine(error) from None
    with inserter:  # left without finish(), nothing of it is kept
        # what fails to come in (a broken connection, bad compression) is not the engine's failure
        for chunk in data:
            if chunk:
                _push(inserter.append, chunk)
        result = _push(inserter.finish)
    rows, size = result.rows_written, result.bytes_written
    return Answer(None, summary=_summary(result.elapsed, written_rows=rows, written_bytes=size))


def _push(call: Any, *arguments: bytes) -> Any:
    try:
        return call(*arguments)
    except RuntimeError as error:
        raise QueryError.of_engine(error) from None


def _stream(connection: Any, statement: bytes, fmt: str | None, parameters: dict[str, str]) -> Answer:
    """The first block is awaited here, so that most failures still become an HTTP status."""
    blocks = connection.send_query(statement, fmt, params=parameters)
    first = next(blocks, None)

    def chunks() -> Iterator[bytes]:
        try:
            if first is not None:
                yield first.bytes()
            for block in blocks:
                yield block.bytes()
        except RuntimeError as error:
            raise QueryError.of_engine(error) from None
        finally:
            blocks.close()

    return Answer(fmt, chunks(), streamed=True)


def _summary(elapsed_seconds: float, **counts: int) -> dict[str, str]:
    names = ("read_rows", "read_bytes", "written_rows", "written_bytes", "result_rows", "result_bytes")
    return {name: str(counts.get(name, 0)) for name in names} | {"elapsed_ns": str(int(elapsed_seconds * 1e9))}


def _read_up_to(body: BinaryIO, limit: int) -> bytes:
    parts, left = [], limit
    while left and (part := body.read(min(left, CHUNK_BYTES))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _chunks(body: BinaryIO) -> Iterator[bytes]:
    while chunk := body.read(CHUNK_BYTES):
        yield chunk
