"""A season as text, and for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from consumer.champion.evaluate import Evaluated, Terms
from consumer.champion.report.wording import interval, number, percent
from consumer.evaluation.plain import plain
from consumer.evaluation.verdict import NO_VERDICT
from consumer.research.power import Power, Share
from consumer.research.season import Plan
from consumer.system.season.play import Ending, Week

_INDENT = " " * 9


def week_text(week: Week) -> str:
    """A line for what came in, and where something is old enough, one for the ratios and one for the verdict."""
    lines = [
        f"week {week.number:>2}  to {week.ends:%Y-%m-%d}  checkouts {week.checkouts:>7,}  stored"
        f" {week.stored.predictions:>7,}  outcomes {week.outcomes:>9,}  stored {week.stored.outcomes:>9,}"
        f"{_moved(week)}"
    ]
    if week.evaluated:
        lines += _looked(week.evaluated)
    return "\n".join(lines)


def _moved(week: Week) -> str:
    if week.moved is None:
        return ""
    return f"  drift {', '.join(week.moved) or 'none'}"


def _looked(evaluated: Evaluated) -> list[str]:
    found = evaluated.evaluation
    rows = found.rows
    ratios = {name: each.ratio for name, each in found.scorers.items()}
    return [
        f"{_INDENT}{rows.transactions:,} old enough for {evaluated.snapshot.horizon.label} ({rows.week} weeks),"
        f" coverage {percent(rows.coverage)}, {rows.defaults:,} defaults",
        _INDENT
        + "  ".join(
            f"{name} {number(ratio.estimate)} ({interval(ratio.interval_low, ratio.interval_high)})"
            if ratio.estimate is not None
            else f"{name} too few defaults"
            for name, ratio in ratios.items()
        ),
        *(f"{_INDENT}{line}" for line in _verdicts(evaluated)),
    ]


def _verdicts(evaluated: Evaluated) -> list[str]:
    """What is said of each model, by what it is compared with; why nothing can be said where that is so of all."""
    verdicts = evaluated.evaluation.verdicts
    if all(each.verdict == NO_VERDICT for each in verdicts):
        return ["no verdict" + "".join(f": {each.why.partition('; ')[0]}" for each in verdicts[:1])]
    said = [
        f"against {against}: "
        + ", ".join(f"{each.model} {each.verdict}" for each in verdicts if each.against == against)
        for against in dict.fromkeys(each.against for each in verdicts)
    ]
    return [*said, evaluated.evaluation.recommendation.sentences[0]]


def ending_text(plan: Plan, ending: Ending, seconds: float) -> str:
    """What the season came to, in sentences."""
    proved = ending.reconciliation
    lines = [
        f"scenario {plan.scenario}, seed {plan.seed}, {plan.start} to {ending.weeks[-1].ends:%Y-%m-%d}",
        "",
        *ending.evaluated.evaluation.recommendation.sentences,
        "",
        *_promotion(ending),
        f"drift: {_drift(ending)}",
        f"{'reconciled' if proved.holds else 'DOES NOT RECONCILE'}: checkouts {proved.produced:,} = scored"
        f" {proved.scored:,} + dead-lettered {proved.dead_lettered:,}; stored {proved.stored:,}; outcomes"
        f" {ending.weeks[-1].outcomes:,}, stored {ending.weeks[-1].stored.outcomes:,}",
        f"dossier: {ending.dossier} (sha256 {ending.dossier_sha256}); computed again from the tables,"
        f" {ending.verification.numbers:,} numbers, {len(ending.verification.differences)} different",
        f"report: {ending.report}",
        f"played in {seconds:.0f} s",
    ]
    return "\n".join(lines)


def _promotion(ending: Ending) -> list[str]:
    made = ending.promotion
    if made is None:
        return ["nobody was promoted"]
    counted = ", ".join(f"{name} in {count:,}" for name, count in sorted(ending.counted.items()))
    return [
        f"promoted: {made.champion}, mode {made.mode}, revision {made.revision}, by {made.made_by} at"
        f" {made.made_at:%Y-%m-%d %H:%M:%S} UTC, on dossier {made.dossier_sha256}",
        f"reason: {made.reason}",
        f"the running score process took it over: of the checkouts sent since, the champion is {counted}",
    ]


def _drift(ending: Ending) -> str:
    weeks: dict[str, list[int]] = {}
    for week in ending.weeks:
        for name in week.moved or ():
            weeks.setdefault(name, []).append(week.number)
    told = [f"{name} in weeks {', '.join(map(str, found))}" for name, found in weeks.items()]
    return "; ".join(told) or "no feature moved"


def document(plan: Plan, ending: Ending, seconds: float) -> dict[str, Any]:
    """The same for programs."""
    found = ending.evaluated.evaluation
    return {
        "ended_as_it_should": not ending.faults,
        "faults": ending.faults,
        "plan": asdict(plan) | {"start": plan.start.isoformat()},
        "weeks": [_week(each) for each in ending.weeks],
        "verdicts": plain(found.verdicts),
        "recommendation": plain(found.recommendation),
        "promotion": ending.promotion.model_dump(mode="json") if ending.promotion else None,
        "champion_counted": ending.counted,
        "dossier": {
            "file": str(ending.dossier),
            "sha256": ending.dossier_sha256,
            "numbers": ending.verification.numbers,
            "differences": ending.verification.differences,
        },
        "report": str(ending.report),
        "reconciliation": asdict(ending.reconciliation) | {"holds": ending.reconciliation.holds},
        "seconds": round(seconds, 1),
    }


def _week(week: Week) -> dict[str, Any]:
    looked = week.evaluated
    return {
        "week": week.number,
        "ends": week.ends.isoformat(),
        "checkouts": week.checkouts,
        "outcomes": week.outcomes,
        "stored": asdict(week.stored),
        "drift": week.moved,
        "rows": plain(looked.evaluation.rows) if looked else None,
        "ratios": {name: plain(each.ratio) for name, each in looked.evaluation.scorers.items()} if looked else None,
        "verdicts": {f"{each.model} against {each.against}": each.verdict for each in looked.evaluation.verdicts}
        if looked
        else None,
    }


def power_text(terms: Terms, found: Power) -> str:
    """Rates over many seasons."""
    return "\n".join(
        [
            f"policy {terms.policy.version}: looks after {', '.join(map(str, terms.policy.looks_at_weeks))} weeks,"
            f" alpha {terms.policy.alpha:g} for all models and looks together",
            f"promoted though none is better than the rules: {_share(found.false_promotions)}",
            f"promoted when it is better, power:             {_share(found.found)}",
            f"another promoted in its place:                 {_share(found.wrong_one)}",
        ]
    )


def _share(share: Share) -> str:
    return (
        f"{share.count} of {share.seasons} seasons, {percent(share.estimate)}"
        f" (95 %: {percent(share.low)} to {percent(share.high)})"
    )


def power_document(terms: Terms, found: Power) -> dict[str, Any]:
    """The same for programs."""
    shares = {name: each | {"estimate": each["count"] / each["seasons"]} for name, each in asdict(found).items()}
    return {"policy": terms.policy.version, "policy_sha256": terms.policy_sha256, **shares}
