"""One transaction's way: event, decision, features, scores, shadow event, row, outcome, or where it got stuck."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from consumer.contracts.dead_letter import Coordinates, Refusal, was_replayed
from consumer.contracts.events import EventReader
from consumer.contracts.registry import schema_registry
from consumer.contracts.schemas import WriterSchemas, latest
from consumer.contracts.transaction import FIELDS
from consumer.errors import ArtifactError, BnplError, Retryable
from consumer.scoring.controller import ShadowModeController
from consumer.scoring.load import load_controller
from consumer.services.dead_letters import headers_of
from consumer.settings import Settings
from consumer.watch import letters as dead_letters
from consumer.watch.lag import LagReader, PartitionLag
from consumer.watch.letters import Progress
from consumer.watch.records import TopicReader
from consumer.watch.trace.explain import recompute
from consumer.watch.trace.search import Search, stored_rows
from consumer.watch.trace.story import Event, Letter, Prediction, Sending, State, Trace

_GROUP_PATIENCE_SECONDS = 3.0
_PRIVATE = ("customer_id",)

Positions = dict[int, PartitionLag] | None
"""Where a group is, by partition; None when it could not be asked."""


def trace(
    settings: Settings,
    transaction_id: str,
    *,
    since: datetime | None = None,
    everything: bool = False,
    progress: Progress = lambda *_: None,
) -> Trace:
    """All that can be told now; what is away is named in the answer and does not raise.

    With a row in ClickHouse the records are read where it says, without one they are searched. `everything` searches
    all the same, so that further sendings of the same id are found; `since` bounds a search by Kafka's times.
    """
    return _Tracer(settings, transaction_id, since, everything, progress).trace()


class _Tracer:
    def __init__(
        self, settings: Settings, transaction_id: str, since: datetime | None, everything: bool, progress: Progress
    ) -> None:
        self._settings, self._id, self._since = settings, transaction_id, since
        self._everything, self._progress = everything, progress
        self._registry = schema_registry(settings)
        self._transactions = EventReader(WriterSchemas("transaction", self._registry), FIELDS)
        self._events = EventReader(
            WriterSchemas("shadow_event", self._registry), latest("shadow_event").schema["fields"]
        )
        self._columns: dict[Coordinates, pa.RecordBatch] = {}
        self._away: dict[str, str] = {}
        self._away_passes = True
        self._any_replayed = False

    def trace(self) -> Trace:
        rows: list[dict[str, Any]] = []
        try:
            rows = stored_rows(self._settings, self._id)
        except BnplError as error:
            self._cannot_ask("ClickHouse", error)
        try:
            with TopicReader(self._settings) as reader:
                sendings = self._from_topics(reader, rows)
        except BnplError as error:
            self._cannot_ask("Kafka", error)
            sendings = self._from_rows(rows)
        finally:
            if self._registry is not None:
                self._registry.close()
        searched = self._searched(bool(rows), bool(sendings))
        return Trace(self._id, self._explained(sendings), self._away, self._away_passes, searched)

    def _cannot_ask(self, part: str, error: BnplError) -> None:
        self._away[part] = str(error)
        self._away_passes &= isinstance(error, Retryable)

    def _searched(self, stored: bool, found: bool) -> str:
        if stored and not self._everything:
            return "read where its row says; --all also looks for further sendings of the same id"
        what = "all that Kafka holds"
        if self._since:
            what = f"what came into Kafka since {self._since:%Y-%m-%d %H:%M:%S} UTC"
        if found and not self._everything:
            return f"{what} was searched from its end back, until it was found; --all goes on"
        return f"{what} was searched"

    # what is there

    def _from_topics(self, reader: TopicReader, rows: list[dict[str, Any]]) -> list[Sending]:
        settings = self._settings
        reader.topics()  # a broker that is away is told at once, and as such
        search = Search(reader, self._id, self._since, self._everything, self._progress)
        predictions = self._predictions(reader, search, rows)
        sources = {_source(each.recorded) for each in predictions}
        events = self._found_events(reader, search, sources)
        letters: list[Letter] = []
        unstored = not predictions or any(each.row is None for each in predictions)
        if set(events) - sources or unstored or self._any_replayed or self._everything:
            places = set(events) | {each.at for each in predictions if each.at}
            letters = [_letter(*each) for each in search.letters(settings, places)]
            events |= self._refused_events(reader, {each.source for each in letters} - set(events))
        asked_clickhouse = not self._away
        scored = self._positions(settings.score_group, settings.topic_transactions)
        stored = self._positions(settings.sink_group, settings.topic_shadow_scores)
        by_source: dict[Coordinates, list[Prediction]] = defaultdict(list)
        for each in predictions:
            by_source[_source(each.recorded)].append(each)
        refused: dict[Coordinates, list[Letter]] = defaultdict(list)
        for letter in letters:
            refused[self._record_of(letter, predictions)].append(letter)
        replay_of = {letter.replayed_to: letter.at for letter in letters}
        found = []
        for at in sorted({*events, *by_source, *refused}, key=lambda each: (each.partition, each.offset)):
            if by_source[at]:
                state, told = _stored_state(by_source[at][-1], refused[at], stored, clickhouse=asked_clickhouse)
            else:
                state, told = _scored_state(at, refused[at], scored)
            found.append(Sending(at, events.get(at), refused[at], by_source[at], state, told, replay_of.get(at)))
        return sorted(found, key=lambda each: each.event.arrived if each.event else datetime.min.replace(tzinfo=UTC))

    @staticmethod
    def _record_of(letter: Letter, predictions: list[Prediction]) -> Coordinates:
        """The transaction that a letter belongs to; one of the sink's was read, and replayed, as a shadow event."""
        for each in predictions:
            if each.at in (letter.source, letter.replayed_to):
                return _source(each.recorded)
        return letter.source

    def _predictions(self, reader: TopicReader, search: Search, rows: list[dict[str, Any]]) -> list[Prediction]:
        topic = self._settings.topic_shadow_scores
        newest: dict[str, dict[str, Any]] = {}
        for row in sorted(rows, key=lambda each: int(each["shadow_offset"])):
            newest[row["prediction_id"]] = row
        if rows and not self._everything:
            places = {Coordinates(topic, row["shadow_partition"], row["shadow_offset"]): row for row in rows}
            messages = {place: reader.at(place) for place in places}
            gone = [
                Prediction(_recorded(row), None, None, newest[row["prediction_id"]])
                for place, row in places.items()
                if messages[place] is None
            ]
            return [*gone, *self._read_predictions([each for each in messages.values() if each], newest)]
        return self._read_predictions(search.keyed(topic), newest)

    def _read_predictions(self, messages: list[Any], rows: dict[str, dict[str, Any]]) -> list[Prediction]:
        self._note_replayed(messages)
        decoded = self._events.read([message.value() for message in messages])
        found = []
        for position, event in zip(decoded.positions, decoded.batch.to_pylist(), strict=True):
            message = messages[position]
            for name in ("event_time", "scored_at"):
                event[name] = datetime.fromtimestamp(event[name] / 1000, UTC)
            found.append(Prediction(event, _place(message), _arrived(message), rows.get(event["prediction_id"])))
        return found

    def _found_events(self, reader: TopicReader, search: Search, sources: set[Coordinates]) -> dict[Coordinates, Event]:
        if sources and not self._everything:
            messages = [message for message in map(reader.at, sources) if message is not None]
        else:
            messages = search.mentioning(self._settings.topic_transactions)
        return self._read_events(messages)

    def _refused_events(self, reader: TopicReader, sources: set[Coordinates]) -> dict[Coordinates, Event]:
        """Records that were refused, and replayed since: a search for what came of them has not met them."""
        there = [each for each in sources if each.topic == self._settings.topic_transactions and each.partition >= 0]
        return self._read_events([message for message in map(reader.at, there) if message is not None])

    def _read_events(self, messages: list[Any]) -> dict[Coordinates, Event]:
        self._note_replayed(messages)
        decoded = self._transactions.read([message.value() for message in messages])
        found = {}
        for row, position in enumerate(decoded.positions.tolist()):
            message, columns = messages[position], decoded.batch.slice(row, 1)
            (fields,) = columns.to_pylist()
            if fields["transaction_id"] == self._id:
                self._columns[_place(message)] = columns
                time = datetime.fromtimestamp(fields["transaction_timestamp"] / 1000, UTC)
                told = {name: value for name, value in fields.items() if name not in _PRIVATE}
                found[_place(message)] = Event(_arrived(message), told | {"transaction_timestamp": time})
        for bad in decoded.rejected:
            message = messages[bad.position]
            found[_place(message)] = Event(_arrived(message), None, str(bad.reason))
        return found

    def _note_replayed(self, messages: list[Any]) -> None:
        self._any_replayed |= any(was_replayed(headers_of(message) or ()) for message in messages)

    def _from_rows(self, rows: list[dict[str, Any]]) -> list[Sending]:
        """Without Kafka: what the table holds."""
        latest_rows = {row["prediction_id"]: row for row in sorted(rows, key=lambda each: int(each["shadow_offset"]))}
        return [
            Sending(_source(row), None, [], [Prediction(_recorded(row), None, None, row)], "stored", "stored")
            for row in latest_rows.values()
        ]

    # how far it is

    def _positions(self, group: str, topic: str) -> Positions:
        try:
            with LagReader(self._settings, group, [topic]) as lag:
                return {each.partition: each for each in lag.look(_GROUP_PATIENCE_SECONDS).partitions}
        except BnplError as error:
            self._cannot_ask(f"group {group}", error)
            return None

    # the scores, made again

    def _explained(self, sendings: list[Sending]) -> list[Sending]:
        if not any(each.predictions for each in sendings):
            return sendings
        try:
            controller: ShadowModeController | None = load_controller(self._settings)
            unusable = ""
        except ArtifactError as error:
            controller, unusable = None, f"the rules or models here cannot be loaded: {error}"
        return [
            replace(
                each,
                predictions=[
                    self._explain(one, self._columns.get(each.at), controller, unusable) for one in each.predictions
                ],
            )
            for each in sendings
        ]

    def _explain(
        self,
        prediction: Prediction,
        event: pa.RecordBatch | None,
        controller: ShadowModeController | None,
        unusable: str,
    ) -> Prediction:
        if controller is None:
            return replace(prediction, not_recomputed=unusable)
        if event is None:
            return replace(prediction, not_recomputed="the event could not be read")
        made_by = prediction.recorded["prediction_id"].removeprefix(f"{self._id}.")
        if made_by != controller.identity:
            why = f"it was scored by {made_by} and {controller.identity} is loaded here (models, rules, feature spec)"
            return replace(prediction, not_recomputed=why)
        return replace(prediction, recomputed=recompute(controller, event, prediction.recorded))


