"""What the tests of running services share: settings of their own, processes, records as the wire carries them.

Events are written and read here with fastavro and the schema files alone, so that what the services say is judged by
another reader than theirs.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

import clickhouse_connect
import fastavro
from clickhouse_connect.driver.client import Client
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from pydantic import SecretStr

from consumer.clock import Deadline, utc_now
from consumer.errors import KafkaUnavailable
from consumer.research.simulate import SimulationConfig, rows, simulate
from consumer.settings import PROJECT, Settings
from consumer.stack.local import LocalStack
from consumer.system.run import prepare
from consumer.watch.lag import LagReader

Event = dict[str, Any]
T = TypeVar("T")

PARTITIONS = 3


def eventually(condition: Callable[[], T], seconds: float, what: object) -> T:
    """The first true answer of `condition`; fails when there is none in time. `what` may be a function, called late."""
    deadline = Deadline.after(seconds)
    while not (answer := condition()):
        if deadline.passed:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(0.05)
    return answer


# settings


@contextmanager
def fresh_settings(stack: LocalStack, state_dir: Path, **changes: Any) -> Iterator[Settings]:
    """Settings that lead to topics, groups and tables of nobody else, made and ready."""
    name = f"t{uuid.uuid4().hex[:10]}"
    with clickhouse_connect.get_client(dsn=stack.clickhouse.address) as admin:
        admin.command(f"CREATE DATABASE {name}")
        given = {
            "kafka_bootstrap_servers": stack.kafka.address,
            "clickhouse_url": SecretStr(f"{stack.clickhouse.address}/{name}"),
            "state_dir": state_dir,
            "topic_transactions": f"{name}.transactions",
            "topic_shadow_scores": f"{name}.shadow-scores",
            "topic_dead_letters": f"{name}.transactions.dlq",
            "topic_outcomes": f"{name}.outcomes",
            "topic_outcomes_dead_letters": f"{name}.outcomes.dlq",
            "topic_control": f"{name}.control",
            "topic_partitions": PARTITIONS,
            "score_group": f"{name}-score",
            "sink_group": f"{name}-sink",
            "drift_group": f"{name}-drift",
            "instance": name,
            "sink_max_wait_ms": 50,
            "score_metrics_port": 0,
            "sink_metrics_port": 0,
            "drift_metrics_port": 0,
            "evaluate_metrics_port": 0,
            "lag_interval_ms": 500,
        }
        settings = Settings(**(given | changes))
        prepare(settings)
        yield settings
        admin.command(f"DROP DATABASE {name}")


def environment(settings: Settings) -> dict[str, str]:
    """A process's environment with these settings as BNPL_ variables, and no others."""
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    told = {
        f"BNPL_{name.upper()}": value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in given.items()
        if value is not None
    }
    return {name: value for name, value in os.environ.items() if not name.startswith("BNPL_")} | told


def forget_dead_members_soon(settings: Settings, *groups: str) -> None:
    """A killed member holds its partitions until its session ends: three seconds in these groups."""
    for group in groups:
        _alter(settings, ResourceType.GROUP, group, "consumer.heartbeat.interval.ms", "500")
        _alter(settings, ResourceType.GROUP, group, "consumer.session.timeout.ms", "3000")


def alter_topic(settings: Settings, topic: str, key: str, value: str) -> None:
    """Set one of a topic's settings on the broker."""
    _alter(settings, ResourceType.TOPIC, topic, key, value)


def _alter(settings: Settings, kind: ResourceType, name: str, key: str, value: str) -> None:
    resource = ConfigResource(kind, name)
    resource.add_incremental_config(ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET))
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    admin.incremental_alter_configs([resource])[resource].result(20)


# services


