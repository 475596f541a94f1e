"""ClickHouse's HTTP interface: what a request asks for, how bodies travel (chunks, compression, forms)."""

from __future__ import annotations

import base64
import gzip
import io
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from typing import Any, BinaryIO, cast
from urllib.parse import parse_qsl, urlsplit

import lz4.frame

from consumer.stack.clickhouse_server.engine import Context
from consumer.stack.clickhouse_server.errors import QueryError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_FORM_BYTES = 64 * 1024 * 1024
MAX_LINE_BYTES = 64 * 1024
_TRANSPORT = {
    "query", "query_id", "database", "default_format", "session_id", "session_timeout", "session_check",
    "user", "password", "quota_key", "role", "compress", "decompress", "wait_end_of_query", "buffer_size",
    "client_protocol_version", "stacktrace", "enable_http_compression", "http_zlib_compression_level",
    "send_progress_in_http_headers", "http_headers_progress_interval_ms",
    "cancel_http_readonly_queries_on_client_close",
}  # fmt: skip
"""URL parameters that speak to the HTTP interface itself; every other one is a setting or a `param_…`."""


@dataclass(frozen=True)
class Request:
    """One HTTP request, read as far as its statement's stream."""

    query: bytes
    body: BinaryIO
    context: Context
    parameters: dict[str, str]
    """Values of `{name:Type}` in the statement, by name."""
    query_id: str | None
    default_format: str
    encoding: str | None
    """How the answer is to be compressed."""
    stream: bool
    """Whether the answer may begin before the statement has ended."""


def read_request(target: str, headers: Message, stream: BinaryIO, *, read_only: bool) -> Request:
    """Raises QueryError for what the interface itself refuses: a user, a compression, a malformed body."""
    parameters = dict(parse_qsl(urlsplit(target).query, keep_blank_values=True))
    body = _content(headers, stream)
    if headers.get_content_type() == "multipart/form-data":
        parameters |= _form(headers, body)
        body = io.BytesIO()
    _check_user(headers, parameters)
    if parameters.get("decompress") == "1" or parameters.get("compress") == "1":
        raise QueryError(
            48,
            "NOT_IMPLEMENTED",
            "ClickHouse's block compression is not supported here: use Content-Encoding (lz4, zstd, gzip)",
        )
    settings = {
        name: value for name, value in parameters.items() if name not in _TRANSPORT and not name.startswith("param_")
    }
    if read_only:
        settings["readonly"] = "2"
    return Request(
        query=parameters.get("query", "").encode("utf-8", "surrogateescape"),
        body=body,
        context=Context(
            settings=settings,
            database=parameters.get("database") or headers.get("X-ClickHouse-Database"),
            session=parameters.get("session_id"),
            session_seconds=float(parameters.get("session_timeout", 60)),
            session_must_exist=parameters.get("session_check") == "1",
        ),
        parameters={name[6:]: value for name, value in parameters.items() if name.startswith("param_")},
        query_id=parameters.get("query_id"),
        default_format=parameters.get("default_format") or headers.get("X-ClickHouse-Format") or "TabSeparated",
        encoding=_answer_encoding(headers) if parameters.get("enable_http_compression") == "1" else None,
        stream=parameters.get("wait_end_of_query") != "1",
    )


def compressed(chunks: Iterable[bytes | memoryview], encoding: str | None) -> Iterator[bytes | memoryview]:
    """The same bytes under a Content-Encoding; a chunk in gives a chunk out as soon as the codec has one."""
    if encoding is None:
        yield from chunks
        return
    compressor: Any
    if encoding == "lz4":
        compressor = lz4.frame.LZ4FrameCompressor()
        yield compressor.begin()
    elif encoding == "zstd":
        compressor = zstd.ZstdCompressor(level=1)
    else:
        compressor = zlib.compressobj(level=1, wbits=31)
    for chunk in chunks:
        if out := compressor.compress(chunk):
            yield out
    yield compressor.flush()


def drain(stream: BinaryIO) -> None:
    """Read what the client still sends, so that it comes to read our answer."""
    while stream.read(1024 * 1024):
        pass


def raw_body(headers: Message, stream: BinaryIO) -> BinaryIO:
    """The request's body off the wire, ending where it ends: what follows is the next request."""
    if "chunked" in headers.get("Transfer-Encoding", "").lower():
        return cast(BinaryIO, io.BufferedReader(_Chunked(stream), 1024 * 1024))
    length = headers.get("Content-Length", "0")
    if not length.isdigit():
        raise QueryError(36, "BAD_ARGUMENTS", "Content-Length is not a number")
    return cast(BinaryIO, io.BufferedReader(_Sized(stream, int(length)), 1024 * 1024))


