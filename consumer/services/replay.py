"""Dead letters sent again: each record to the topic it was read from and, in the same Kafka transaction, a marker
behind its letter that says so (docs/decisions/0011-replay-markers.md).

1. begin    a transaction; its id is the topic's, so that a second replay fences this one
2. records  each letter's key, value and own headers; wait until the broker says where they are
3. markers  for each letter one, in its partition
4. commit   all of 2 and 3 become visible at once, or none of it does
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from consumer.clock import Deadline, utc_now
from consumer.contracts.dead_letter import Coordinates, Replay, marker_headers, refusal, replay_headers
from consumer.errors import BnplError, Fatal, Fenced, KafkaUnavailable
from consumer.services.dead_letters import headers_of
from consumer.services.kafka import as_error, transactional_producer
from consumer.settings import Settings

LETTERS_AT_ONCE = 50
"""Letters of one transaction: few enough for the producer's queue, however large they are."""
_ABORT_SECONDS = 5.0
_WAIT_SECONDS = 0.1


class Replayer:
    """The one who replays the letters of a topic; making it takes over from any other, whose open transaction is
    aborted. So what is read of the topic after that is changed by nobody else.
    """

    def __init__(self, settings: Settings) -> None:
        """Raises KafkaUnavailable when the broker does not answer."""
        self._seconds = settings.transaction_timeout_ms / 1000
        self._producer = transactional_producer(settings, f"{settings.topic_dead_letters}-replay")

    def replay(self, letters: Sequence[Any]) -> list[Replay]:
        """Send the records of these letters (messages of the dead-letter topic) again, all of them or none.

        Raises Fenced when another replay took over, Fatal that names the letter that a topic refuses, and
        KafkaUnavailable when the broker does not answer in time: whether it was done, the markers tell.
        """
        deadline = Deadline.after(self._seconds)
        with self._transaction(deadline):  # 1 begin, 4 commit
            places = self._send(letters, [_record(each) for each in letters], deadline)  # 2 records
            now = utc_now().isoformat(timespec="milliseconds")
            replays = [Replay(_place(letter), to, now) for letter, to in zip(letters, places, strict=True)]
            self._send(letters, [_marker(each) for each in replays], deadline)  # 3 markers
        return replays

    @contextmanager
    def _transaction(self, deadline: Deadline) -> Iterator[None]:
        try:
            self._producer.begin_transaction()
            yield
            self._producer.commit_transaction(deadline.remaining)
        except KafkaException as error:
            self._abort()
            raise _named(as_error(error)) from error
        except BaseException:
            self._abort()
            raise

    def _abort(self) -> None:
        with suppress(KafkaException):  # then the next replay ends it, or its timeout
            self._producer.abort_transaction(_ABORT_SECONDS)

    def _send(self, letters: Sequence[Any], records: list[dict[str, Any]], deadline: Deadline) -> list[Coordinates]:
        """Where the broker put each record, once it acknowledged all of them."""
        places: dict[int, Coordinates] = {}
        failed: dict[int, KafkaError] = {}

        def delivered(at: int, error: KafkaError | None, message: Any) -> None:
            if error is None:
                places[at] = _place(message)
            else:
                failed[at] = error

        for at, record in enumerate(records):
            self._produce(record | {"on_delivery": partial(delivered, at)}, deadline)
        while self._producer.flush(_WAIT_SECONDS):  # by short waits, so that Ctrl-C is heard
            if deadline.passed:
                raise KafkaUnavailable(f"the broker did not take {len(records)} records within {self._seconds:.0f} s")
        causes = {at: _named(as_error(KafkaException(error))) for at, error in failed.items()}
        for at, cause in causes.items():
            if isinstance(cause, Fatal) and not isinstance(cause, Fenced):
                raise Fatal(f"letter {_short(letters[at])} cannot be sent to {records[at]['topic']} again: {cause}")
        for cause in causes.values():  # one that is refused takes the others of its transaction with it
            raise cause
        return [places[at] for at in range(len(records))]

    def _produce(self, record: dict[str, Any], deadline: Deadline) -> None:
        while True:
            try:
                return self._producer.produce(**record)
            except BufferError:
                if deadline.passed:
                    raise KafkaUnavailable("the producer's queue stays full") from None
                self._producer.poll(_WAIT_SECONDS)


def _record(letter: Any) -> dict[str, Any]:
    found = headers_of(letter) or ()
    why = refusal(found)
    if why is None:
        raise Fatal(f"{_short(letter)} is not a dead letter")
    return {
        "topic": why.source.topic,
        "value": letter.value(),
        "key": letter.key(),
        "headers": replay_headers(found),
    }


def _marker(replay: Replay) -> dict[str, Any]:
    return {"topic": replay.of.topic, "partition": replay.of.partition, "headers": marker_headers(replay)}


def _named(error: BnplError) -> BnplError:
    """What fencing means to this producer, whose id no setting makes."""
    if isinstance(error, Fenced):
        return Fenced(
            "another `bnpl-shadow dlq replay` took over, or this one stood still for longer than "
            "BNPL_TRANSACTION_TIMEOUT_MS; what it had begun is undone, and `bnpl-shadow dlq ls` tells how things stand"
        )
    return error


def _place(message: Any) -> Coordinates:
    return Coordinates(message.topic(), message.partition(), message.offset())


def _short(letter: Any) -> str:
    return f"{letter.partition()}/{letter.offset()}"
