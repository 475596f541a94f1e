"""MODEL_CARD.md: what a set of models is for, what it was made from, how good it is, and where it must not
be trusted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_CARD = """# Model card: BNPL default models, {version}

{count} candidate models that score the probability that a buy-now-pay-later customer will miss a payment.
Champion: **{champion}**. Challengers: {challengers}.

## Intended use

Shadow scoring only. The business rules decide every checkout; these scores are recorded beside the
decision, marked advisory, and compared once outcomes are known. They are not fit to approve, decline, price
or rank a customer.

## Data

{data}

| period | from (UTC) | to, before | transactions | defaults | default rate |
|---|---|---|---|---|---|
{periods}

Input: {inputs}. {unlabelled} transactions had no outcome (declined at checkout, or not yet known) and were
left out. Seed {seed}. Feature spec {spec}: {features} features, {numeric} of them scaled; docs/features.md
defines each.

The split is by time: models were fitted on the first period, calibrated (and their flag thresholds set) on
the second, and every figure below was measured on the third, which nothing before had seen.

## Figures, on the last period

Intervals are 95 %: DeLong for the AUC, Katz for the ratio. The ratio is the default rate of flagged over
that of unflagged transactions; each model flags at the threshold that gave it the rules' own flagged share
({share:.1%}) on the calibration period.

| | AUC | ratio at the rules' share | flagged | Brier | log loss | calibration slope | intercept |
|---|---|---|---|---|---|---|---|
{figures}

The research baseline of the rules is {baseline_ratio} ({baseline_high:.1%} against {baseline_low:.1%}).
{verdict}

## Limits

- {selection}
- The models see 36 coarse features; an AUC near 0.6 separates groups, not people.
- Intervals treat transactions as independent; customers come back, so true intervals are somewhat wider.
- Labels are final outcomes: a live comparison must wait up to 14 × installments days for the same.
- `customer_age_bracket_encoded` is a feature, and **age is a protected basis** in consumer credit (in the
  United States under the ECOA). Before any model decides, its age effect must be reviewed, and a twin without
  age be compared.
- A category never seen in training is scored as the baseline or lowest rank (all zeros, or −1) and counted.

## Provenance

