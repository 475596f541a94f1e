"""Which one model may be promoted, if any, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from consumer.evaluation.policy import Targets
from consumer.evaluation.ratio import Ratio
from consumer.evaluation.sample import RULES
from consumer.evaluation.verdict import BETTER, EQUIVALENT, NO_VERDICT, WORSE, Verdict


@dataclass(frozen=True)
class Recommendation:
    """`promote` is None when no model may be."""

    promote: str | None
    sentences: list[str]


def recommend(
    verdicts: Sequence[Verdict], ratios: Mapping[str, Ratio], targets: Targets, champion: str
) -> Recommendation:
    """A model may decide when it is better than the rules and its ratio reaches the targets.

    Of several, the champion goes first, unless another is better than it; without the champion, the greatest ratio that
    is not worse than the champion's. A champion that others merely equal keeps its place.
    """
    against_rules = {each.model: each for each in verdicts if each.against == RULES}
    against_champion = {each.model: each.verdict for each in verdicts if each.against == champion}
    fit = [
        model for model, each in against_rules.items() if each.verdict == BETTER and _reaches(ratios[model], targets)
    ]
    challengers = [model for model in fit if model != champion and against_champion.get(model) != WORSE]
    if champion in fit:
        challengers = [model for model in challengers if against_champion.get(model) == BETTER]
    ahead = sorted(challengers, key=lambda model: -(ratios[model].estimate or 0.0))
    promote = ahead[0] if ahead else champion if champion in fit else None
    return Recommendation(
        promote,
        [_headline(promote, champion, against_champion.get(promote or ""), list(against_rules.values()))]
        + [_sentence(model, each, ratios.get(model), targets) for model, each in against_rules.items()]
        + [f"{each.model} against {champion}: {each.verdict}. {_capital(each.why)}." for each in verdicts
           if each.against == champion],
    )  # fmt: skip


def _reaches(ratio: Ratio, targets: Targets) -> bool:
    if ratio.estimate is None or ratio.interval_low is None:
        return False
    return ratio.interval_low > targets.minimum and ratio.estimate >= targets.acceptable[0]


def _headline(promote: str | None, champion: str, against_champion: str | None, against_rules: list[Verdict]) -> str:
    if promote == champion:
        return f"{champion} may be promoted: it is better than the rules, and no other model is better than it."
    if promote:
        also = "better than" if against_champion == BETTER else "not shown to be worse than"
        return f"{promote} may be promoted: it is better than the rules, and {also} {champion}, the champion."
    if against_rules and all(each.verdict == NO_VERDICT for each in against_rules):
        return "No model may be promoted: the data allow no verdict yet."
    if against_rules and all(each.verdict == EQUIVALENT for each in against_rules):
        return "No model may be promoted: all are as good as the rules, within the margin, so a change brings nothing."
    return "No model may be promoted: none is shown to be better than the rules and to reach the targets."


def _sentence(model: str, verdict: Verdict, ratio: Ratio | None, targets: Targets) -> str:
    return f"{model} against the rules: {verdict.verdict}. {_capital(verdict.why)}.{_standing(ratio, targets)}"


def _standing(ratio: Ratio | None, targets: Targets) -> str:
    if ratio is None or ratio.estimate is None or ratio.interval_low is None or ratio.interval_high is None:
        return ""
    at, low, high = (targets.level(each) for each in (ratio.estimate, ratio.interval_low, ratio.interval_high))
    reach = f"{low} to {high}" if low != high else f"all {low}"
    interval = f"{ratio.interval_low:.2f} to {ratio.interval_high:.2f} ({reach})"
    return f" Its ratio is {ratio.estimate:.2f} ({at}), the interval {interval}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
