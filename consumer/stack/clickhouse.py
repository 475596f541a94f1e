"""ClickHouse in the local stack: this project's endpoint over chDB's engine, in a process of its own."""

from __future__ import annotations

import sys
from urllib.error import URLError
from urllib.request import urlopen

from consumer.stack.part import Part


class ClickHouse(Part):
    name = "clickhouse"
    port_option = "--clickhouse-port"

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def prepare(self) -> list[str]:
        self.log = self.output  # the endpoint logs to stderr
        server = "consumer.stack.clickhouse_server"
        return [sys.executable, "-m", server, "--data", str(self.data), "--port", str(self.port)]

    def answers(self, timeout_seconds: float) -> bool:
        try:
            with urlopen(f"{self.address}/?query=SELECT+1", timeout=timeout_seconds) as answer:  # noqa: S310
                return bool(answer.read() == b"1\n")
        except (URLError, OSError):
            return False
