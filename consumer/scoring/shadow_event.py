"""The shadow event: decisions and scores as the columns of `schemas/shadow_event`, one row a transaction."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from consumer.scoring.controller import Shadow, ShadowModeController
from consumer.scoring.predictor import Predictions

_PSEUDONYMS_KEPT = 200_000


@dataclass(frozen=True)
class Source:
    """Where n transactions were read: one topic, n partitions, n offsets."""

    topic: str
    partitions: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]


class Pseudonyms:
    """customer_id → HMAC-SHA256 under the deployment's key, once a distinct customer; no key, no reference."""

    def __init__(self, key: str | None) -> None:
        self._key = key.encode() if key else None
        self._known: dict[str, str] = {}

    def of(self, customer_ids: pa.Array) -> pa.Array:
        """String column of hexadecimal references, or nulls."""
        if self._key is None:
            return pa.nulls(len(customer_ids), pa.string())
        encoded = customer_ids.dictionary_encode()
        if len(self._known) > _PSEUDONYMS_KEPT:
            self._known.clear()
        references = []
        for customer in encoded.dictionary.to_pylist():
            if customer not in self._known:
                self._known[customer] = hmac.digest(self._key, customer.encode(), "sha256").hex()
            references.append(self._known[customer])
        return pa.array(references, pa.string()).take(encoded.indices)


class ShadowEvents:
    """Builds shadow events for one controller and one schema."""

    def __init__(self, controller: ShadowModeController, schema: pa.Schema, pseudonyms: Pseudonyms) -> None:
        """`schema` is what the event writer expects (`EventWriter.arrow_schema`)."""
        self._schema = schema
        self._pseudonyms = pseudonyms
        self._controller = controller
        self._suffix = pa.scalar("." + controller.identity)
        self._model_fields = {each.name: each for each in schema.field("models").type.value_type}
        self._model_constants: dict[str, pa.Array] = {}
        self._constants_of: tuple[str, int] = ("", 0)

    def build(
        self, transactions: pa.RecordBatch, shadow: Shadow, source: Source, scored_at: datetime
    ) -> pa.RecordBatch:
        """N events in the schema's column order."""
        n = transactions.num_rows
        rules, model_set = self._controller.rules, self._controller.predictor.model_set
        predictions = shadow.predictions
        transaction_id = transactions.column("transaction_id")

        def same(value: object, kind: pa.DataType) -> pa.Array:
            return pa.repeat(pa.scalar(value, kind), n)

        columns = {
            "prediction_id": pc.binary_join_element_wise(transaction_id, self._suffix, ""),
            "transaction_id": transaction_id,
            "customer_ref": self._pseudonyms.of(transactions.column("customer_id")),
            "event_time": transactions.column("transaction_timestamp"),
            "scored_at": same(int(scored_at.timestamp() * 1000), pa.int64()),
            "amount": transactions.column("amount"),
            "installment_count": transactions.column("installment_count"),
            "checkout_decision": transactions.column("business_decision"),
            "approval_propensity": transactions.column("approval_propensity"),
            "rule_set_version": same(rules.version, pa.string()),
            "rule_set_sha256": same(rules.sha256, pa.string()),
            "business_decision": shadow.decisions.decision,
            "business_risk_flag": shadow.decisions.risk_flag,
            "business_risk_score": shadow.decisions.risk_score,
            "reason_codes": shadow.decisions.reason_codes,
            "models": self._models(predictions),
            "champion": same(predictions.champion, pa.string()),
            "champion_score": _nullable(predictions.champion_scores),
            "consensus": _nullable(predictions.consensus),
            "mode": same(shadow.standing.mode, pa.string()),
            "decision": shadow.standing.decision,
            "decided_by": shadow.standing.decided_by,
            "feature_spec_version": same(model_set.feature_spec_version, pa.string()),
            "artifact_version": same(model_set.version, pa.string()),
            "source_topic": same(source.topic, pa.string()),
            "source_partition": pa.array(source.partitions),
            "source_offset": pa.array(source.offsets),
            "advisory": shadow.standing.advisory,
        }
        return pa.RecordBatch.from_arrays(
            [columns[each.name].cast(each.type) for each in self._schema], schema=self._schema
        )

    def _models(self, predictions: Predictions) -> pa.Array:
        """list<ModelScore>: K entries a row, built from model-by-row arrays without touching a row."""
        count, n = predictions.scores.shape
        scores = np.ascontiguousarray(predictions.scores.T).ravel()
        missing = np.isnan(scores)
        thresholds = np.array(
            [np.nan if entry.flag_threshold is None else entry.flag_threshold for entry in predictions.models]
        )
        no_flag = missing | np.tile(np.isnan(thresholds), n)
        children = {
            **self._constants(predictions, n),
            "score": pa.array(scores, mask=missing if missing.any() else None),
            "flag": pa.array(scores >= np.tile(thresholds, n), mask=no_flag if no_flag.any() else None),
            "error": self._errors(predictions, missing, n),
        }
        entries = pa.StructArray.from_arrays(
            [children[name] for name in self._model_fields], fields=list(self._model_fields.values())
        )
        ends = np.arange(n + 1, dtype=np.int32) * count
        return pa.ListArray.from_arrays(pa.array(ends), entries, type=self._schema.field("models").type)

    def _constants(self, predictions: Predictions, n: int) -> dict[str, pa.Array]:
        """name, version, role and kind repeat for every row: kept for the longest batch seen since the champion came,
        and sliced.
        """
        champion, rows = self._constants_of
        if n > rows or champion != predictions.champion:
            turns = pa.array(np.tile(np.arange(len(predictions.models)), n))
            for name in ("name", "version", "role", "score_kind"):
                values = pa.array([getattr(entry, name) for entry in predictions.models], pa.string())
                self._model_constants[name] = values.take(turns)
            self._constants_of = predictions.champion, n
        length = n * len(predictions.models)
        return {name: values.slice(0, length) for name, values in self._model_constants.items()}

    @staticmethod
    def _errors(predictions: Predictions, missing: npt.NDArray[np.bool_], n: int) -> pa.Array:
        if not missing.any():
            return pa.nulls(len(missing), pa.string())
        names = pa.array([predictions.errors.get(entry.name) for entry in predictions.models], pa.string())
        errors = names.take(pa.array(np.tile(np.arange(len(predictions.models)), n)))
        return pc.if_else(pa.array(missing), errors, pa.scalar(None, pa.string()))


def _nullable(scores: npt.NDArray[np.float64]) -> pa.Array:
    return pa.array(scores, from_pandas=True)