def _scored_state(at: Coordinates, letters: list[Letter], score: Positions) -> tuple[State, str]:
    """Of a record without a prediction."""
    if letters:
        last = letters[-1]
        why = f"refused at {last.stage}: {last.error}"
        return ("replayed", f"{why}, then replayed as {last.replayed_to}") if last.replayed_to else ("dead letter", why)
    if score is None:
        return "unknown", "neither a shadow event nor a dead letter, and where score is could not be asked"
    group = score.get(at.partition)
    if group and group.position <= at.offset:
        return "waiting for score", _before(group, at)
    what = "score has passed it, but neither a shadow event nor a dead letter of it is"
    return "unknown", f"{what} in the topics any more, or within the bounds of the search"


def _stored_state(
    prediction: Prediction, letters: list[Letter], sink: Positions, *, clickhouse: bool
) -> tuple[State, str]:
    """Of a record with a prediction."""
    if prediction.row is not None:
        return "stored", "stored, then replaced by a later sending" if prediction.replaced else "stored"
    if letters:
        return "dead letter", f"scored, then refused by the sink at {letters[-1].stage}: {letters[-1].error}"
    at = prediction.at
    if at is None or sink is None:
        return "unknown", "scored; where the sink is could not be asked"
    group = sink.get(at.partition)
    if group and group.position <= at.offset:
        return "waiting for sink", _before(group, at)
    if clickhouse:
        return "unknown", "the sink has passed it, but the table has no row of it"
    return "unknown", "the sink has passed it; ClickHouse could not be asked for its row"


