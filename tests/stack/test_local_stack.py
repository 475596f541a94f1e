"""The local stack as its users meet it: up, down, status, what survives, what is said on failure."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import clickhouse_connect
import psutil
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from consumer.clock import Deadline
from consumer.errors import StackError
from consumer.stack import local
from consumer.stack.clickhouse import ClickHouse
from consumer.stack.kafka import Kafka
from consumer.stack.local import LocalStack, read_addresses
from consumer.stack.part import free_port

EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[Kafka]:
    """A Kafka of the test's own, to be killed."""
    part = Kafka(tmp_path, 0, owned=True)
    part.start()
    yield part
    part.kill()


def make_topic(bootstrap: str, name: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(20)


def read_committed(bootstrap: str, topic: str, count: int) -> list[bytes | None]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "reader",
            "group.protocol": "consumer",
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
        }
    )
    consumer.subscribe([topic])
    deadline = Deadline.after(20)
    values: list[bytes | None] = []
    while len(values) < count and not deadline.passed:
        values += [message.value() for message in consumer.consume(count, timeout=0.2)]
    consumer.close()
    return values


def transaction(bootstrap: str, topic: str, value: bytes, *, commit: bool) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": "writer"})
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(topic, value)
    producer.flush(20)
    if commit:
        producer.commit_transaction(20)
    else:
        producer.abort_transaction(20)


def test_kafka_keeps_transactions_through_a_kill(kafka: Kafka) -> None:
    make_topic(kafka.address, "kept")
    transaction(kafka.address, "kept", b"aborted", commit=False)
    transaction(kafka.address, "kept", b"committed", commit=True)
    before = kafka.pid
    kafka.kill()
    assert kafka.pid is None
    kafka.start()
    assert kafka.pid not in (None, before)
    transaction(kafka.address, "kept", b"after", commit=True)
    assert read_committed(kafka.address, "kept", 2) == [b"committed", b"after"]


def test_topics_are_never_made_by_accident(stack: LocalStack) -> None:
    metadata = AdminClient({"bootstrap.servers": stack.kafka.address}).list_topics("never-made", timeout=20)
    assert metadata.topics["never-made"].error is not None


def test_it_listens_on_loopback_only(stack: LocalStack) -> None:
    for part in (stack.kafka, stack.clickhouse):
        process = part.process
        assert process is not None
        listening = {c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
        assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}


def test_a_second_owner_of_a_folder_is_refused(stack: LocalStack) -> None:
    refused = pytest.raises(StackError, match=rf"in use by a running stack .*pid {stack.kafka.pid}")
    with refused, LocalStack(stack.state_dir) as other:
        other.start(print)
    assert stack.kafka.answers(timeout_seconds=5), "whoever is refused leaves it running"
    assert read_addresses(stack.state_dir).clickhouse == stack.clickhouse.address
    assert read_addresses(stack.state_dir).kafka == stack.kafka.address


def bnpl(*arguments: str, state_dir: Path) -> tuple[int, str]:
    """Exit code and standard output of the command, run as a user runs it."""
    command = [str(Path(sys.executable).with_name("bnpl-shadow")), *arguments, "--state-dir", str(state_dir)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=120, check=False)
    return done.returncode, done.stdout


def test_up_suspended_down_and_up_again_with_the_data(tmp_path: Path) -> None:
    assert bnpl("status", state_dir=tmp_path)[0] == 3
    assert bnpl("down", state_dir=tmp_path) == (0, f"nothing was running in {tmp_path}\n")
    try:
        assert bnpl("up", "--kafka-port", "0", "--clickhouse-port", "0", state_dir=tmp_path)[0] == 0
        addresses = read_addresses(tmp_path)
        pids = {part.name: part.pid for part in LocalStack(tmp_path, owned=False).status()}

        code, told = bnpl("up", state_dir=tmp_path)
        assert code == 0
        assert "already running" in told
        assert read_addresses(tmp_path) == addresses
        assert {part.name: part.pid for part in LocalStack(tmp_path, owned=False).status()} == pids

        code, told = bnpl("status", "--json", state_dir=tmp_path)
        assert code == 0
        assert [(part["name"], part["state"]) for part in json.loads(told)["parts"]] == [
            ("clickhouse", "up"),
            ("kafka", "up"),
        ]

        suspended = LocalStack(tmp_path, owned=False)
        suspended.clickhouse.suspend()
        try:
            states = {part.name: part.state for part in suspended.status()}
        finally:
            suspended.clickhouse.resume()
        assert states == {"clickhouse": "not answering", "kafka": "up"}
        assert {part.state for part in suspended.status()} == {"up"}

        make_topic(addresses.kafka, "kept")
        with clickhouse_connect.get_client(dsn=addresses.clickhouse) as client:
            client.command("CREATE TABLE kept (a UInt8) ENGINE = MergeTree ORDER BY a")
            client.insert("kept", [[7]], column_names=["a"])
        assert bnpl("down", state_dir=tmp_path) == (0, "stopped clickhouse and kafka\n")
        assert {part.state for part in LocalStack(tmp_path, owned=False).status()} == {"down"}
        with pytest.raises(StackError, match="bnpl-shadow up"):
            read_addresses(tmp_path)

        assert bnpl("up", "--kafka-port", "0", "--clickhouse-port", "0", state_dir=tmp_path)[0] == 0
        moved = read_addresses(tmp_path)
        assert moved != addresses
        assert "kept" in AdminClient({"bootstrap.servers": moved.kafka}).list_topics(timeout=20).topics
        with clickhouse_connect.get_client(dsn=moved.clickhouse) as client:
            assert client.command("SELECT a FROM kept") == 7
    finally:
        bnpl("down", state_dir=tmp_path)


