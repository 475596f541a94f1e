"""What does not add up, by the places of records alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from consumer.watch.reconcile.places import NOWHERE, Keys, below, contained, joined, offsets_of, repeated
from consumer.watch.reconcile.topics import Events, Letters


def unaccounted(transactions: Keys, events: Events, letters: Letters, expired: Keys) -> Keys:
    """Transactions with neither shadow event nor dead letter, nor a row of an event that is gone."""
    accounted = joined([events.sources, letters.sources, expired])
    accounted.sort()
    return transactions[~contained(transactions, accounted)]


def twice(events: Events, letters: Letters) -> Keys:
    """Transactions with the same prediction twice, two dead letters, or a prediction and a letter; each once.

    Predictions of one transaction by different models, rules or features are no repetition; nor is an event that the
    sink refused and that was replayed.
    """
    usable = ~contained(events.places, letters.of_events)
    sources, predictions = events.sources[usable], events.predictions[usable]
    several = contained(sources, repeated(sources))
    pairs = np.stack([sources[several], predictions[several]], axis=1)
    distinct, counts = np.unique(pairs, axis=0, return_counts=True)
    letters_of_events = letters.sources[contained(letters.sources, np.sort(events.sources))]
    found = joined([distinct[counts > 1, 0], repeated(letters.sources), letters_of_events])
    return np.unique(found[found != NOWHERE])


def unknown(places: Keys, sources: Keys, transactions: Keys, kept: dict[int, int]) -> Keys:
    """Places of events or letters whose transaction is not in the topic; `kept` is from where on that has them all."""
    return places[~contained(sources, transactions) & ~below(sources, kept)]


def without_row(events: Events, stored: npt.NDArray[np.bool_], due: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Positions of the events that are due, have no row, and were not replaced by the row of a later event of the same
    prediction. Of several such events of one prediction only the last.
    """
    missing = due & ~stored
    alike = np.flatnonzero(contained(events.predictions, np.unique(events.predictions[missing])))
    predictions, prediction = np.unique(events.predictions[alike], return_inverse=True)
    offsets = offsets_of(events.places[alike])
    last_row = np.full(len(predictions), NOWHERE)
    np.maximum.at(last_row, prediction, np.where(stored[alike], offsets, NOWHERE))
    last_due = np.full(len(predictions), NOWHERE)
    np.maximum.at(last_due, prediction, np.where(missing[alike], offsets, NOWHERE))
    wanting = missing[alike] & (offsets == last_due[prediction]) & (offsets > last_row[prediction])
    found: npt.NDArray[np.intp] = alike[wanting]
    return found
