"""Seeded, plausible buy-now-pay-later transactions with their outcomes, as Arrow columns or JSON lines.

The numbers are invented around a few public facts, which `research.risk` names and keeps. Purchases follow the hour
and the weekday, and customers come back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from consumer.contracts.transaction import EVENT_SCHEMA
from consumer.errors import ConfigurationError
from consumer.research.catalog import (
    BRANDS,
    CATEGORY_SHARES,
    DEVICE_SYSTEMS,
    DEVICE_TYPES,
    MEDIAN_PRICE,
    PRICE_SPREAD,
    PRODUCT_RISK_SHARES,
    SUBCATEGORIES,
)
from consumer.research.population import (
    ADDRESS_STABILITY,
    DEVICES_EACH,
    STATES,
    Codes,
    Floats,
    Population,
    make_population,
)
from consumer.research.risk import LEVEL_BOUNDS, approval_propensity, outcomes, risk_score
from consumer.scoring.features import ONE_HOT, ORDINAL

CHUNK = 50_000
"""Events a batch. Part of the seed's meaning: every chunk draws from its own stream."""
LINES_AT_ONCE = 500
"""Rows turned to JSON together: more at once take twice as long each, for their dicts fill memory and caches."""
SCHEMA = EVENT_SCHEMA.append(pa.field("will_default", pa.bool_())).append(
    pa.field("days_to_first_missed_payment", pa.int64())
)
"""Columns of a simulated batch; without outcomes, those of `contracts.transaction.EVENT_SCHEMA`."""

# invented: quiet nights, a lunch peak and a higher evening peak; shopping when the week's pay arrives
HOUR_WEIGHTS = np.array(
    [1.6, 0.9, 0.5, 0.4, 0.4, 0.6, 1.1, 1.9, 2.7, 3.4, 4.1, 5, 6.3, 5.9, 4.4, 4, 4.3, 5, 5.8, 6.6, 7.1, 7.4, 5.6, 3.2]
)
"""UTC, from midnight."""
DAY_WEIGHTS = np.array([0.85, 0.88, 0.95, 1.04, 1.22, 1.16, 0.9])
"""Monday first."""

# invented: who is stretched, by credit; impulse and recklessness by day and late at night
STRETCHED = np.array([0.21, 0.14, 0.08, 0.03])
RECKLESS, RECKLESS_LATE = 0.03, 0.08
IMPULSE, IMPULSE_LATE = 0.24, 0.36

# invented: the rest of a checkout
DEVICE_USE_SHARES = (0.72, 0.2, 0.08)
PROVIDER_SHARES = (0.32, 0.23, 0.34, 0.11)
ELIGIBLE_SHARE = 0.85
UTILISATION_TOLD_SHARE = 0.3
LONG_PLANS, LONG_PLAN_SHARES = (12, 8, 6), np.array([0.02, 0.05, 0.35])
"""Instalments above four, and how often the dearest baskets take them; that 4 and 6 are the usual is a public fact."""
STRESS, STRESS_SWING, STRESS_PERIOD_MS = 0.3, 0.1, 60 * 86_400_000
"""The economy's mood, 0 calm to 1; it moves slowly and no outcome hangs on it."""

# invented: how people shop in each purchase context (impulse, normal, rushed)
TYPICAL_CONTEXT, TYPICAL_SHARE = np.array([1, 2, 0, 1]), 0.85
"""The context a risk scenario usually comes with, and how often it does."""
COMPARING_SECONDS = np.array([20.0, 150.0, 35.0])
BROWSING_SECONDS = np.array([160.0, 300.0, 110.0])
CONTEXT_SPEED = np.array([2, 1, 3])
SLOW_SHARE = 0.3
"""Of normal checkouts."""
CARTS_LEFT = 0.8
LONGEST_COMPARING, LONGEST_VISIT = 1_200, 5_400

SPEEDS = ("slow", "normal", "fast", "very_fast")

PLANTED_PROVIDER = "sezzle"
"""Whose customers default more often where a simulation plants that; else no outcome hangs on the provider."""


