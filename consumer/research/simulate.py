"""Seeded, realistic buy-now-pay-later transactions with their outcomes, as Arrow columns or JSON lines.

Public facts it keeps: about 5 % default; the risk score weighs credit .3, verification .2, income .2,
device .1, product .1, scenario .1; the score tells defaulters apart only weakly (AUC about 0.61); missed
payments fall on day 14, 28, … 14×installments. Purchases follow the hour and the weekday, and customers
come back.
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
from consumer.research.catalog import BRANDS, DEVICE_SYSTEMS, DEVICE_TYPES, MEDIAN_PRICE, SUBCATEGORIES
from consumer.research.population import (
    ADDRESS_STABILITY,
    DEVICES_EACH,
    STATES,
    Codes,
    Floats,
    Population,
    make_population,
)
from consumer.scoring.features import ONE_HOT, ORDINAL

CHUNK = 50_000
"""Events a batch. Part of the seed's meaning: every chunk draws from its own stream."""
SCHEMA = EVENT_SCHEMA.append(pa.field("will_default", pa.bool_())).append(
    pa.field("days_to_first_missed_payment", pa.int64())
)
"""Columns of a simulated batch; without outcomes, those of `contracts.transaction.EVENT_SCHEMA`."""

HOUR_WEIGHTS = np.array(
    [2, 1.2, 0.8, 0.6, 0.5, 0.7, 1.2, 2, 3, 4, 4.6, 5, 5.6, 5.2, 4.8, 4.8, 5, 5.6, 6.4, 7.2, 7.6, 6.8, 5, 3.4]
)  # fmt: skip
"""UTC, from midnight."""
DAY_WEIGHTS = np.array([0.92, 0.90, 0.93, 0.98, 1.10, 1.18, 1.05])
"""Monday first."""

CREDIT_RISK = np.array([0.92, 0.56, 0.27, 0.08])
INCOME_RISK = np.array([0.80, 0.54, 0.38, 0.24, 0.10])
VERIFICATION_RISK = np.array([0.92, 0.45, 0.08])
PRODUCT_RISK = np.array([0.20, 0.50, 0.80])
SCENARIO_RISK = np.array([0.70, 0.95, 0.50, 0.12])
TRUSTED_DEVICE_RISK, NEW_DEVICE_RISK = 0.12, 0.85
LEVEL_BOUNDS = np.array([0.3, 0.6, 0.8])

SPEEDS = ("slow", "normal", "fast", "very_fast")


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
    """The batch as JSON lines in the shape producers send: ISO timestamps in UTC, absent optional values
    null.
    """
    lines = [orjson.dumps(row) for row in rows(batch)]
    return b"\n".join(lines) + b"\n" if lines else b""


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
    slot = rng.choice(DEVICES_EACH, n, p=(0.80, 0.15, 0.05))
    hour = times // 3_600_000 % 24
    trusted = population.device_trusted[who, slot]
    scenario = _scenario(rng, population.credit[who], hour)
    category = rng.choice(5, n, p=(0.12, 0.26, 0.35, 0.18, 0.09))
    product_risk = rng.choice(3, n, p=(0.51, 0.34, 0.15))
    score = _risk_score(rng, population, who, trusted, product_risk, scenario)
    limit = population.limit[who]
    price = np.minimum(np.round(MEDIAN_PRICE[category] * np.exp(rng.normal(scale=0.6, size=n)), 2), limit)
    amount = _rounded(np.where(scenario == 0, np.maximum(price, limit * rng.uniform(0.05, 0.35, n)), price), 2)
    installments = _installments(rng, amount)
    context, speed, comparing, on_site, abandoned = _behaviour(rng, scenario)
    tenure = population.joined[who] + (times - _origin(config)) // 86_400_000
    propensity = np.round(np.clip(1.0 - 2.0 * (score - 0.5), 0.1, 1.0), 4)
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
        "economic_stress_factor": pa.array(np.zeros(n)),
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
        "product_bnpl_eligible": pa.array(rng.random(n) < 0.7),
        "product_risk_category": _strings(product_risk, ORDINAL["product_risk_category"]),
        "device_type": _strings(device, DEVICE_TYPES),
        "device_os": _system(device, population.device_os[who, slot]),
        "device_is_trusted": pa.array(trusted),
        "payment_provider": _strings(rng.choice(4, n, p=(0.27, 0.26, 0.27, 0.20)), ONE_HOT["payment_provider"]),
        "payment_type": _strings(np.zeros(n, np.int64), ("bnpl_account",)),
        "payment_credit_limit": pa.array(limit),
        "credit_utilization": pa.array(np.round(amount / limit, 4), mask=rng.random(n) >= 0.15),
        "transaction_timestamp": pa.array(times),
    }
    if config.outcomes:
        columns |= _outcomes(rng, score, population.frailty[who], tenure, amount / limit, installments, declined)
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
    stretched = np.array([0.26, 0.18, 0.11, 0.06])[credit]
    reckless = np.where(late, 0.075, 0.045)
    impulse = np.where(late, 0.27, 0.19)
    draw = rng.random(len(credit))
    edges = np.stack([stretched, stretched + reckless, stretched + reckless + impulse])
    crossed: Codes = (draw >= edges).sum(axis=0)
    return crossed