def _before(group: PartitionLag, at: Coordinates) -> str:
    ahead = at.offset - group.position
    return (
        f"its group is at offset {group.position} of that partition, {ahead} before this; its lag is {group.messages}"
    )


def _source(recorded: dict[str, Any]) -> Coordinates:
    return Coordinates(recorded["source_topic"], int(recorded["source_partition"]), int(recorded["source_offset"]))


def _place(message: Any) -> Coordinates:
    return Coordinates(message.topic(), message.partition(), message.offset())


def _arrived(message: Any) -> datetime:
    return datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)


def _letter(letter: dead_letters.Letter, why: Refusal) -> Letter:
    return Letter(
        at=letter.at,
        arrived=letter.arrived,
        source=why.source,
        stage=why.stage,
        error=why.error,
        message=why.message,
        attempt=why.attempt,
        first_failed_at=why.first_failed_at,
        replayed_to=letter.replay.to if letter.replay else None,
        replayed_at=letter.replay.at if letter.replay else None,
    )


def _recorded(row: dict[str, Any]) -> dict[str, Any]:
    """A row as the shadow event that it copies."""
    names = [each["name"] for each in latest("shadow_event").schema["fields"]]
    nested = {name.partition(".")[2]: values for name, values in row.items() if name.startswith("models.")}
    models = [dict(zip(nested, each, strict=True)) for each in zip(*nested.values(), strict=True)]
    told = {name: row[name] for name in names if name != "models"}
    for name in ("event_time", "scored_at"):
        told[name] = told[name].replace(tzinfo=UTC)
    return told | {"models": models}