class Command:
    """`python -m consumer …` as a process of its own; stdout and stderr go to one file."""

    def __init__(self, arguments: Sequence[str], env: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "consumer", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=PROJECT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self.log.read_text()

    @property
    def events(self) -> list[dict[str, Any]]:
        """The log's lines, each of which must be a JSON object."""
        return [json.loads(line) for line in self.output.splitlines()]

    def says(self, event: str) -> bool:
        """Whether a line of the log has this event; a line that is still being written is not looked at."""
        return f'"event": "{event}"' in self.output

    def ended(self, seconds: float) -> int:
        """Its exit code; fails with its log when it does not end in time."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds} s:\n{self.output}") from None

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, also when it ended."""
        self.process.kill()
        self.process.wait()


def asked(service: Command, path: str) -> tuple[int, str]:
    """What a service answers on its port for metrics and health: status and body."""
    eventually(lambda: service.says("metrics and health"), 30, lambda: service.output)
    url = next(each["url"] for each in service.events if each["event"] == "metrics and health")
    try:
        with urllib.request.urlopen(f"{url}/{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


class Commands:
    """Starts commands and, at the end, kills those that still run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[Command] = []

    def start(self, settings: Settings, *arguments: str, **variables: str) -> Command:
        log = self._folder / f"{len(self._started)}-{arguments[0]}.log"
        command = Command(arguments, environment(settings) | variables, log)
        self._started.append(command)
        return command

    def run(self, settings: Settings, *arguments: str, seconds: float = 60, **variables: str) -> Command:
        """Start one and wait until it ended."""
        command = self.start(settings, *arguments, **variables)
        command.ended(seconds)
        return command

    def kill_all(self) -> None:
        for command in self._started:
            command.kill()


class Service(Protocol):
    def run(self, stop: threading.Event) -> None: ...


@contextmanager
def running(service: Service) -> Iterator[Future[None]]:
    """A service in a thread of this process; raises what it raised once it is told to stop."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(service.run, stop)
        try:
            yield run
        finally:
            stop.set()
            run.result(30)  # in the finally: a service that failed is why the test did


# records


def simulated(count: int, seed: int = 0) -> list[Event]:
    """Transactions of the last days, as dicts in the shape that producers send."""
    start = (utc_now() - timedelta(days=9)).date()
    config = SimulationConfig(count, seed, start, days=8, outcomes=False)
    return [event for batch in simulate(config) for event in rows(batch)]


def _schema(name: str) -> Any:
    return json.loads((PROJECT / "schemas" / f"{name}.avsc").read_text())


_TRANSACTION = _schema("transaction.v2")
_SHADOW_EVENT = _schema("shadow_event.v2")
_OUTCOME = _schema("outcome.v1")
HEADER_NAMES = {each["name"]: each["header"] for each in _schema("dead_letter_headers.v1")["fields"]}


def _single_object_header(schema: Any) -> bytes:
    canonical = fastavro.schema.to_parsing_canonical_form(schema)
    return b"\xc3\x01" + bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))


_TRANSACTION_HEADER = _single_object_header(_TRANSACTION)
_SHADOW_EVENT_HEADER = _single_object_header(_SHADOW_EVENT)
_OUTCOME_HEADER = _single_object_header(_OUTCOME)
_PARSED_TRANSACTION = fastavro.parse_schema(_TRANSACTION)
_PARSED_SHADOW_EVENT = fastavro.parse_schema(_SHADOW_EVENT)
_PARSED_OUTCOME = fastavro.parse_schema(_OUTCOME)


def encoded(event: Event, **changes: Any) -> bytes:
    """A transaction as a message value, by fastavro."""
    event = event | changes
    if isinstance(event["transaction_timestamp"], str):
        event["transaction_timestamp"] = datetime.fromisoformat(event["transaction_timestamp"])
    body = io.BytesIO()
    fastavro.schemaless_writer(body, _PARSED_TRANSACTION, event)
    return _TRANSACTION_HEADER + body.getvalue()


def decoded(value: bytes, kind: str = "shadow_event") -> Event:
    """A shadow event, a transaction or an outcome from a message value, by fastavro, with aware UTC times."""
    header, schema = {
        "shadow_event": (_SHADOW_EVENT_HEADER, _PARSED_SHADOW_EVENT),
        "outcome": (_OUTCOME_HEADER, _PARSED_OUTCOME),
        "transaction": (_TRANSACTION_HEADER, _PARSED_TRANSACTION),
    }[kind]
    assert value.startswith(header)
    body = io.BytesIO(value[len(header) :])
    event: Any = fastavro.schemaless_reader(body, schema, None)
    assert not body.read(), "bytes are left over"
    return dict(event)


