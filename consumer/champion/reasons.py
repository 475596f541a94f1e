"""The transactions that exactly one model flags, by name, and what made it: coefficient × value of each feature."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from clickhouse_connect.driver.client import Client

from consumer.champion.scope import Snapshot
from consumer.contracts.dead_letter import Coordinates
from consumer.contracts.events import EventReader
from consumer.contracts.registry import schema_registry
from consumer.contracts.schemas import WriterSchemas
from consumer.contracts.transaction import FIELDS
from consumer.errors import BnplError
from consumer.evaluation.evaluate import Evaluation
from consumer.evaluation.sample import Sample
from consumer.scoring.predictor import BNPLMultiModelPredictor
from consumer.services.clickhouse import errors_named
from consumer.settings import Settings
from consumer.watch.records import Ranges, TopicReader
from consumer.watch.trace.explain import linear_forms

_REASONS = 5
_GONE = "Kafka does not hold the transaction any more, and features are not stored"
_PLACES = """
SELECT cityHash64(transaction_id) AS row_order, transaction_id, source_topic, source_partition, source_offset
FROM shadow_scores FINAL
WHERE artifact_version = {artifact:String} AND rule_set_version = {rules:String}
  AND feature_spec_version = {features:String} AND cityHash64(transaction_id) IN {orders:Array(UInt64)}
"""


@dataclass(frozen=True)
class Reason:
    """What a feature added to the model's linear form."""

    feature: str
    value: float
    contribution: float


@dataclass(frozen=True)
class Example:
    """One transaction of the ledger. `reasons` are the largest, first; none where `why` says what is missing."""

    transaction_id: str
    model: str
    reasons: list[Reason]
    why: str | None


def explain_examples(
    settings: Settings,
    client: Client,
    snapshot: Snapshot,
    sample: Sample,
    found: Evaluation,
    predictor: BNPLMultiModelPredictor,
) -> dict[int, Example]:
    """Name the ledger's examples, by their position in the sample.

    Features are not stored: they are made again from the transaction where Kafka still holds it. What cannot be read
    takes the reasons with it, never the evaluation.
    """
    asked = {int(sample.order[at]): (at, lone.model) for lone in found.disagreements for at in lone.examples}
    places = _places(client, snapshot, list(asked))
    reasons = _reasons(settings, predictor, {order: (place, asked[order][1]) for order, (_, place) in places.items()})
    return {
        asked[order][0]: Example(transaction_id, asked[order][1], *reasons[order])
        for order, (transaction_id, _) in places.items()
    }


def _places(client: Client, snapshot: Snapshot, orders: list[int]) -> dict[int, tuple[str, Coordinates]]:
    parameters = snapshot.parameters() | {"orders": orders}
    with errors_named():
        rows = client.query(_PLACES, parameters).result_rows
    return {int(order): (name, Coordinates(*place)) for order, name, *place in rows}


Explained = tuple[list[Reason], str | None]


def _reasons(
    settings: Settings, predictor: BNPLMultiModelPredictor, wanted: dict[int, tuple[Coordinates, str]]
) -> dict[int, Explained]:
    """Read the transactions again and take one model's score of each apart."""
    registry = schema_registry(settings)
    transactions = EventReader(WriterSchemas("transaction", registry), FIELDS)
    try:
        with TopicReader(settings) as reader:
            held = {topic: reader.held(topic) for topic in {place.topic for place, _ in wanted.values()}}
            return {
                key: _explained(predictor, transactions, reader, place, model)
                if _is_held(place, held[place.topic])
                else ([], _GONE)
                for key, (place, model) in wanted.items()
            }
    except BnplError as error:
        return dict.fromkeys(wanted, ([], f"the transactions cannot be read again: {error}"))
    finally:
        if registry is not None:
            registry.close()


def _explained(
    predictor: BNPLMultiModelPredictor, transactions: EventReader, reader: TopicReader, place: Coordinates, model: str
) -> Explained:
    message = reader.at(place)
    if message is None:  # deleted since
        return [], _GONE
    decoded = transactions.read([message.value()])
    if not decoded.batch.num_rows:
        return [], "the transaction cannot be read again"
    values = predictor.model_set.engineer.engineer(decoded.batch).matrix[0]
    form = linear_forms(predictor, values)[model]
    if form is None:
        return [], f"{model} is no linear model"
    return list(_largest(form.contributions)), None


def _is_held(place: Coordinates, ranges: Ranges) -> bool:
    begin, end = ranges.get(place.partition, (0, 0))
    return begin <= place.offset < end


def _largest(parts: Iterable[tuple[str, float, float]]) -> list[Reason]:
    reasons = [Reason(name, value, value * weight) for name, value, weight in parts]
    order = np.argsort([-each.contribution for each in reasons], kind="stable")[:_REASONS]
    return [reasons[at] for at in order]
