"""A season's rows as an evaluation sees them, made in process: no Kafka, no ClickHouse, and none of the code that reads
them out of there.
"""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from consumer.contracts.horizons import Horizons
from consumer.evaluation.evaluate import Evaluation, evaluate
from consumer.evaluation.policy import Policy, Targets
from consumer.evaluation.sample import Sample
from consumer.research.season import Plan, outcomes, traffic
from consumer.scoring.controller import ShadowModeController
from consumer.scoring.rules import RISK_FLAGS


class PlayedInProcess:
    """A plan's checkouts, scored, and its outcomes."""

    def __init__(self, plan: Plan, controller: ShadowModeController, horizons: Horizons, label: str) -> None:
        self._plan, self._horizons, self._label = plan, horizons, label
        self._checkouts = traffic(plan)
        known = outcomes(plan, self._checkouts, horizons)
        self._known = known.filter(pc.equal(known.column("label"), label))
        self._models = controller.predictor.model_set.models
        self._shadow = controller.score_batch(self._checkouts)

    def sample(self, as_of: datetime) -> Sample:
        """Of all that is old enough then, with the outcomes that are known then."""
        checkouts, shadow = self._checkouts, self._shadow
        times = checkouts.column("transaction_timestamp").to_numpy()
        known = self._known.filter(pa.array(self._known.column("observed_at").to_numpy() <= as_of.timestamp() * 1000))
        at = pc.index_in(checkouts.column("transaction_id"), known.column("transaction_id"))
        bad = known.column("defaulted").take(at).fill_null(False)
        sample = Sample(
            order=np.random.default_rng(0).permutation(len(times)).astype(np.uint64),
            customer=checkouts.column("customer_id").dictionary_encode().indices.to_numpy().astype(np.int64),
            event_time=times.astype("datetime64[ms]"),
            amount=checkouts.column("amount").to_numpy(),
            rules_flag=pc.index_in(shadow.decisions.risk_flag, pa.array(RISK_FLAGS)).to_numpy().astype(np.int8),
            rules_score=shadow.decisions.risk_score.to_numpy(zero_copy_only=False),
            approved=pc.equal(checkouts.column("business_decision"), "approve").to_numpy(zero_copy_only=False),
            observed=at.is_valid().to_numpy(zero_copy_only=False),
            defaulted=bad.to_numpy(zero_copy_only=False),
            weight=1 / checkouts.column("approval_propensity").to_numpy(),
            scores={each.name: shadow.predictions.scores[row] for row, each in enumerate(self._models)},
            probability={each.name: each.score_kind == "probability" for each in self._models},
        )
        plans = checkouts.column("installment_count").to_numpy()
        return sample.only(self._horizons.mature(self._label, times, plans, as_of))

    def evaluate(self, policy: Policy, targets: Targets) -> Evaluation:
        """The last of the policy's looks, which knows those before it."""
        wait = self._plan.wait_weeks(self._horizons, self._label)
        earlier = []
        for week in policy.looks_at_weeks:
            found = evaluate(self.sample(self._plan.week_end(week + wait)), policy, targets, week, earlier=earlier)
            earlier.append(found.look)
        return found
