"""Samples made in the test itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import expit

from consumer.evaluation.outcomes import Clusters, Outcomes
from consumer.evaluation.policy import Policy, Targets, load_policy
from consumer.evaluation.sample import Sample, Segment
from consumer.settings import PROJECT

POLICY_FILE = PROJECT / "artifacts" / "policy" / "promotion_v1.json"
POLICY: Policy = load_policy(POLICY_FILE)[0]
TARGETS = Targets(minimum=1.0, success=2.8, acceptable=(1.5, 2.8))
CONFIDENCE = POLICY.confidence
MODELS = ("ridge", "logistic", "elastic", "ensemble")
START = np.datetime64("2026-08-03T00:00:00.000")
"""A Monday."""


def sample(
    n: int = 4000,
    seed: int = 1,
    *,
    rows_a_customer: float = 1.0,
    weighted: bool = False,
    declined: float = 0.0,
    pending: float = 0.0,
    decimals: int | None = None,
    weeks: int = 4,
    **changes: Any,
) -> Sample:
    """Rows whose risk all scores see in part; the models are near clones. `decimals` rounds scores, to make ties."""
    random = np.random.default_rng(seed)
    risk = random.standard_normal(n)
    defaulted = random.random(n) < expit(-2.5 + risk)
    shared = risk + random.standard_normal(n)
    rules_score = expit(risk + 1.5 * random.standard_normal(n) - 1)
    approved = random.random(n) >= declined
    observed = approved & (random.random(n) >= pending)
    scores = {name: expit(-2.5 + shared / 2 + 0.1 * random.standard_normal(n)) for name in MODELS}
    if decimals is not None:
        rules_score = rules_score.round(decimals)
        scores = {name: values.round(decimals) for name, values in scores.items()}
    customer = np.arange(n) if rows_a_customer == 1 else random.integers(0, int(n / rows_a_customer), n)
    made = Sample(
        order=random.permutation(n).astype(np.uint64),
        customer=customer.astype(np.int64),
        event_time=START + random.integers(0, weeks * 7 * 86_400_000, n).astype("timedelta64[ms]"),
        amount=random.gamma(2.0, 100.0, n),
        rules_flag=np.digitize(rules_score, np.quantile(rules_score, [0.5, 0.9])).astype(np.int8),
        rules_score=rules_score,
        approved=approved,
        observed=observed,
        defaulted=defaulted & observed,
        weight=random.uniform(1.0, 5.0, n) if weighted else np.ones(n),
        scores=scores,
        probability=dict.fromkeys(MODELS, True),
        segments={
            "provider": Segment(random.integers(0, 3, n).astype(np.int32), ("affirm", "klarna", "sezzle")),
            "rare": Segment((random.random(n) < 0.02).astype(np.int32), ("no", "yes")),
        },
    )
    return replace(made, **changes)


def outcomes(of: Sample) -> Outcomes:
    return Outcomes(of.defaulted, of.weight, Clusters(of.customer))