@dataclass(frozen=True)
class SimulationConfig:
    """What to simulate. The same values give the same bytes; ids of different seeds or starts never
    collide.
    """

    events: int
    seed: int = 0
    start: date = date(2026, 6, 1)
    days: int = 92
    customers: int | None = None
    """Unset: one customer to eight events."""
    outcomes: bool = True
    """Whether rows carry `will_default` and `days_to_first_missed_payment`; both are null when checkout
    declined, for then nobody ever learned the outcome."""
    planted: float = 0.0
    """Added to the log-odds of default of checkouts paid through PLANTED_PROVIDER; all else stays as it is without."""

    def __post_init__(self) -> None:
        for name, value in (("events", self.events), ("days", self.days), ("customers", self.customers or 1)):
            if value < 1:
                raise ConfigurationError(f"cannot simulate: {name} is {value}, it must be at least 1")
        if self.seed < 0:
            raise ConfigurationError(f"cannot simulate: seed is {self.seed}, it must not be negative")


def simulate(config: SimulationConfig) -> Iterator[pa.RecordBatch]:
    """Transactions in order of time, CHUNK rows a batch, as columns of SCHEMA (EVENT_SCHEMA without
    outcomes).
    """
    customers = config.customers or max(1, config.events // 8)
    population = make_population(np.random.default_rng([config.seed, 0]), customers)
    times = _arrivals(np.random.default_rng([config.seed, 1]), config)
    for chunk, first in enumerate(range(0, config.events, CHUNK)):
        rng = np.random.default_rng([config.seed, 2, chunk])
        yield _transactions(rng, config, population, times[first : first + CHUNK], first)


def json_lines(batch: pa.RecordBatch) -> bytes:
    """The batch as JSON lines in the shape producers send: ISO timestamps in UTC, absent optional values null."""
    slices = [batch.slice(first, LINES_AT_ONCE) for first in range(0, batch.num_rows, LINES_AT_ONCE)]
    return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for part in slices for row in rows(part))


def rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The batch as JSON-like dicts, one a transaction."""
    names = batch.schema.names
    columns = [_python_values(name, column) for name, column in zip(names, batch.columns, strict=True)]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _python_values(name: str, column: pa.Array) -> list[Any]:
    if name == "transaction_timestamp":
        milliseconds = column.to_numpy().astype("datetime64[ms]")
        text: list[str] = np.char.add(np.datetime_as_string(milliseconds, unit="ms"), "Z").tolist()
        return text
    values: list[Any] = column.to_pylist() if column.null_count else column.to_numpy(zero_copy_only=False).tolist()
    return values


def _arrivals(rng: np.random.Generator, config: SimulationConfig) -> Codes:
    """Sorted milliseconds since 1970, busier in the evening and towards the weekend."""
    weekdays = (config.start.weekday() + np.arange(config.days)) % 7
    intensity = np.outer(DAY_WEIGHTS[weekdays], HOUR_WEIGHTS).ravel()
    cumulative = np.concatenate([[0.0], np.cumsum(intensity) / intensity.sum()])
    hours = np.interp(np.sort(rng.random(config.events)), cumulative, np.arange(len(cumulative)))
    offsets = np.minimum((hours * 3_600_000).astype(np.int64), config.days * 86_400_000 - 1)
    return _origin(config) + offsets


def _transactions(
    rng: np.random.Generator, config: SimulationConfig, population: Population, times: Codes, first: int
) -> pa.RecordBatch:
    n = len(times)
    who = np.minimum(np.searchsorted(population.activity, rng.random(n), side="right"), len(population.activity) - 1)
    slot = rng.choice(DEVICES_EACH, n, p=DEVICE_USE_SHARES)
    hour = times // 3_600_000 % 24
    trusted = population.device_trusted[who, slot]
    scenario = _scenario(rng, population.credit[who], hour)
    category = rng.choice(len(CATEGORY_SHARES), n, p=CATEGORY_SHARES)
    product_risk = (rng.random(n)[:, None] >= PRODUCT_RISK_SHARES.cumsum(axis=1)[category, :2]).sum(axis=1)
    score = risk_score(rng, population, who, trusted, product_risk, scenario)
    limit = population.limit[who]
    price = np.minimum(np.round(MEDIAN_PRICE[category] * np.exp(PRICE_SPREAD[category] * rng.normal(size=n)), 2), limit)
    amount = _rounded(np.where(scenario == 0, np.maximum(price, limit * rng.uniform(0.3, 0.8, n)), price), 2)
    installments = _installments(rng, amount)
    context, speed, comparing, on_site, abandoned = _behaviour(rng, scenario)
    tenure = population.joined[who] + (times - _origin(config)) // 86_400_000
    propensity = approval_propensity(score)
    declined = rng.random(n) >= propensity
    device = population.device_type[who, slot]
    customer_ids = _ids(f"cust_{config.seed}_", who, 7)
    columns: dict[str, pa.Array] = {
        "transaction_id": _ids(f"txn_{config.start:%Y%m%d}_{config.seed}_", np.arange(first, first + n), 9),
        "customer_id": customer_ids,
        "product_id": _ids("prod_", category * 2000 + rng.integers(0, 2000, n), 6),
        "device_id": _join(customer_ids, "_device_", slot + 1),
        "payment_method_id": _join(customer_ids, "_pm_", who % 3 + 1),
        "amount": pa.array(amount),
        "currency": _strings(np.zeros(n, np.int64), ("USD",)),
        "status": _strings(declined, ("completed", "declined")),
        "business_decision": _strings(declined, ("approve", "decline")),
        "approval_propensity": pa.array(propensity),
        "risk_scenario": _strings(scenario, ONE_HOT["risk_scenario"]),
        "risk_score": pa.array(score),
        "risk_level": _strings(np.searchsorted(LEVEL_BOUNDS, score, side="right"), ORDINAL["risk_level"]),
        "installment_count": pa.array(installments),
        "first_payment_amount": pa.array(np.round(amount / installments, 2)),
        "payment_frequency": _strings(np.zeros(n, np.int64), ("bi_weekly",)),
        "purchase_context": _strings(context, ONE_HOT["purchase_context"]),
        "checkout_speed": _strings(speed, SPEEDS),
        "cart_abandonment_count": pa.array(abandoned),
        "price_comparison_time": pa.array(comparing),
        "time_on_site_seconds": pa.array(on_site),
        "economic_stress_factor": pa.array(np.round(STRESS + STRESS_SWING * np.sin(times / STRESS_PERIOD_MS), 3)),
        "customer_age_bracket": _strings(population.age[who], ORDINAL["customer_age_bracket"]),
        "customer_tenure_days": pa.array(tenure),
        "customer_income_bracket": _strings(population.income[who], ORDINAL["customer_income_bracket"]),
        "customer_credit_score_range": _strings(population.credit[who], ORDINAL["customer_credit_score_range"]),
        "customer_verification_level": _strings(population.verification[who], ORDINAL["customer_verification_level"]),
        "customer_address_stability": _strings(population.address[who], ADDRESS_STABILITY),
        "customer_state": _strings(population.state[who], STATES),
        "product_category": _strings(category, ONE_HOT["product_category"]),
        "product_subcategory": _nested(rng, category, SUBCATEGORIES),
        "product_brand": _nested(rng, category, BRANDS),
        "product_price": pa.array(price),
        "product_bnpl_eligible": pa.array(rng.random(n) < ELIGIBLE_SHARE),
        "product_risk_category": _strings(product_risk, ORDINAL["product_risk_category"]),
        "device_type": _strings(device, DEVICE_TYPES),
        "device_os": _system(device, population.device_os[who, slot]),
        "device_is_trusted": pa.array(trusted),
        "payment_provider": _strings(rng.choice(4, n, p=PROVIDER_SHARES), ONE_HOT["payment_provider"]),
        "payment_type": _strings(np.zeros(n, np.int64), ("bnpl_account",)),
        "payment_credit_limit": pa.array(limit),
        "credit_utilization": pa.array(np.round(amount / limit, 4), mask=rng.random(n) >= UTILISATION_TOLD_SHARE),
        "transaction_timestamp": pa.array(times),
    }
    if config.outcomes:
        through = pc.equal(columns["payment_provider"], PLANTED_PROVIDER).to_numpy(zero_copy_only=False)
        frailty, planted = population.frailty[who], config.planted * through
        columns |= outcomes(rng, score, frailty, tenure, amount / limit, installments, declined, planted)
    schema = SCHEMA if config.outcomes else EVENT_SCHEMA
    return pa.RecordBatch.from_arrays(
        [columns[name].cast(schema.field(name).type) for name in schema.names], schema=schema
    )


def _origin(config: SimulationConfig) -> int:
    """Milliseconds since 1970 of the first simulated midnight, UTC."""
    return int(datetime(config.start.year, config.start.month, config.start.day, tzinfo=UTC).timestamp() * 1000)


def _scenario(rng: np.random.Generator, credit: Codes, hour: Codes) -> Codes:
    """Codes into the risk scenarios: weak credit stretches further, late hours bring impulse."""
    late = (hour >= 22) | (hour <= 5)
    stretched = STRETCHED[credit]
    reckless = np.where(late, RECKLESS_LATE, RECKLESS)
    impulse = np.where(late, IMPULSE_LATE, IMPULSE)
    draw = rng.random(len(credit))
    edges = np.stack([stretched, stretched + reckless, stretched + reckless + impulse])
    crossed: Codes = (draw >= edges).sum(axis=0)
    return crossed


def _installments(rng: np.random.Generator, amount: Floats) -> Codes:
    """Four payments as a rule, more for dearer baskets."""
    dear = np.clip(amount / 400, 0, 1)
    draw = rng.random(len(amount))
    return np.select(list(draw < np.cumsum(LONG_PLAN_SHARES)[:, None] * dear), LONG_PLANS, 4)


def _behaviour(rng: np.random.Generator, scenario: Codes) -> tuple[Codes, Codes, Codes, Codes, Codes]:
    """Purchase context, checkout speed (codes), seconds of price comparison, seconds on site, abandoned carts."""
    n = len(scenario)
    typical = rng.random(n) < TYPICAL_SHARE
    context = np.where(typical, TYPICAL_CONTEXT[scenario], rng.integers(0, 3, n))
    comparing = np.minimum(rng.exponential(COMPARING_SECONDS[context]), LONGEST_COMPARING).astype(np.int64)
    on_site = np.minimum(comparing + rng.gamma(2.0, BROWSING_SECONDS[context] / 2), LONGEST_VISIT).astype(np.int64)
    slow = (CONTEXT_SPEED[context] == 1) & (rng.random(n) < SLOW_SHARE)
    return context, np.where(slow, 0, CONTEXT_SPEED[context]), comparing, on_site, rng.poisson(CARTS_LEFT, n)


def _rounded(values: npt.NDArray[Any], digits: int) -> Floats:
    rounded: Floats = np.round(values, digits)
    return rounded


def _strings(codes: npt.NDArray[Any], values: tuple[str, ...]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(codes.astype(np.int32), pa.array(values)).dictionary_decode()


def _nested(rng: np.random.Generator, outer: Codes, values: tuple[tuple[str, ...], ...]) -> pa.Array:
    """A value from the group that `outer` names; every group has the same size."""
    size = len(values[0])
    return _strings(outer * size + rng.integers(0, size, len(outer)), tuple(v for group in values for v in group))


def _system(device: Codes, draw: Codes) -> pa.Array:
    sizes = np.array([len(systems) for systems in DEVICE_SYSTEMS])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return _strings(starts[device] + draw % sizes[device], tuple(v for group in DEVICE_SYSTEMS for v in group))


def _ids(prefix: str, numbers: Codes, width: int) -> pa.Array:
    padded = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), width, "0")
    return pc.binary_join_element_wise(prefix, padded, "")


def _join(left: pa.Array, separator: str, numbers: Codes) -> pa.Array:
    return pc.binary_join_element_wise(left, pa.array(numbers).cast(pa.string()), separator)
