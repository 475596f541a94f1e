"""What tests of contracts and scoring share: a plainly good transaction, and how many examples a property gets."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from hypothesis import settings

from consumer.clock import utc_now

Transaction = dict[str, Any]


def examples(count: int) -> settings:
    """Modest and steady: no deadline on a noisy machine, the same examples on every CI run."""
    return settings(max_examples=count, deadline=None, derandomize="CI" in os.environ, print_blob=True)


def transaction(**changes: Any) -> Transaction:
    """A valid transaction of an hour ago, as a dict, with fields changed; `...` removes a field."""
    event: Transaction = {
        "transaction_id": "t-1",
        "customer_id": "c-1",
        "transaction_timestamp": int((utc_now() - timedelta(hours=1)).timestamp() * 1000),
        "amount": 120.5,
        "customer_tenure_days": 400,
        "customer_credit_score_range": "good",
        "customer_age_bracket": "35-44",
        "customer_income_bracket": "50k-75k",
        "customer_verification_level": "verified",
        "device_type": "mobile",
        "device_is_trusted": True,
        "product_category": "electronics",
        "product_risk_category": "low",
        "risk_score": 0.25,
        "risk_level": "low",
        "risk_scenario": "low_risk_purchase",
        "payment_provider": "klarna",
        "installment_count": 4,
        "payment_credit_limit": 2000.0,
        "price_comparison_time": 120,
        "purchase_context": "normal",
        **changes,
    }
    return {name: value for name, value in event.items() if value is not ...}
