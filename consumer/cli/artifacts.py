"""`bnpl-shadow artifacts`: list, prove and bring in exports of models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import orjson

from consumer.cli.progress import progress
from consumer.errors import ArtifactError
from consumer.research.adopt import Sample, adopt
from consumer.research.dataset import read_rows
from consumer.research.export import check_target
from consumer.research.foreign import ForeignExport, check_vouched, inventory
from consumer.scoring.artifacts import ModelSet, check_golden, load_model_set
from consumer.scoring.features import SPEC_VERSIONS
from consumer.scoring.manifest import MANIFEST, Metadata, metadata_file, parse, read_proven
from consumer.scoring.predictor import BNPLMultiModelPredictor
from consumer.scoring.rules import RuleSet
from consumer.settings import load_settings

FOLDER = click.Path(file_okay=False, path_type=Path)
EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
ROOT_HELP = "Where artifact folders are.  [default: BNPL_ARTIFACTS_DIR]"
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@click.group("artifacts")
def command() -> None:
    """List, prove and bring in exports of models.

    An export is a folder named after its version: models, preprocessor, metadata, statistics, model card,
    and a manifest with the sha256 of each. docs/artifacts.md describes all of it.
    """


@command.command("ls")
@click.option("--artifacts", "root", type=FOLDER, help=ROOT_HELP)
@AS_JSON
def list_versions(root: Path | None, as_json: bool) -> None:
    """List the versions there are. Hashes are checked, nothing is unpickled."""
    root = load_settings(artifacts_dir=root).artifacts_dir
    found = list(_versions(root))
    if as_json:
        _print_json(found)
        return
    if not found:
        click.echo(f"no exports in {root}; `bnpl-shadow train` makes one", err=True)
    for facts in found:
        if "error" in facts:
            click.echo(f"{facts['version']:<12} BROKEN  {facts['error']}")
        else:
            others = ", ".join(name for name in facts["models"] if name != facts["champion"])
            click.echo(
                f"{facts['version']:<12} {facts['digest'][:12]}  champion {facts['champion']}, with {others};"
                f" feature spec {facts['feature_spec_version']}"
            )


@command.command()
@click.argument("directory", required=False, type=FOLDER, metavar="[DIR]")
@click.option("--digest", help="The sha256 that the manifest must have, as `ls` and the service's log print it.")
@AS_JSON
def verify(directory: Path | None, digest: str | None, as_json: bool) -> None:
    """Prove the export in DIR: hashes, contents, and its golden rows by scikit-learn and by the serving code.

    DIR defaults to the version that the settings name. Exit 1 and the reason when anything does not hold.
    Nothing is unpickled before every hash held.
    """
    settings = load_settings()
    directory = directory or settings.artifacts_dir / settings.artifact_version
    try:
        facts = _proof(directory, load_model_set(directory, expected_digest=digest))
    except ArtifactError as error:
        if not as_json:
            raise
        _print_json({"ok": False, "directory": str(directory), "error": str(error)})
        raise click.exceptions.Exit(1) from None
    if as_json:
        _print_json(facts)
        return
    click.echo(f"{directory}: version {facts['version']}, digest {facts['digest']}")
    click.echo(f"  {facts['files']} files as the manifest lists them")
    click.echo(
        f"  {len(facts['models'])} models on {facts['features']} features of spec {facts['feature_spec_version']}"
    )
    click.echo(f"  {facts['golden_rows']} golden rows hold: off by {facts['golden_gap_sklearn']:.1e} in scikit-learn,")
    click.echo(
        f"    by {facts['golden_gap_predictor']:.1e} in the serving code (fused: {', '.join(facts['fused']) or 'none'})"
    )
    for warning in facts["warnings"]:
        click.echo(f"  note: {warning}")


@command.command("adopt")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR")
@click.option("--version", required=True, help="Name of the new artifact folder and part of its file names.")
@click.option("--out", "root", type=FOLDER, help=ROOT_HELP)
@click.option("--trust", is_flag=True, help="You know who made these files, and let them run code here.")
@click.option(
    "--sha256-file",
    type=EXISTING_FILE,
    help="Instead of --trust: what `sha256sum *.joblib` printed where the export was made.",
)
@click.option("--source-version", help="Which version, when DIR holds several.")
@click.option(
    "--feature-spec",
    type=click.Choice(SPEC_VERSIONS),
    default="1",
    show_default=True,
    help="Which encoding the models were trained on; 1 did not know risk level very_high.",
)
@click.option(
    "--sample",
    type=EXISTING_FILE,
    help=("Transactions (JSON lines) to set flag thresholds, drift bins and golden rows by; measured if labelled."),
)
@click.option("--rules", type=EXISTING_FILE, help="Rule set for the flagged share.  [default: BNPL_RULES_FILE]")
@click.option("--replace", is_flag=True, help="Replace the folder if it is there; without this it is refused.")
@AS_JSON
def adopt_export(
    directory: Path,
    version: str,
    root: Path | None,
    trust: bool,
    sha256_file: Path | None,
    source_version: str | None,
    feature_spec: str,
    sample: Path | None,
    rules: Path | None,
    replace: bool,
    as_json: bool,
) -> None:
    """Bring in an export made elsewhere, and report what was found.

    DIR holds `bnpl_multi_model_metadata_*.json`, the models' and the preprocessor's joblib files.
    Unpickling them runs whatever code they hold, so without --trust or --sha256-file their hashes are shown
    and nothing is loaded.

    \b
    Example:
      bnpl-shadow artifacts adopt ~/export --version v2 --sample last-month.jsonl.gz
      bnpl-shadow artifacts adopt ~/export --version v2 --sample last-month.jsonl.gz --trust
    """
    settings = load_settings(artifacts_dir=root, rules_file=rules)
    target = check_target(settings.artifacts_dir, version, replace)
    export = inventory(directory, source_version)
    _require_trust(export, trust, sha256_file)
    adoption = adopt(export, target, feature_spec, _sample(sample, settings.rules_file) if sample else None)
    if as_json:
        _print_json({"path": str(target), "digest": adoption.model_set.digest, **adoption.created_from})
        return
    for finding in adoption.findings:
        click.echo(f"- {finding}")
    click.echo(f"{target} written and proved, digest {adoption.model_set.digest[:12]}")


def _versions(root: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(root.glob(f"*/{MANIFEST}")):
        try:
            manifest, digest, files = read_proven(path.parent)
            name = metadata_file(manifest.version)
            if name not in files:
                raise ArtifactError(f"{path.parent / name} is not listed in the manifest; export the folder again")
            metadata = parse(Metadata, files[name], path.parent / name)
        except ArtifactError as error:
            yield {"version": path.parent.name, "error": str(error)}
            continue
        yield {
            "version": manifest.version,
            "digest": digest,
            "champion": metadata.deployment_strategy.champion,
            "models": list(metadata.models),
            "feature_spec_version": manifest.feature_spec_version,
            "bytes": sum(fact.bytes for fact in manifest.files.values()),
        }


def _proof(directory: Path, model_set: ModelSet) -> dict[str, Any]:
    predictor = BNPLMultiModelPredictor(model_set)
    return {
        "ok": True,
        "directory": str(directory),
        "version": model_set.version,
        "digest": model_set.digest,
        "feature_spec_version": model_set.feature_spec_version,
        "features": len(model_set.feature_names),
        "files": sum(1 for _ in directory.iterdir()) - 1,
        "models": {
            entry.name: {
                "role": entry.role,
                "score_kind": entry.score_kind,
                "flag_threshold": entry.flag_threshold,
            }
            for entry in model_set.models
        },
        "golden_rows": len(model_set.golden),
        "golden_gap_sklearn": check_golden(model_set, model_set.scores),
        "golden_gap_predictor": check_golden(model_set, predictor.score_features),
        "fused": list(predictor.fused_models),
        "warnings": list(model_set.warnings),
    }


def _require_trust(export: ForeignExport, trust: bool, sha256_file: Path | None) -> None:
    """Show the hashes; raise ArtifactError unless the files are vouched for."""
    for name, digest in export.hashes.items():
        click.echo(f"{digest}  {name}", err=True)
    if sha256_file is not None:
        lines = (line.split(maxsplit=1) for line in sha256_file.read_text().splitlines() if line.strip())
        check_vouched(export, {Path(parts[-1].lstrip("*")).name: parts[0] for parts in lines}, sha256_file)
    elif not trust:
        raise ArtifactError(
            "nothing was loaded: unpickling runs whatever code these files hold. Compare the"
            " hashes above with those of"
            " whoever made the export, then repeat with --trust, or hand over their list by --sha256-file"
        )


def _sample(path: Path, rules_file: Path) -> Sample:
    with progress() as shown:
        task = shown.add_task("reading the sample", total=path.stat().st_size)
        batch, labels, source = read_rows([path], lambda size: shown.advance(task, size))
    return Sample(batch, labels, source, RuleSet.load(rules_file))


def _print_json(document: Any) -> None:
    click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))