def _content(headers: Message, raw: BinaryIO) -> BinaryIO:
    encoding = headers.get("Content-Encoding", "identity").lower()
    opened: Any
    match encoding:
        case "identity":
            return raw
        case "lz4":
            opened = lz4.frame.LZ4FrameFile(raw)
        case "zstd":
            opened = zstd.ZstdFile(raw)
        case "gzip":
            opened = gzip.GzipFile(fileobj=raw)
        case _:
            raise QueryError(
                89,
                "UNKNOWN_COMPRESSION_METHOD",
                f"Unknown compression method '{encoding}': use lz4, zstd or gzip",
            )
    return cast(BinaryIO, _Decompressed(opened))


def _form(headers: Message, body: BinaryIO) -> dict[str, str]:
    data = body.read(MAX_FORM_BYTES + 1)
    if len(data) > MAX_FORM_BYTES:
        raise QueryError(307, "TOO_MANY_BYTES", "form parameters are limited to 64 MiB")
    fields: dict[str, str] = {}
    form = message_from_bytes(b"Content-Type: " + headers["Content-Type"].encode() + b"\r\n\r\n" + data)
    for part in form.get_payload():
        if not isinstance(part, Message) or part.get_filename() is not None:
            raise QueryError(
                48, "NOT_IMPLEMENTED", "external tables are not supported here: insert into a table instead"
            )
        name = part.get_param("name", header="content-disposition")
        fields[str(name)] = cast(bytes, part.get_payload(decode=True)).decode("utf-8", "surrogateescape")
    return fields


def _check_user(headers: Message, parameters: dict[str, str]) -> None:
    user = headers.get("X-ClickHouse-User") or parameters.get("user") or "default"
    authorization = headers.get("Authorization", "")
    if authorization.startswith("Basic "):
        try:
            user = base64.b64decode(authorization[6:], validate=True).decode().partition(":")[0]
        except ValueError:
            user = ""
    if user != "default":
        raise QueryError(
            516,
            "AUTHENTICATION_FAILED",
            "Authentication failed: the local endpoint has one user, `default`, with no password",
        )


def _answer_encoding(headers: Message) -> str | None:
    offered = [part.split(";")[0].strip().lower() for part in headers.get("Accept-Encoding", "").split(",")]
    return next((encoding for encoding in offered if encoding in ("lz4", "zstd", "gzip")), None)


class _Sized(io.RawIOBase):
    """Exactly `length` bytes of a stream."""

    def __init__(self, stream: BinaryIO, length: int) -> None:
        self._stream = stream
        self._left = length

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(min(len(buffer), self._left))
        if not data and self._left:
            raise ConnectionError("the client went away in the middle of a body")
        self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)


class _Chunked(io.RawIOBase):
    """The body of a chunked transfer (RFC 9112, section 7.1); trailers are read and dropped."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._left = 0
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left and not self._ended:
            self._next_chunk()
        if self._ended:
            return 0
        data = self._stream.read(min(len(buffer), self._left))
        if not data:
            raise ConnectionError("the client went away in the middle of a chunk")
        self._left -= len(data)
        if not self._left:
            self._line()
        buffer[: len(data)] = data
        return len(data)

    def _next_chunk(self) -> None:
        try:
            self._left = int(self._line().split(b";")[0], 16)
        except ValueError:
            raise ConnectionError("the client sent a malformed chunk") from None
        if not self._left:
            self._ended = True
            while self._line():
                pass

    def _line(self) -> bytes:
        line = self._stream.readline(MAX_LINE_BYTES)
        if not line.endswith(b"\n"):
            raise ConnectionError("the client went away between chunks")
        return line.strip()


class _Decompressed(io.RawIOBase):
    """A decompressing file whose faults are the client's: they become QueryError."""

    def __init__(self, opened: Any) -> None:
        self._opened = opened

    def read(self, size: int = -1) -> bytes:
        try:
            data: bytes = self._opened.read(size)
        except (EOFError, RuntimeError, zlib.error, gzip.BadGzipFile, zstd.ZstdError) as error:
            raise QueryError(271, "CANNOT_DECOMPRESS", f"cannot decompress the body: {error}") from None
        return data
