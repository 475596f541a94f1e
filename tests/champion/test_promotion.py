"""What a promotion, a rollback and a kill make of the state, and what a promotion stands on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import examples

from consumer.champion.promotion import (
    NO_DOSSIER,
    Artifact,
    Grounds,
    Signature,
    configured,
    grounds,
    killed,
    promoted,
    rolled_back,
)
from consumer.champion.support import support
from consumer.contracts.control import STATE_KEY, Control, ControlLog, Mode, encode
from consumer.errors import ArtifactError, Fatal
from consumer.settings import Settings

NOW = datetime(2026, 11, 1, 10, 15, 0, 123_456, tzinfo=UTC)
SIGNED = Signature("anna", NOW, "a good reason")
V1 = Artifact("v1", "1" * 64, {"ridge": 0.06, "logistic": 0.06, "plain": None}, "ridge")
V2 = replace(V1, version="v2", sha256="2" * 64)


def dossier(promote: Any = "logistic", verdict: str | None = None, artifact: Artifact = V1) -> bytes:
    said = [{"model": "logistic", "against": "rules", "verdict": verdict}] if verdict else []
    told = {"recommendation": {"promote": promote}, "verdicts": said, "terms": {"artifact_sha256": artifact.sha256}}
    return json.dumps(told).encode()


SUPPORTED = grounds(V1, "logistic", dossier(), override=False)


class Story:
    """Records one after the other, each read back from its bytes."""

    def __init__(self) -> None:
        self.log = ControlLog()

    def add(self, control: Control) -> Control:
        assert self.log.take(STATE_KEY, encode(control)) == control
        return control

    def promote(
        self, model: str, mode: Mode = "shadow", share: float | None = None, artifact: Artifact = V1
    ) -> Control:
        stands_on = SUPPORTED if model == "logistic" else Grounds(None, override=True, unsupported=NO_DOSSIER)
        return self.add(promoted(self.log.state, artifact, model, mode, share, stands_on, SIGNED))

    def kill(self) -> Control:
        return self.add(killed(self.log.state, V1, SIGNED))

    def roll_back(self, artifact: Artifact = V1) -> Control:
        return self.add(rolled_back(self.log, artifact, SIGNED))


def rules(control: Control) -> tuple[str, str, float | None]:
    return control.champion, control.mode, control.canary_percent


def test_a_promotion_says_who_when_why_for_what_and_what_was_before() -> None:
    story = Story()
    first = story.promote("logistic")
    assert first.model_dump() == {
        "revision": 1,
        "action": "promote",
        "champion": "logistic",
        "mode": "shadow",
        "canary_percent": None,
        "artifact_version": "v1",
        "artifact_sha256": V1.sha256,
        "made_by": "anna",
        "made_at": NOW.replace(microsecond=123_000),
        "reason": "a good reason",
        "dossier_sha256": hashlib.sha256(dossier()).hexdigest(),
        "override": False,
        "unsupported": None,
        "previous_revision": 0,
        "previous_champion": "ridge",
        "previous_mode": "shadow",
        "previous_canary_percent": None,
    }
    second = story.promote("logistic", "canary", 5.0)
    third = story.promote("ridge", "champion")
    assert (third.previous_revision, third.previous_champion, third.previous_mode, third.previous_canary_percent) == (
        second.revision,
        "logistic",
        "canary",
        5.0,
    )


def test_a_kill_keeps_the_champion_and_what_it_stands_on() -> None:
    story = Story()
    story.promote("ridge", "champion")
    dead = story.kill()
    assert rules(dead) == ("ridge", "shadow", None)
    assert (dead.action, dead.override, dead.unsupported) == ("kill", True, NO_DOSSIER)
    assert story.kill().revision == 3
    assert rules(Story().kill()) == ("ridge", "shadow", None), "also when nothing was ever promoted"


def test_rollbacks_walk_back_through_all_that_ruled_and_stop_at_the_beginning() -> None:
    story = Story()
    story.promote("ridge", "canary", 1.5)
    story.promote("logistic", "champion")
    story.kill()
    restored = [rules(story.roll_back()) for _ in range(3)]
    assert restored == [("logistic", "champion", None), ("ridge", "canary", 1.5), ("ridge", "shadow", None)]
    with pytest.raises(Fatal, match="nothing is before revision 6"):
        story.roll_back()
    again = story.promote("logistic")
    assert (again.previous_revision, again.previous_champion, again.previous_mode) == (6, "ridge", "shadow")
    assert rules(story.roll_back()) == ("ridge", "shadow", None)


def test_what_was_promoted_by_an_override_says_so_for_ever() -> None:
    story = Story()
    story.promote("ridge", "champion")
    story.kill()
    back = story.roll_back()
    assert (back.override, back.unsupported, back.dossier_sha256) == (True, NO_DOSSIER, None)
    assert story.log.history[1].override
    story.promote("logistic")
    assert not story.promote("logistic", "champion").override
    assert story.log.history[1].unsupported == NO_DOSSIER


def test_there_is_nothing_to_go_back_to_before_the_first_promotion() -> None:
    with pytest.raises(Fatal, match="nothing was ever promoted"):
        Story().roll_back()


def test_a_rollback_to_other_models_than_the_configured_is_refused_with_the_way_out() -> None:
    story = Story()
    story.promote("logistic", "champion")
    story.promote("ridge", "shadow", artifact=V2)
    with pytest.raises(Fatal, match=r"revision 1 was for models v1 \(111111111111\), configured are v2 .*promote anew"):
        story.roll_back(V2)
    assert rules(story.roll_back(V1)) == ("logistic", "champion", None)


def test_a_rollback_to_a_record_that_somebody_overwrote_is_refused() -> None:
    story = Story()
    story.promote("logistic")
    story.promote("ridge")
    del story.log.history[1]
    with pytest.raises(Fatal, match="revision 1 is gone from the topic"):
        story.roll_back()


@pytest.mark.parametrize(
    ("model", "mode", "share", "signed", "told"),
    [
        ("lasso", "shadow", None, SIGNED, "lasso is no model of v1: there are ridge, logistic, plain"),
        ("plain", "champion", None, SIGNED, "plain of v1 has no flag_threshold"),
        (
            "ridge",
            "canary",
            None,
            SIGNED,
            "this cannot be recorded: canary_percent belongs to mode canary",
        ),
        ("ridge", "canary", 0.001, SIGNED, "canary_percent: has more than two decimals"),
        ("ridge", "shadow", None, replace(SIGNED, reason=" "), "this cannot be recorded: reason: says nothing"),
        ("ridge", "shadow", None, replace(SIGNED, reason="x" * 1001), "reason: String should have at most 1000"),
        ("ridge", "shadow", None, replace(SIGNED, made_by="\x07"), "made_by: is not one line of printable characters"),
    ],
)
def test_what_cannot_be_promoted_is_refused_by_name(
    model: str, mode: Mode, share: float | None, signed: Signature, told: str
) -> None:
    with pytest.raises(Fatal) as refused:
        promoted(None, V1, model, mode, share, SUPPORTED, signed)
    assert told in str(refused.value)


def test_a_model_without_a_threshold_may_be_champion_in_shadow() -> None:
    assert promoted(None, V1, "plain", "shadow", None, SUPPORTED, SIGNED).champion == "plain"


# what it stands on


def test_a_dossier_that_recommends_the_model_supports_it() -> None:
    assert grounds(V1, "logistic", dossier(), override=False) == Grounds(hashlib.sha256(dossier()).hexdigest())
    assert grounds(V1, "logistic", dossier(), override=True).override is False, "an override that nobody needed is none"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "there is no dossier"),
        (dossier("ridge"), "the dossier recommends ridge"),
        (dossier(None), "the dossier recommends no promotion"),
        (dossier(None, "equivalent"), "no promotion; of logistic it says equivalent against rules"),
        (dossier(artifact=V2), "the dossier is of other models"),
    ],
)
def test_without_support_it_takes_an_override_that_is_recorded_with_the_verdict(
    content: bytes | None, told: str
) -> None:
    with pytest.raises(Fatal, match=rf"logistic is not promoted: .*{told}.*--dossier.*--override"):
        grounds(V1, "logistic", content, override=False)
    stands_on = grounds(V1, "logistic", content, override=True)
    assert stands_on.override
    assert told in (stands_on.unsupported or "")
    assert stands_on.dossier_sha256 == (hashlib.sha256(content).hexdigest() if content else None)
    assert promoted(None, V1, "logistic", "champion", None, stands_on, SIGNED).override


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"[]", b"{}", b'{"recommendation": "ridge", "verdicts": {}}', dossier(7), b'{"recommendation": {}}'],
)
def test_what_is_no_dossier_is_refused_also_with_an_override(content: bytes) -> None:
    with pytest.raises(Fatal, match="dossier"):
        grounds(V1, "logistic", content, override=True)


@examples(100)
@given(st.one_of(st.none(), st.text()), st.one_of(st.text(), st.integers()))
def test_whatever_a_dossier_says_can_be_recorded(promote: str | None, verdict: Any) -> None:
    said = json.loads(dossier(promote)) | {"verdicts": [{"model": "logistic", "against": "rules", "verdict": verdict}]}
    supported, why = support(said, "logistic", V1.sha256)
    assert supported is (promote == "logistic")
    signed = replace(SIGNED, made_at=NOW + timedelta(days=1))
    promoted(None, V1, "logistic", "shadow", None, Grounds(None, override=True, unsupported=why), signed)


# the configured models


def test_the_configured_artifact_is_what_its_files_say() -> None:
    found = configured(Settings())
    assert (found.version, found.champion) == ("v1", "ridge")
    assert list(found.thresholds) == ["ridge", "logistic", "elastic", "ensemble"]
    assert all(found.thresholds.values())


def test_an_artifact_that_is_not_there_is_told() -> None:
    with pytest.raises(ArtifactError, match="is not a folder of artifacts"):
        configured(Settings(artifact_version="v0"))