def _risk_score(
    rng: np.random.Generator,
    population: Population,
    who: Codes,
    trusted: npt.NDArray[np.bool_],
    product_risk: Codes,
    scenario: Codes,
) -> Floats:
    score = (
        0.3 * CREDIT_RISK[population.credit[who]]
        + 0.2 * VERIFICATION_RISK[population.verification[who]]
        + 0.2 * INCOME_RISK[population.income[who]]
        + 0.1 * np.where(trusted, TRUSTED_DEVICE_RISK, NEW_DEVICE_RISK)
        + 0.1 * PRODUCT_RISK[product_risk]
        + 0.1 * SCENARIO_RISK[scenario]
    )
    noisy = np.clip(score + rng.normal(scale=0.012, size=len(who)), 0, 1)
    return _rounded(noisy, 4)


def _installments(rng: np.random.Generator, amount: Floats) -> Codes:
    """Four payments as a rule, more for dearer baskets."""
    dear = np.clip((amount - 60) / 500, 0, 1)
    draw = rng.random(len(amount))
    return np.select([draw < 0.01 * dear, draw < 0.05 * dear, draw < 0.15 + 0.4 * dear], [24, 12, 6], 4)


def _behaviour(rng: np.random.Generator, scenario: Codes) -> tuple[Codes, Codes, Codes, Codes, Codes]:
    """Purchase context, checkout speed (codes), seconds of price comparison, seconds on site, abandoned
    carts.
    """
    n = len(scenario)
    usual = rng.random(n) < 0.92
    context = np.where(usual, np.array([1, 2, 0, 1])[scenario], rng.integers(0, 3, n))
    hurry = np.array([0.25, 1.0, 0.12])[context]
    comparing = np.minimum(rng.gamma(2.0, np.where(hurry < 0.5, 25.0, 80.0) * hurry.clip(0.4)), 900).astype(np.int64)
    on_site = np.minimum(30 + comparing + rng.gamma(2.0, 130.0, n), 3600).astype(np.int64)
    speed = np.select([context == 2, context == 0, rng.random(n) < 0.4], [3, 2, 0], 1)
    return context, speed, comparing, on_site, rng.binomial(3, 0.4, n)


def _outcomes(
    rng: np.random.Generator,
    score: Floats,
    frailty: Floats,
    tenure: Codes,
    load: Floats,
    installments: Codes,
    declined: npt.NDArray[np.bool_],
) -> dict[str, pa.Array]:
    """Whether the customer will miss a payment, and on which day; null for what checkout declined."""
    newness = np.exp(-tenure / 60.0)
    log_odds = (
        -3.23
        + 2.9 * (score - 0.35)
        + 4.0 * np.maximum(score - 0.5, 0)
        + frailty
        + 0.3 * newness
        + 0.5 * (load - 0.1)
        + 0.02 * (installments - 4)
    )
    defaults = rng.random(len(score)) < 1.0 / (1.0 + np.exp(-log_odds))
    missed = np.ceil(rng.beta(1.6, 2.0, len(score)) * installments).clip(1).astype(np.int64)
    return {
        "will_default": pa.array(defaults, mask=declined),
        "days_to_first_missed_payment": pa.array(14 * missed, mask=~defaults | declined),
    }


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