def send(settings: Settings, topic: str, records: Iterable[dict[str, Any]]) -> None:
    """Produce records (key, value, headers, partition) and wait until all are acknowledged."""
    failures: list[Any] = []
    producer = Producer(
        {
            "bootstrap.servers": settings.kafka_bootstrap_servers,
            "partitioner": "murmur2_random",
            "message.max.bytes": 3 * 1024 * 1024,
            "linger.ms": 50,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    for record in records:
        producer.produce(topic, **record, on_delivery=lambda error, _: failures.append(error) if error else None)
    assert producer.flush(30) == 0
    assert not failures


def send_events(settings: Settings, events: Iterable[Event]) -> None:
    """Send transactions keyed by customer, as their producers do."""
    records = [{"key": each["customer_id"], "value": encoded(each)} for each in events]
    send(settings, settings.topic_transactions, records)


def outcome(transaction_id: str, **changes: Any) -> Event:
    """A good outcome that was observed yesterday, with fields changed."""
    return {
        "transaction_id": transaction_id,
        "label": "d28",
        "defaulted": True,
        "days_to_resolution": 14,
        "loss_amount": 90.5,
        "observed_at": utc_now().replace(microsecond=0) - timedelta(days=1),
        "source": "ledger",
        "version": 1,
        "transaction_timestamp": None,
        **changes,
    }


def outcome_record(told: Event) -> dict[str, bytes]:
    """An outcome as key and value of a message, by fastavro."""
    body = io.BytesIO()
    fastavro.schemaless_writer(body, _PARSED_OUTCOME, told)
    return {"key": told["transaction_id"].encode(), "value": _OUTCOME_HEADER + body.getvalue()}


def send_outcomes(settings: Settings, told: Iterable[Event]) -> None:
    """Send outcomes keyed by transaction, as their producers do."""
    send(settings, settings.topic_outcomes, map(outcome_record, told))


def read_topic(settings: Settings, topic: str) -> list[Message]:
    """All committed records that a topic holds now, by partition in order."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka_bootstrap_servers,
            "group.id": "tests",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
            "fetch.message.max.bytes": 4 * 1024 * 1024,
            "fetch.wait.max.ms": 10,  # how long the broker takes to say that there is no more
        }
    )
    try:
        partitions = consumer.list_topics(topic, 10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
        found: list[Message] = []
        unfinished, deadline = set(partitions), Deadline.after(30)
        while unfinished:
            assert not deadline.passed, f"{topic} was not read to its end"
            for message in consumer.consume(5000, 0.05):
                if message.error() is None:
                    found.append(message)
                else:
                    assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                    unfinished.discard(message.partition())
        return sorted(found, key=lambda message: (message.partition(), message.offset()))
    finally:
        consumer.close()


def shadow_events(settings: Settings) -> list[Event]:
    """All shadow events in the topic."""
    return [decoded(message.value()) for message in read_topic(settings, settings.topic_shadow_scores)]


def committed(lag: LagReader) -> int:
    """Records that a group has committed."""
    return sum(part.committed or 0 for part in lag.look().partitions)


def score_lag(settings: Settings) -> LagReader:
    """To ask how far the score group is; a context manager."""
    return LagReader(settings, settings.score_group, [settings.topic_transactions])


def sink_lag(settings: Settings) -> LagReader:
    """To ask how far the sink group is; a context manager."""
    return LagReader(settings, settings.sink_group, [settings.topic_shadow_scores])


def wait_scored(settings: Settings, seconds: float = 30) -> None:
    """Wait until the score group has committed everything that is in its topic."""
    with score_lag(settings) as lag:

        def caught_up() -> bool:
            try:
                return not lag.look().unread
            except KafkaUnavailable:  # a coordinator that is coming back: wait for it too
                return False

        eventually(caught_up, seconds, lambda: f"lag {lag.look()}")


def stored(settings: Settings, what: str = "count()") -> Any:
    """One value of shadow_scores, duplicates removed."""
    ((value,),) = clickhouse_rows(settings, what)
    return value


def clickhouse_rows(settings: Settings, what: str, table: str = "shadow_scores") -> list[tuple[Any, ...]]:
    """These columns of a table, duplicates removed."""
    with _clickhouse(settings) as client:
        return [tuple(row) for row in client.query(f"SELECT {what} FROM {table} FINAL").result_rows]


def wait_stored(settings: Settings, count: int, seconds: float = 30) -> None:
    """Wait until this many rows are stored; more of them fail at once."""
    with _clickhouse(settings) as client:  # one for all looks: a new client asks for every setting of the server first

        def found() -> int:
            return int(client.query("SELECT count() FROM shadow_scores FINAL").result_rows[0][0])

        def enough() -> bool:
            now = found()
            assert now <= count, f"{now} rows, {count} expected"
            return now == count

        eventually(enough, seconds, lambda: f"{found()} of {count} rows")


def _clickhouse(settings: Settings) -> Client:
    assert settings.clickhouse_url
    return clickhouse_connect.get_client(dsn=settings.clickhouse_url.get_secret_value())
