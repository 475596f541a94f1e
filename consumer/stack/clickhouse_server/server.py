"""The HTTP server: one engine, a thread a connection, answers with the headers ClickHouse's clients read."""

from __future__ import annotations

import json
import secrets
import threading
import time
import uuid
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import BinaryIO, cast
from urllib.parse import urlsplit

from consumer.clock import Deadline
from consumer.logs import get_logger
from consumer.stack.clickhouse_server.engine import Engine
from consumer.stack.clickhouse_server.errors import QueryError
from consumer.stack.clickhouse_server.execute import Answer, Statement, execute
from consumer.stack.clickhouse_server.protocol import compressed, drain, raw_body, read_request

IDLE_SECONDS = 600.0
"""How long a kept-alive connection may rest between requests."""
IO_SECONDS = 60.0
"""How long one read or write of a request may take: a client that stopped dead must not hold its thread."""

log = get_logger(__name__)


class Server(ThreadingHTTPServer):
    """Serves one engine on loopback. `serve_forever()` in one thread, `stop()` from another."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, port: int, engine: Engine) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.engine = engine
        self._running = 0
        self._idle = threading.Condition()

    def stop(self, grace_seconds: float) -> bool:
        """Take no more connections and let running requests end; False when some did not within the grace."""
        self.shutdown()
        self.server_close()
        deadline = Deadline.after(grace_seconds)
        with self._idle:
            return self._idle.wait_for(lambda: not self._running, deadline.remaining)

    def request_began(self) -> None:
        with self._idle:
            self._running += 1

    def request_ended(self) -> None:
        with self._idle:
            self._running -= 1
            self._idle.notify_all()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 64 * 1024
    server: Server

    def handle_one_request(self) -> None:
        self.connection.settimeout(IDLE_SECONDS)
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def do_GET(self) -> None:
        path = urlsplit(self.path)
        if path.path == "/ping" or (path.path == "/" and not path.query):
            self._send_text(200, "Ok.\n")
        else:
            self._run(read_only=True)

    def do_POST(self) -> None:
        self._run(read_only=False)

    def _run(self, *, read_only: bool) -> None:
        """Run the request's statement, answer, and leave the connection ready for the next request."""
        self.connection.settimeout(IO_SECONDS)
        self.server.request_began()
        self._began = time.monotonic()
        self._query_id = ""
        self._answering = False
        try:
            body = raw_body(self.headers, cast(BinaryIO, self.rfile))
            try:
                self._answer(body, read_only)
            except QueryError as error:
                self._refuse(error, body)
        except (ConnectionError, TimeoutError):
            log.info("client_gone", query_id=self._query_id)
            self.close_connection = True
        finally:
            self.server.request_ended()

    def _answer(self, body: BinaryIO, read_only: bool) -> None:
        if urlsplit(self.path).path != "/":
            raise QueryError(1001, "NOT_FOUND", f"There is no handle {urlsplit(self.path).path}: queries go to /")
        if "Origin" in self.headers:
            raise QueryError(497, "ACCESS_DENIED", "requests of web pages are refused: this endpoint has no passwords")
        request = read_request(self.path, self.headers, body, read_only=read_only)
        self._query_id = request.query_id or str(uuid.uuid4())
        statement = Statement.read(request.query, request.body)
        with self.server.engine.connection(request.context, leaves_state=statement.leaves_state) as connection:
            answer = execute(connection, statement, request.parameters, request.default_format, stream=request.stream)
            drain(body)
            self._send(answer, request.encoding)
        log.info(
            "query",
            query_id=self._query_id,
            kind=statement.keyword.lower(),
            seconds=round(time.monotonic() - self._began, 4),
            read_rows=answer.summary.get("read_rows"),
            written_rows=answer.summary.get("written_rows"),
        )

    def _send(self, answer: Answer, encoding: str | None) -> None:
        headers = {"X-ClickHouse-Summary": json.dumps(answer.summary)}
        if answer.format:
            headers["X-ClickHouse-Format"] = answer.format
        if encoding:
            headers["Content-Encoding"] = encoding
        chunks = compressed(answer.chunks, encoding)
        if answer.streamed:
            self._send_stream(answer, headers, encoding)
            return
        whole = b"".join(chunks)
        self._send_head(200, {**headers, "Content-Length": str(len(whole))})
        self.wfile.write(whole)
        self.wfile.flush()

    def _send_stream(self, answer: Answer, headers: dict[str, str], encoding: str | None) -> None:
        """Send chunks as they come; a late failure goes into the body, marked as ClickHouse 25.11 does."""
        tag = secrets.token_hex(8)
        failures: list[QueryError] = []

        def guarded() -> Iterable[bytes | memoryview]:
            try:
                yield from answer.chunks
            except QueryError as error:
                failures.append(error)
                text = error.text(self.server.engine.version)
                marked = f"{tag}\r\n{text}\n{len(text.encode()) + 1} {tag}"
                yield f"\r\n__exception__\r\n{marked}\r\n__exception__\r\n".encode()

        self._send_head(200, {**headers, "Transfer-Encoding": "chunked", "X-ClickHouse-Exception-Tag": tag})
        for chunk in compressed(guarded(), encoding):
            if len(chunk):
                self.wfile.write(b"%x\r\n" % len(chunk) + chunk + b"\r\n")
                self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()
        if failures:
            self._log_failure(failures[0])

    def _refuse(self, error: QueryError, body: BinaryIO) -> None:
        self._log_failure(error)
        drain(body)
        text = error.text(self.server.engine.version) + "\n"
        self._send_text(error.status, text, {"X-ClickHouse-Exception-Code": str(error.code)})

    def _log_failure(self, error: QueryError) -> None:
        """Code and name only: ClickHouse's messages quote values."""
        log.warning("query_failed", query_id=self._query_id, code=error.code, name=error.name)

    def _send_text(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        data = text.encode()
        kind = {"Content-Type": "text/plain; charset=UTF-8", "Content-Length": str(len(data))}
        self._send_head(status, {**kind, **(headers or {})})
        self.wfile.write(data)
        self.wfile.flush()

    def _send_head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        common = {
            "X-ClickHouse-Server-Display-Name": "bnpl-local",
            "X-ClickHouse-Timezone": "UTC",
            "X-ClickHouse-Query-Id": getattr(self, "_query_id", ""),
        }
        for name, value in {**common, **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing: a URL may hold values; `query` above says what is fit to say."""

    def log_message(self, format: str, *args: object) -> None:
        """Nothing, for the same reason."""