Made by `bnpl-shadow {command}`, which gives the same scores to 1e-9
again. The manifest beside this card holds the sha256 of every file, library versions and golden rows;
`bnpl-shadow artifacts verify` proves all of it.
"""


def model_card(metadata: Mapping[str, Any], baseline: Mapping[str, Any], created_from: Mapping[str, Any]) -> str:
    """The card of a set made by `bnpl-shadow train`, from the documents of its folder."""
    strategy, shared = metadata["deployment_strategy"], metadata["shared_artifacts"]
    rules = baseline["rules"]
    figures = [_rules_line(rules)] + [_model_line(name, facts) for name, facts in baseline["models"].items()]
    return _CARD.format(
        version=metadata["version"],
        count=len(metadata["models"]),
        champion=strategy["champion"],
        challengers=", ".join(strategy["challengers"]),
        data=created_from["data"],
        periods="\n".join(_period_line(name, facts) for name, facts in created_from["split"].items()),
        inputs="; ".join(
            f"`{each['file']}` ({each['rows']:,} rows, sha256 `{each['sha256']}`)" for each in created_from["inputs"]
        ),
        command=created_from.get("made_by") or _train_command(metadata["version"], created_from),
        unlabelled=f"{created_from['rows_without_outcome']:,}",
        seed=created_from["seed"],
        spec=metadata["feature_spec_version"],
        features=shared["total_features"],
        numeric=len(shared["numeric_features"]),
        share=created_from["rules"]["flagged_share"],
        figures="\n".join(figures),
        baseline_ratio=rules["discrimination_ratio"],
        baseline_high=rules["high_risk_default_rate"],
        baseline_low=rules["low_risk_default_rate"],
        verdict=_verdict(baseline),
        selection=(
            "Only approved transactions have outcomes: for those that checkout declined these figures say nothing."
        ),
    )


def _train_command(version: str, created_from: Mapping[str, Any]) -> str:
    files = " ".join(each["file"] for each in created_from["inputs"])
    return f"train {files} --version {version} --seed {created_from['seed']}"


def _period_line(name: str, facts: Mapping[str, Any]) -> str:
    return (
        f"| {name} | {facts['from']} | {facts['to']} | {facts['rows']:,} | {facts['defaults']:,} |"
        f" {facts['default_rate']:.2%} |"
    )


def _rules_line(rules: Mapping[str, Any]) -> str:
    measured = rules["measured"]
    return f"| rules ({rules['version']}) | – | {_ratio(measured)} | {measured['flagged_share']:.1%} | – | – | – | – |"


def _model_line(name: str, facts: Mapping[str, Any]) -> str:
    return (
        f"| {name} | {facts['auc']:.3f} ({facts['auc_low']:.3f}–{facts['auc_high']:.3f}) | {_ratio(facts)} |"
        f" {facts['flagged_share']:.1%} | {facts['brier']:.4f} | {facts['log_loss']:.4f} |"
        f" {facts['calibration_slope']:.2f} | {facts['calibration_intercept']:.2f} |"
    )


def _ratio(facts: Mapping[str, Any]) -> str:
    if facts["discrimination_ratio"] is None:
        return "no default on one side"
    few = "" if facts["enough"] else ", too few defaults to rely on"
    return (
        f"{facts['discrimination_ratio']:.2f}"
        f" ({facts['discrimination_low']:.2f}–{facts['discrimination_high']:.2f}{few})"
    )


def _verdict(baseline: Mapping[str, Any]) -> str:
    """Whether any model's interval lies apart from the rules' own, on the same rows."""
    rules = baseline["rules"]["measured"]
    models = {name: facts for name, facts in baseline["models"].items() if facts["discrimination_ratio"] is not None}
    if rules["discrimination_ratio"] is None or not models:
        return "There are too few defaults here to compare the models with the rules."
    better = [name for name, facts in models.items() if facts["discrimination_low"] > rules["discrimination_high"]]
    worse = [name for name, facts in models.items() if facts["discrimination_high"] < rules["discrimination_low"]]
    if not better and not worse:
        return (
            "Every model's interval overlaps that of the rules on the same rows: none is shown to be better or worse."
        )
    said = [
        f"{', '.join(names)} separate {how} than the rules"
        for names, how in ((better, "better"), (worse, "worse"))
        if names
    ]
    return f"By intervals that do not overlap, {'; '.join(said)}."


_ADOPTED = """# Model card: BNPL default models, {version}

{count} models made elsewhere as version `{source}` and adopted into this format. Champion: **{champion}**.
Challengers: {challengers}.

## Intended use

Shadow scoring only. The business rules decide every checkout; these scores are recorded beside the
decision, marked advisory, and compared once outcomes are known. They are not fit to approve, decline, price
or rank a customer.

## What adoption found

{findings}

## Where it came from

{hashes}

## Limits

- How the models were trained, on which data and by which split is known only to whoever exported them; the
  figures of the
  metadata are theirs. Nothing here has checked them, except what `baseline_metrics.json` calls
  `measured_on_sample`.
- `customer_age_bracket_encoded`, where it is a feature, rests on **age, a protected basis** in consumer
  credit.
"""


def adopted_card(metadata: Mapping[str, Any], created_from: Mapping[str, Any]) -> str:
    """The card of a set brought in by `bnpl-shadow artifacts adopt`."""
    strategy = metadata["deployment_strategy"]
    return _ADOPTED.format(
        version=metadata["version"],
        count=len(metadata["models"]),
        source=created_from["source_version"],
        champion=strategy["champion"],
        challengers=", ".join(strategy["challengers"]) or "none",
        findings="\n".join(f"- {finding}" for finding in created_from["findings"]),
        hashes="\n".join(f"- `{name}` sha256 `{value}`" for name, value in created_from["source_sha256"].items()),
    )
