"""A connection as uvicorn serves it, bounded where uvicorn leaves it open: how much a head may hold, and how long it
may take to come.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from consumer.api.problems import Refused

MOST_HEAD_BYTES = 64 * 1024
"""Of one request: its line, headers and trailers, and what frames its chunks beyond a byte for each byte of body."""
HEAD_SECONDS = 10.0


class Connection(HttpToolsProtocol):
    """Ends by itself when a request's head does not end, before anybody has asked who sends it."""

    _in_head = _between = False
    _body = _rest = 0
    """Bytes of the request under way."""
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        self._in_head = True
        self._time_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._in_head = False
        self._time_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._rest += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._rest > MOST_HEAD_BYTES + self._body:
            self._refuse(Refused(431, "head-too-large", "the head of the request is too large"))
            return
        if self._between and self._rest and self.cycle.response_complete:
            self._in_head = True  # line breaks before a head: with them uvicorn no longer waits only so long for it
        self._time_head()

    def on_message_begin(self) -> None:
        self._in_head, self._between = True, False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        self._rest -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._body = self._rest = 0
        self._between = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(Refused(400, "malformed", "this is no request of HTTP"))

    def _time_head(self) -> None:
        """A head that came in one piece, as nearly all do, starts no timer."""
        if self._in_head == (self._late is not None):
            return
        if self._late is not None:
            self._late.cancel()
            self._late = None
        else:
            self._late = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _refuse(self, refused: Refused) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            if self.cycle.response_started:
                self.transport.abort()  # in the middle of another answer there is no place for this one
                return
            self.cycle.disconnected = True  # nor for what its route would answer after it
        answer = refused.answer
        headers = [*answer.raw_headers, (b"connection", b"close")]
        lines = [name + b": " + value + b"\r\n" for name, value in headers]
        self.transport.write(b"".join([STATUS_LINE[answer.status_code], *lines, b"\r\n", bytes(answer.body)]))
        self.transport.close()
