"""A way to Kafka that can be cut and mended while its clients live."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Self

_HEAD = struct.Struct(">i")
_BOTH_WAYS = socket.SHUT_RDWR


class KafkaProxy:
    """`address` leads to the one broker at `upstream` (`host:port`), and all that clients are told leads here too: a
    broker tells them where to go on, as its host and its port in four bytes, so that one port takes the other's place.
    """

    def __init__(self, upstream: str) -> None:
        self._host, _, port = upstream.rpartition(":")
        self._upstream = (self._host, int(port))
        self._kept = _bound(self._host, 0)
        """Keeps the port while nobody listens there."""
        self._port = int(self._kept.getsockname()[1])
        self._told, self._tells = (self._host.encode() + _HEAD.pack(each) for each in (int(port), self._port))
        self._open: set[socket.socket] = set()

    @property
    def address(self) -> str:
        return f"{self._host}:{self._port}"

    @contextmanager
    def away(self) -> Iterator[None]:
        """As where no broker runs: what is connected ends, and whoever comes is refused."""
        self._cut()
        try:
            yield
        finally:
            self._mend()

    def _cut(self) -> None:
        for each in (self._listening, *self._open):
            with suppress(OSError):  # it has ended by itself
                each.shutdown(_BOTH_WAYS)

    def _mend(self) -> None:
        self._listening = _bound(self._host, self._port)
        self._listening.listen()
        threading.Thread(target=self._accept, name="kafka proxy", daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError), self._listening as listening:
            while True:
                near, _ = listening.accept()
                far = socket.create_connection(self._upstream, timeout=10)
                far.settimeout(None)
                self._open |= {near, far}
                for copy, source, sink in ((_bytes, near, far), (self._answers, far, near)):
                    threading.Thread(target=self._hand_on, args=(copy, source, sink), daemon=True).start()

    def _hand_on(
        self, copy: Callable[[socket.socket], Iterator[bytes]], source: socket.socket, sink: socket.socket
    ) -> None:
        with suppress(OSError):
            for each in copy(source):
                sink.sendall(each)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(_BOTH_WAYS)
        self._open.discard(source)
        source.close()

    def _answers(self, source: socket.socket) -> Iterator[bytes]:
        """Whole ones, so that none is read in the middle of an address."""
        with source.makefile("rb") as answers:
            while len(head := answers.read(_HEAD.size)) == _HEAD.size:
                yield head + answers.read(*_HEAD.unpack(head)).replace(self._told, self._tells)

    def __enter__(self) -> Self:
        self._mend()
        return self

    def __exit__(self, *_: object) -> None:
        self._cut()
        self._kept.close()


def _bound(host: str, port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind((host, port))
    return made


def _bytes(source: socket.socket) -> Iterator[bytes]:
    while data := source.recv(65_536):
        yield data
