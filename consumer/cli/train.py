"""`bnpl-shadow train`: from labelled transactions to an artifact folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import orjson

from consumer.cli.progress import progress
from consumer.research.dataset import Dataset, read_dataset
from consumer.research.export import check_target
from consumer.research.production import Training, TrainingRequest, train
from consumer.scoring.artifacts import ModelSet
from consumer.scoring.rules import RuleSet
from consumer.settings import load_settings

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("train")
@click.argument("files", nargs=-1, required=True, type=FILE, metavar="FILE…")
@click.option("--version", required=True, help="Name of the artifact folder and part of its file names.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where artifact folders are.  [default: BNPL_ARTIFACTS_DIR]",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Same data and seed, same scores.")
@click.option(
    "--rules",
    type=FILE,
    help="Rule set whose flagged share the models' thresholds match.  [default: BNPL_RULES_FILE]",
)
@click.option("--data", default="Not stated.", help="A sentence for the model card: where the data comes from.")
@click.option("--replace", is_flag=True, help="Replace the folder if it is there; without this it is refused.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    files: tuple[Path, ...],
    version: str,
    out: Path | None,
    seed: int,
    rules: Path | None,
    data: str,
    replace: bool,
    as_json: bool,
) -> None:
    """Fit the four models on labelled transactions and export them, ready to score.

    FILE… are JSON lines (plain or .gz) with the label `will_default`; rows where it is null are left out.
    The split is by time: the first 60 % of the days fit, the next 20 % calibrate and set each model's flag
    threshold to the rules' own flagged share, the last 20 % give the figures. The folder is proved by
    loading it before it takes its place.

    \b
    Example:
      bnpl-shadow train research.jsonl.gz --version v2 --seed 0
      bnpl-shadow artifacts verify artifacts/v2
    """
    settings = load_settings(artifacts_dir=out, rules_file=rules)
    target = check_target(settings.artifacts_dir, version, replace)
    request = TrainingRequest(version, RuleSet.load(settings.rules_file), seed, data)
    dataset = _read(files)
    training = _train(dataset, request)
    model_set = training.write(target)
    if as_json:
        facts = {
            "path": str(target),
            "digest": model_set.digest,
            **training.created_from,
            **training.baseline,
        }
        click.echo(orjson.dumps(facts, option=orjson.OPT_INDENT_2))
    else:
        _summary(training, model_set, target)


def _read(files: tuple[Path, ...]) -> Dataset:
    with progress() as shown:
        task = shown.add_task("reading", total=sum(path.stat().st_size for path in files))
        return read_dataset(files, lambda size: shown.advance(task, size))


def _train(dataset: Dataset, request: TrainingRequest) -> Training:
    with progress() as shown:
        task = shown.add_task("training", total=None)
        return train(dataset, request, lambda step: shown.update(task, description=f"training: {step}"))


def _summary(training: Training, model_set: ModelSet, target: Path) -> None:
    for name, period in training.created_from["split"].items():
        click.echo(
            f"{name:<10} {period['from']} to {period['to']}  {period['rows']:>9,} rows"
            f"  {period['default_rate']:.2%} default"
        )
    click.echo(f"\n{'':<10} {'AUC':>6}  ratio at the rules' share (95 %)")
    rules: dict[str, Any] = training.baseline["rules"]["measured"]
    for name, facts in {"rules": rules, **training.baseline["models"]}.items():
        auc = f"{facts['auc']:.3f}" if "auc" in facts else ""
        click.echo(f"{name:<10} {auc:>6}  {_ratio(facts)}")
    click.echo(
        f"\n{target} written and proved, digest {model_set.digest[:12]}; {target / 'MODEL_CARD.md'} tells the rest"
    )


def _ratio(facts: dict[str, Any]) -> str:
    if facts["discrimination_ratio"] is None:
        return "no default on one side"
    low, high = facts["discrimination_low"], facts["discrimination_high"]
    few = "" if facts["enough"] else "  too few defaults to rely on"
    return f"{facts['discrimination_ratio']:.2f} ({low:.2f} to {high:.2f}), {facts['flagged_share']:.1%} flagged{few}"
