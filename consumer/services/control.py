"""The control topic: every score process follows it, and one promotion at a time writes it.

A write, by its steps:

1. fence    the one transactional id of the topic: whoever was about to write can do so no more
2. read     to the end: what is newest now stays so until this is done, or somebody fences it
3. write    the record that follows, under its own key and under `state`
4. commit   both become visible at once, or neither does
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from consumer.clock import Deadline
from consumer.contracts.control import STATE_KEY, Control, ControlLog, encode
from consumer.errors import BnplError, Fenced, InvalidRecord, KafkaUnavailable, Outrun
from consumer.logs import get_logger
from consumer.metrics import Metrics
from consumer.scoring.activation import Activation, ruling
from consumer.services.kafka import as_error, consumer_config, made, require_topics, transactional_producer
from consumer.settings import Settings

if TYPE_CHECKING:  # the models' library takes longer to load than all the rest
    from consumer.scoring.artifacts import ModelSet

log = get_logger(__name__)

_PARTITION = 0
_POLL_SECONDS = 0.1
_ANSWER_SECONDS = 5.0
_READ_SECONDS = 10.0
_FIRST_READ_SECONDS = 5.0
_RETRY_SECONDS = 1.0
_ASK_EVERY_SECONDS = 1.0
_ASK_SECONDS = 2.0
_ABORT_SECONDS = 5.0
_FETCH = {"fetch.wait.max.ms": 100}
"""The broker answers as soon as there is a record. This is how long it takes to say that there is none."""


@dataclass(frozen=True)
class ControlTopic:
    """What the topic holds: the good records, and why others are passed over, by offset."""

    log: ControlLog
    passed_over: dict[int, InvalidRecord]


class _Tail:
    """The topic's records from the beginning on, as they come. A context manager, for one thread."""

    def __init__(self, settings: Settings) -> None:
        """Raises KafkaUnavailable when no broker answers."""
        self._consumer = made(Consumer, consumer_config(settings, "bnpl-control", "classic") | _FETCH)
        self._place = TopicPartition(settings.topic_control, _PARTITION, OFFSET_BEGINNING)
        self._know_leader(settings.topic_control)
        self._consumer.assign([self._place])
        self._next = self._end = 0
        self.at_end = False
        """Whether the last look found all that was ever written to be read or aborted."""

    def _know_leader(self, topic: str) -> None:
        """A client that is to read from where it knows no leader looks for one only half a second later."""
        try:
            self._consumer.list_topics(topic, _ANSWER_SECONDS)
        except KafkaException as error:
            self._consumer.close()
            raise as_error(error) from error

    def next(self, seconds: float) -> Any | None:
        """The next record; None when there is none yet. Raises KafkaUnavailable or Fatal, then it is of no more use."""
        message = self._consumer.poll(seconds)
        if message is None:
            return None
        error = message.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            raise as_error(KafkaException(error))
        offset = int(message.offset() or 0)
        if offset < self._next:
            raise KafkaUnavailable("the topic begins anew")
        if error is not None:
            self._end = offset
            _, end = self._consumer.get_watermark_offsets(self._place, cached=True)
            self.at_end = offset >= end  # not where an open transaction holds records back
            return None
        self._next, self.at_end = offset + 1, False
        return message

    def is_whole(self, seconds: float) -> bool:
        """Whether the broker, asked now, knows of nothing behind what was read; False also when it does not answer."""
        try:
            ends = self._consumer.get_watermark_offsets(self._place, seconds)
        except KafkaException:
            return False
        return ends is not None and self._end >= int(ends[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()


def read(settings: Settings) -> ControlTopic:
    """What the topic holds now. Raises Fatal when there is no such topic, KafkaUnavailable when it cannot be read to
    its end in time.
    """
    require_topics(settings, settings.topic_control)
    topic, deadline = ControlTopic(ControlLog(), {}), Deadline.after(_READ_SECONDS)
    with _Tail(settings) as tail:
        while not tail.at_end:
            if (message := tail.next(_POLL_SECONDS)) is not None:
                try:
                    topic.log.take(message.key(), message.value())
                except InvalidRecord as reason:
                    topic.passed_over[message.offset()] = reason
            elif deadline.passed:
                raise KafkaUnavailable(
                    f"{settings.topic_control} was not read to its end within {_READ_SECONDS:.0f} s: its broker is "
                    "away, or another program's open transaction holds records back"
                )
    return topic


def write(settings: Settings, control: Control) -> None:
    """Write a record that was made from the newest one which `read` gave. Raises as `amend`, and Outrun also when that
    is not the newest any more.
    """

    def unless_outrun(newest: Control | None) -> Control:
        if (newest.revision if newest else 0) != control.revision - 1:
            raise _outrun(newest)
        return control

    amend(settings, unless_outrun)


def amend(settings: Settings, following: Callable[[Control | None], Control]) -> Control:
    """Write the record that follows the newest one, whatever that is by now; gives what was written.

    Raises Outrun when another takes over meanwhile, Fatal when there is no such topic, KafkaUnavailable when the broker
    does not answer in time.
    """
    require_topics(settings, settings.topic_control)
    producer = transactional_producer(settings, f"{settings.topic_control}-promote")  # 1 fence
    control = following(read(settings).log.state)  # 2 read
    value = encode(control)
    try:
        producer.begin_transaction()
        for key in (control.key, STATE_KEY):  # 3 write
            producer.produce(settings.topic_control, key=key, value=value, partition=_PARTITION)
        _commit(producer, settings)  # 4 commit
        return control
    except KafkaException as error:
        failure = as_error(error)
        if isinstance(failure, Fenced):
            found = read(settings).log  # its answer may have been lost on the way back
            if found.history.get(control.revision) == control:
                return control
            raise _outrun(found.state) from error
        with suppress(KafkaException):  # then the next one to write ends it, or its timeout
            producer.abort_transaction(_ABORT_SECONDS)
        raise type(failure)(f"{failure}; `bnpl-shadow control` tells whether it was written") from error


def _commit(producer: Any, settings: Settings) -> None:
    deadline = Deadline.after(settings.transaction_timeout_ms / 1000)
    while True:
        try:
            return producer.commit_transaction(deadline.remaining)  # type: ignore[no-any-return]
        except KafkaException as error:
            if not error.args[0].retriable() or deadline.passed:
                raise


def _outrun(newest: Control | None) -> Outrun:
    now = f"; the newest is revision {newest.revision}: {newest.action} by {newest.made_by}" if newest else ""
    return Outrun(f"another promotion came first{now}. See `bnpl-shadow control`, then do it again if need be")


class Ruler(Protocol):
    """Says who decides."""

    def newest(self) -> Activation:
        """What rules now."""

    def following(self) -> AbstractContextManager[None]:
        """Keeps up with what rules while the block runs."""


class ControlFollower:
    """What rules this process, followed in a thread of its own: errors of Kafka are waited out, and meanwhile the last
    good state goes on ruling.
    """

    def __init__(
        self, settings: Settings, model_set: ModelSet, metrics: Metrics, max_silence: float | None = None
    ) -> None:
        """`max_silence`: after so many seconds without Kafka's word that the state is the newest, it is in doubt.
        Without this bound Kafka is not asked.
        """
        self._max_silence = max_silence
        self._heard_until = self._next_ask = Deadline.after(0)
        self._settings, self._model_set = settings, model_set
        self._skipped = metrics.control_skipped
        self._stop, self._read_once = threading.Event(), threading.Event()
        self._newest = Activation(model_set.champion)
        self._ruled_by: Control | None = None
        self.history: tuple[Control, ...] = ()
        """All good records up to the one that rules, oldest first."""

    @property
    def known(self) -> bool:
        """Whether the topic was read once: until then nobody can say who decides."""
        return self._read_once.is_set()

    def newest(self) -> Activation:
        """What rules now. Waits for the first look at the topic: raises KafkaUnavailable when that takes long, Fatal
        when there is no such topic.
        """
        if not self._read_once.wait(_FIRST_READ_SECONDS):
            require_topics(self._settings, self._settings.topic_control)
            raise KafkaUnavailable(f"{self._settings.topic_control} was not read yet, which says who decides")
        return replace(self._newest, doubt=self._doubt)

    @property
    def _doubt(self) -> str | None:
        if self._max_silence is None or not self._heard_until.passed:
            return None
        return f"for {self._max_silence:.0f} s Kafka has not said whether that still rules"

    @contextmanager
    def following(self) -> Iterator[None]:
        """While the block runs."""
        thread = threading.Thread(target=self._follow, name="control", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join(_READ_SECONDS)

    def _follow(self) -> None:
        while not self._stop.is_set():
            try:
                with _Tail(self._settings) as tail:
                    self._read(tail)
            except BnplError as error:
                log.warning("control topic is read again from its beginning", reason=str(error))
                self._stop.wait(_RETRY_SECONDS)

    def _read(self, tail: _Tail) -> None:
        records = ControlLog()
        while not self._stop.is_set():
            if (message := tail.next(_POLL_SECONDS)) is not None:
                self._take(records, message)
            elif tail.at_end:
                self._rule_by(records)
                self._hear(tail)
                self._read_once.set()

    def _hear(self, tail: _Tail) -> None:
        """Let what was true when Kafka was asked hold for a while."""
        if self._max_silence is None or not self._next_ask.passed:
            return
        heard_until = Deadline.after(self._max_silence)
        if tail.is_whole(_ASK_SECONDS):
            self._heard_until = heard_until
        self._next_ask = Deadline.after(_ASK_EVERY_SECONDS)

    def _take(self, records: ControlLog, message: Any) -> None:
        try:
            records.take(message.key(), message.value())
        except InvalidRecord as reason:
            self._pass_over(reason.error, str(reason), offset=message.offset())

    def _rule_by(self, records: ControlLog) -> None:
        state = records.state
        if state is None or state is self._ruled_by:
            return
        self._ruled_by, self.history = state, tuple(records.history.values())
        self._newest = ruling(Activation(self._model_set.champion), records.history.values(), self._model_set)
        if (self._newest.revision, self._newest.champion) != (state.revision, state.champion):
            why = f"{state.champion} of {state.artifact_version} is not loaded here"
            self._pass_over("not_loaded", why, revision=state.revision)

    def _pass_over(self, error: str, reason: str, **facts: int) -> None:
        log.warning("control record passed over", error=error, reason=reason, **facts)
        self._skipped.labels(error).inc()