OWNER = """
import signal, sys, time
from pathlib import Path
from consumer.stack.local import LocalStack
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are started to ignore it
with LocalStack(Path(sys.argv[1]), 0, 0) as stack:
    stack.start(print)
    print("pids", stack.kafka.pid, stack.clickhouse.pid, flush=True)
    time.sleep(120)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children by itself")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_nothing_outlives_its_owner(tmp_path: Path, how: signal.Signals) -> None:
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as owner:
        assert owner.stdout is not None
        pids = next(line for line in owner.stdout if line.startswith("pids")).split()[1:]
        parts = [psutil.Process(int(pid)) for pid in pids]
        assert {os.getsid(part.pid) for part in parts}.isdisjoint({os.getsid(0)})  # no terminal signal reaches them
        owner.send_signal(how)
        owner.wait(30)
    gone, alive = psutil.wait_procs(parts, timeout=20)
    assert (len(gone), alive) == (2, [])
    with pytest.raises(StackError, match="no local stack is running"):
        read_addresses(tmp_path)


def test_a_taken_port_is_named_with_who_has_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(StackError) as caught:
            LocalStack(tmp_path, kafka_port=port, clickhouse_port=0).start(print)
    told = str(caught.value)
    assert str(port) in told
    assert f"pid {os.getpid()}" in told
    assert "--kafka-port" in told
    assert {part.state for part in LocalStack(tmp_path, owned=False).status()} == {"down"}  # ClickHouse went down again


def test_a_broker_that_cannot_start_says_why(tmp_path: Path) -> None:
    kafka = Kafka(tmp_path, 0, owned=True)
    kafka.launch()
    kafka.kill()
    properties = tmp_path / "kafka" / "data" / "meta.properties"
    properties.write_text(properties.read_text().replace("node.id=1", "node.id=2"))
    with pytest.raises(StackError) as caught:
        kafka.start()
    told = str(caught.value)
    assert "node" in told
    assert str(kafka.log) in told
    assert kafka.pid is None


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match="--state-dir"):
        LocalStack(tmp_path / "file" / "state").start(print)


def test_a_full_disk_is_refused_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "MIN_FREE_BYTES", 2**62)
    with pytest.raises(StackError, match="MiB free"):
        LocalStack(tmp_path, 0, 0).start(print)


@pytest.mark.skipif(not EPHEMERAL.exists(), reason="only Linux tells which ports connections get")
def test_a_free_port_is_none_that_an_outgoing_connection_may_get() -> None:
    lowest, highest = map(int, EPHEMERAL.read_text().split())
    assert all(not lowest <= free_port() <= highest for _ in range(50))


def test_a_pid_given_to_another_program_is_not_ours(tmp_path: Path) -> None:
    part = ClickHouse(tmp_path, free_port(), owned=False)
    file = tmp_path / "run" / "clickhouse.pid"
    file.parent.mkdir()
    file.write_text(f"{os.getpid()} {part.port}\n")
    assert part.pid is None
    part.kill()  # must not end the test run
    assert not file.exists()


def test_jars_that_cannot_be_fetched_name_the_way_out(tmp_path: Path) -> None:
    offline = {
        "HOME": str(tmp_path),
        "M2_REPO": str(tmp_path / "m2"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "HTTPS_PROXY": f"http://127.0.0.1:{free_port()}",
        "PATH": os.environ["PATH"],
    }
    command = [sys.executable, "-c", "from consumer.cli.main import main; main()", "fetch"]
    began = time.monotonic()
    result = subprocess.run(command, env=offline, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "Maven Central" in result.stderr
    assert "bnpl-shadow fetch" in result.stderr
    assert "Traceback" not in result.stderr
    assert time.monotonic() - began < 30
