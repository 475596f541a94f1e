"""A trace as text, 100 columns wide: sections in the order in which a transaction travels."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from consumer.watch.trace.story import Form, Letter, Prediction, Recomputed, Sending, Trace

_WIDTH = 100
_LABEL = 16
_UNBROKEN = "\N{NO-BREAK SPACE}"
_LARGEST = 5
"""Contributions shown of each model; --json has all."""


def report(trace: Trace) -> str:
    """All sendings, one after the other."""
    count = len(trace.sendings)
    replays = sum(each.replay_of is not None for each in trace.sendings)
    sent = f": sent {count} times" if count > 1 else ""
    lines = [f"transaction {trace.transaction_id}{sent}{f', {replays} of them by a replay' if replays else ''}"]
    for number, sending in enumerate(trace.sendings, 1):
        lines += ["", *([f"sending {number} of {count}", ""] if count > 1 else []), *_sending(sending, trace)]
    return "\n".join([*lines, "", f"({trace.searched})"])


def _sending(sending: Sending, trace: Trace) -> Iterator[str]:
    told = sending.told if sending.told.startswith(sending.state) else f"{sending.state}: {sending.told}"
    yield from _row("state", told)
    yield from _event(sending, trace)
    for letter in sending.letters:
        yield from _letter(letter)
    for prediction in sending.predictions:
        yield from _prediction(prediction, trace)


def _event(sending: Sending, trace: Trace) -> Iterator[str]:
    event = sending.event
    if sending.replay_of:
        yield from _row("replay of", f"dead letter {sending.replay_of}")
    if event is None:
        missing = "it never came into a topic" if sending.at.partition < 0 else _missing(trace)
        yield from _row("event", f"{sending.at}: {missing}")
        return
    yield from _row("event", str(sending.at))
    if event.fields is None:
        yield from _row("  in Kafka", _time(event.arrived))
        yield from _row("", f"cannot be read: {event.fault}")
        return
    happened = event.fields["transaction_timestamp"]
    yield from _row("  happened", _time(happened))
    yield from _row("  in Kafka", _time(event.arrived, happened))
    hidden = ("transaction_id", "transaction_timestamp")
    yield from _row("", _pairs((name, value) for name, value in event.fields.items() if name not in hidden))


def _missing(trace: Trace) -> str:
    """Why a record of Kafka is not shown."""
    return "Kafka could not be asked" if "Kafka" in trace.away else "it is not in the topic any more"


def _letter(letter: Letter) -> Iterator[str]:
    yield from _row("dead letter", str(letter.at))
    yield from _row("  refused", f"at {letter.stage}: {letter.error}: {letter.message}")
    yield from _row("  first", f"{letter.first_failed_at}, attempt {letter.attempt}; in Kafka {_time(letter.arrived)}")
    if letter.replayed_to:
        yield from _row("  replayed", f"as {letter.replayed_to} at {letter.replayed_at}")


def _prediction(prediction: Prediction, trace: Trace) -> Iterator[str]:
    said = prediction.recorded
    risk = f"risk {said['business_risk_flag']} (score {said['business_risk_score']:.4g})"
    yield from _row("decision", f"{said['business_decision']}, {risk}, by {said['rule_set_version']}")
    stands = said["decision"] or said["business_decision"]
    yield from _row("  stands", f"{stands}, decided by {_decider(said)}, mode {said['mode']}")
    yield from _row("  reasons", ", ".join(said["reason_codes"]) or "none: no rule fired")
    if said["checkout_decision"] is not None:
        yield from _row("  checkout", f"did {said['checkout_decision']}")
    again = prediction.recomputed
    if again:
        made = f"made again from the event, spec {said['feature_spec_version']}; those at 0 are left out"
        yield from _row("features", made)
        yield from _row("", _pairs((name, value) for name, value in again.features.items() if value))
    else:
        yield from _row("features", f"not made again: {prediction.not_recomputed}")
    yield from _scores(said, again)
    yield from _travel(prediction, trace)


def _decider(said: dict[str, Any]) -> str:
    match said["decided_by"]:
        case "champion":
            return f"the champion {said['champion']}"
        case "fallback":
            return f"the rules, as a fallback: the champion {said['champion']} gave no usable score in time"
    return "the rules"


def _scores(said: dict[str, Any], again: Recomputed | None) -> Iterator[str]:
    yield from _row("scores", f"consensus {_number(said['consensus'])}, models {said['artifact_version']}, as recorded")
    for model in said["models"]:
        told = model["error"] if model["score"] is None else _number(model["score"])
        flag = {True: "flagged", False: "not flagged", None: "no flag"}[model["flag"]]
        kind = "" if model["score_kind"] == "probability" else f", {model['score_kind']}"
        yield from _row(f"  {model['name']}", f"{told}, {flag}, {model['role']}{kind}")
        if again:
            yield from _row("", _form(again.forms.get(model["name"])))
    if again:
        agree = "the same comes out now" if not again.differences else "; ".join(again.differences)
        yield from _row("  made again", agree)


def _form(form: Form | None) -> str:
    if form is None:
        return "not linear: no contributions"
    largest = form.contributions[:_LARGEST]
    shown = ", ".join(
        _together(f"{name} {value * weight:+.3f} ({value:g} × {weight:.3g})") for name, value, weight in largest
    )
    rest = form.decision - form.bias - sum(value * weight for _, value, weight in largest)
    mean = f"mean of {form.forms} forms: " if form.forms > 1 else ""
    return f"{mean}{form.decision:+.4f} = bias {form.bias:+.3f}, {shown}, the others {rest:+.3f}"


def _travel(prediction: Prediction, trace: Trace) -> Iterator[str]:
    said, row = prediction.recorded, prediction.row
    yield from _row("shadow event", str(prediction.at or _missing(trace)))
    yield from _row("  prediction", said["prediction_id"])
    yield from _row("  customer_ref", said["customer_ref"] or "none: no BNPL_PSEUDONYM_KEY was set")
    yield from _row("  scored", _time(said["scored_at"], said["event_time"]))
    if prediction.arrived:
        yield from _row("  in Kafka", _time(prediction.arrived, said["scored_at"]))
    if row is None:
        yield from _row("stored", "ClickHouse could not be asked" if "ClickHouse" in trace.away else "not yet: no row")
        return
    place = f"{row['shadow_partition']}/{row['shadow_offset']}"
    later = ", of a later sending, which replaced this one's" if prediction.replaced else ""
    yield from _row("stored", f"a row of shadow_scores, from shadow event {place}{later}")
    yield from _row("outcome", _outcome(row))


def _outcome(row: dict[str, Any]) -> str:
    if row.get("actual_default") is None:
        return "not known yet"
    days, cost = row["days_to_resolution"], row["opportunity_cost"]
    what = "defaulted" if row["actual_default"] else "repaid"
    after = "" if days is None else f" after {days} days"
    return f"{what}{after}, opportunity cost {'not known' if cost is None else _number(cost)}"


def _row(label: str, text: str) -> Iterator[str]:
    lines = textwrap.wrap(text, _WIDTH - _LABEL, break_on_hyphens=False) or [""]
    for first, line in zip([label, *[""] * len(lines)], lines, strict=False):
        yield f"{first:{_LABEL}}{line}".replace(_UNBROKEN, " ").rstrip()


def _pairs(pairs: Iterable[tuple[str, Any]]) -> str:
    return ", ".join(_together(f"{name} {_number(value)}") for name, value in pairs)


def _together(text: str) -> str:
    """Text that is not broken into two lines."""
    return text.replace(" ", _UNBROKEN)


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _time(at: datetime, before: datetime | None = None) -> str:
    told = f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d} UTC"
    return told if before is None else f"{told}, {_span((at - before).total_seconds())}"


def _span(seconds: float) -> str:
    size, way = abs(seconds), "later" if seconds >= 0 else "earlier"
    for unit, length in (("days", 86_400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if size >= length:
            return f"{size / length:.1f} {unit} {way}"
    return f"{size * 1000:.0f} ms {way}"
