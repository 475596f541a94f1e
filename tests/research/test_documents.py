"""What docs/features.md and docs/artifacts.md say is what the code does."""

from __future__ import annotations

import re

import orjson

from consumer.scoring.features import FEATURE_NAMES, ONE_HOT, ORDINAL, SPEC_VERSIONS
from consumer.settings import PROJECT

FEATURES = (PROJECT / "docs" / "features.md").read_text()
ARTIFACTS = (PROJECT / "docs" / "artifacts.md").read_text()


def test_features_are_listed_in_order() -> None:
    listed = re.findall(r"^\| (\d+) \| `(\w+)` \|", FEATURES, re.MULTILINE)
    assert [name for _, name in listed] == list(FEATURE_NAMES)
    assert [int(number) for number, _ in listed[:36]] == list(range(1, 37))


def test_encodings_are_listed_in_order() -> None:
    for name, values in ORDINAL.items():
        assert f"| {name} | {', '.join(values)}" in FEATURES
    for values in ONE_HOT.values():
        assert f"`{values[0]}`" in FEATURES
    assert all(f"| {version} |" in FEATURES for version in SPEC_VERSIONS)


def test_the_shipped_set_was_made_by_the_commands_the_docs_give() -> None:
    manifest = orjson.loads((PROJECT / "artifacts" / "v1" / "manifest.json").read_bytes())
    made = manifest["created_from"]
    (command,) = re.findall(r"^bnpl-shadow simulate .*$", ARTIFACTS, re.MULTILINE)
    assert command in made["data"]
    (source,) = made["inputs"]
    events = int(re.search(r"--events (\d+)", command)[1])  # type: ignore[index]
    assert source["rows"] == events
    assert f"bnpl-shadow train {source['file']} --version v1 --seed {made['seed']}" in ARTIFACTS
    assert command in (PROJECT / "artifacts" / "v1" / "MODEL_CARD.md").read_text()


def test_every_file_of_an_artifact_is_described() -> None:
    for path in (PROJECT / "artifacts" / "v1").iterdir():
        general = re.sub(r"bnpl_(ridge|logistic|elastic|ensemble)_", "bnpl_<model>_", path.name)
        assert f"`{general.replace('_v1.', '_<version>.')}`" in ARTIFACTS
