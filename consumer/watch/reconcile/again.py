"""A second look at what seems lost where retention has deleted what might account for it.

A letter that is gone is believed of a record that is refused now as well. An event that is gone is believed of a
transaction whose row names a later sending of the same id. What is gone itself by now is not judged. Nothing is read
unless something seems lost and retention has deleted what might account for it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from clickhouse_connect.driver.client import Client

from consumer.contracts.avro import Decoded
from consumer.contracts.events import EventReader
from consumer.contracts.registry import SchemaRegistry
from consumer.contracts.schemas import WriterSchemas, latest
from consumer.contracts.transaction import FIELDS, Limits, refuse_impossible
from consumer.services.loop import Batch
from consumer.settings import Settings
from consumer.watch.reconcile.places import Keys, Mask, contained, joined, keys, offsets_of, partitions_of
from consumer.watch.reconcile.table import newest_sources
from consumer.watch.records import TopicReader


class SecondLook:
    """What retention may explain."""

    def __init__(
        self,
        settings: Settings,
        reader: TopicReader,
        client: Client,
        registry: SchemaRegistry | None,
        *,
        events_gone: bool,
        letters_gone: bool,
    ) -> None:
        """`events_gone`, `letters_gone`: whether retention deleted any that would have been looked at."""
        self._settings, self._reader, self._client, self._registry = settings, reader, client, registry
        self._events_gone, self._letters_gone = events_gone, letters_gone

    def of_transactions(self, places: Keys) -> Keys:
        """Those of these transactions that may have had a letter or an event. Takes them sorted, and gives them so."""
        if not len(places) or not (self._events_gone or self._letters_gone):
            return places[:0]
        transactions = EventReader(WriterSchemas("transaction", self._registry), FIELDS)
        standing = []
        for at, decoded in self._read(self._settings.topic_transactions, places, transactions):
            good = refuse_impossible(decoded, Limits.of(self._settings))
            if not self._letters_gone:
                standing.append(at[[bad.position for bad in good.rejected]])
            usable = at[good.positions]
            if self._events_gone:
                usable = usable[~self._sent_again(usable, good.batch.column("transaction_id").to_pylist())]
            standing.append(usable)
        return _without(places, standing)

    def of_events(self, places: Keys) -> Keys:
        """Those of these shadow events that sink may have refused; as `of_transactions`."""
        if not len(places) or not self._letters_gone:
            return places[:0]
        fields = latest("shadow_event").schema["fields"]
        events = EventReader(WriterSchemas("shadow_event", self._registry), fields)
        read = self._read(self._settings.topic_shadow_scores, places, events)
        return _without(places, [at[decoded.positions] for at, decoded in read])

    def _sent_again(self, places: Keys, ids: list[str]) -> Mask:
        rows = newest_sources(self._client, self._settings.topic_transactions, ids) if ids else {}
        own = zip(ids, partitions_of(places).tolist(), offsets_of(places).tolist(), strict=True)
        replaced = [
            any(at != partition or newest > offset for at, newest in rows.get(name, ()))
            for name, partition, offset in own
        ]
        return np.array(replaced, bool)

    def _read(self, topic: str, places: Keys, events: EventReader) -> Iterator[tuple[Keys, Decoded]]:
        ranges = {}
        for partition in np.unique(partitions_of(places)).tolist():
            offsets = offsets_of(places[partitions_of(places) == partition])
            ranges[partition] = (int(offsets.min()), int(offsets.max()) + 1)
        for messages in self._reader.read(topic, ranges):
            batch = Batch.of(messages)
            at = keys(batch.partitions, batch.offsets)
            wanted = contained(at, places)
            if wanted.any():
                values = [value for value, want in zip(batch.values, wanted, strict=True) if want]
                yield at[wanted], events.read(values)


def _without(places: Keys, standing: list[Keys]) -> Keys:
    return places[~contained(places, np.sort(joined(standing)))]
