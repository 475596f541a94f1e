"""A proxy before ClickHouse that behaves badly when it is told to, as networks, servers and load balancers do."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Mode = Literal["pass", "cut", "slow", "500", "503", "late"]
"""pass    hand on request and answer
cut     reset the connection once the request has come
slow    hand on the request after a while
500     answer with ClickHouse's own "memory limit exceeded"; nothing is handed on
503     answer as a load balancer without a server does; nothing is handed on
late    hand on the request at once, and the answer when the client has given up: it was done, and nobody heard so
"""

_UPSTREAM_SECONDS = 60.0
_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_MEMORY = {"X-ClickHouse-Exception-Code": "241", "Content-Type": "text/plain"}
_MEMORY_TEXT = b"Code: 241. DB::Exception: memory limit exceeded (MEMORY_LIMIT_EXCEEDED)"


class Proxy:
    """`address` is for the client under trial. `mode` may be changed at any time; `seconds` says how long a slow or
    late answer is held back.
    """

    def __init__(self, upstream: str) -> None:
        self.mode: Mode = "pass"
        self.seconds = 1.0
        self.spoilt = 0
        """Requests that did not go the straight way."""
        self._upstream = urlsplit(upstream)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}{self._upstream.path}"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:  # the client has gone: it was told to give up
                    self.close_connection = True

            def do_GET(self) -> None:
                self.do_POST()

            def do_POST(self) -> None:
                body = _body(self)
                mode = proxy.mode
                proxy.spoilt += mode != "pass"
                if mode == "cut":
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                    self.close_connection = True
                elif mode == "500":
                    self._answer(500, _MEMORY, _MEMORY_TEXT)
                elif mode == "503":
                    self._answer(503, {"Content-Type": "text/plain"}, b"no server is available")
                else:
                    if mode == "slow":
                        time.sleep(proxy.seconds)
                    status, headers, answer = proxy.ask(self.command, self.path, dict(self.headers), body)
                    if mode == "late":
                        time.sleep(proxy.seconds)
                    self._answer(status, headers, answer)

            def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response_only(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler

    def ask(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        """What the real server answers; 502 when it does not."""
        told = {name: value for name, value in headers.items() if name.lower() not in _HOP_BY_HOP}
        connection = http.client.HTTPConnection(
            self._upstream.hostname or "", self._upstream.port, timeout=_UPSTREAM_SECONDS
        )
        try:
            connection.request(method, path, body, told)
            answer = connection.getresponse()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP}
            return answer.status, kept, answer.read()
        except (OSError, http.client.HTTPException):
            return 502, {"Content-Type": "text/plain"}, b"the server does not answer"
        finally:
            connection.close()

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="proxy", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _body(request: BaseHTTPRequestHandler) -> bytes:
    if "chunked" not in request.headers.get("Transfer-Encoding", ""):
        return request.rfile.read(int(request.headers.get("Content-Length") or 0))
    return b"".join(_chunks(request))


def _chunks(request: BaseHTTPRequestHandler) -> Iterator[bytes]:
    while size := int(request.rfile.readline().split(b";")[0], 16):
        yield request.rfile.read(size)
        request.rfile.readline()
    request.rfile.readline()


@contextmanager
def behaving(proxy: Proxy, mode: Mode) -> Iterator[None]:
    """The proxy in a mode, and well again afterwards."""
    proxy.mode = mode
    try:
        yield
    finally:
        proxy.mode = "pass"
