"""Many seasons under the shipped policy: what must not be promoted seldom is, what should be found is."""

from __future__ import annotations

from collections import Counter

import pytest
from made import MODELS, POLICY, TARGETS

from consumer.evaluation.sample import RULES
from consumer.evaluation.simulation import World, frequencies, play

SIGNAL = 0.4
"""gives the rules and each clone a discrimination ratio near 2.4"""
CLONES = dict.fromkeys((RULES, *MODELS), SIGNAL)


def test_four_clones_of_the_rules_are_hardly_ever_promoted() -> None:
    """At most 5 % over all three looks."""
    found = frequencies(World(CLONES), POLICY, TARGETS, range(120))
    assert found.promoted.total() / found.seasons <= 0.05


def test_near_clones_end_as_equivalent_and_hardly_ever_otherwise() -> None:
    found = frequencies(World(CLONES, likeness=0.999), POLICY, TARGETS, range(40))
    ends: Counter[str] = sum(
        (found.verdicts[model, POLICY.champion] for model in MODELS if model != POLICY.champion), Counter()
    )
    assert ends["equivalent"] / ends.total() > 0.9
    assert ends["better"] == ends["worse"] == 0


def test_clones_of_the_rules_too_are_equivalent_to_them_with_enough_data() -> None:
    world = World(CLONES, likeness=0.999, rows_a_week=150_000)
    last_look = POLICY.model_copy(update={"looks_at_weeks": (6,)})
    ends = Counter(each.verdict for each in play(world, last_look, TARGETS, 1).verdicts if each.against == RULES)
    assert ends == {"equivalent": 4}


def test_a_planted_better_model_is_found() -> None:
    found = frequencies(World(CLONES | {"elastic": 0.62}), POLICY, TARGETS, range(40))
    assert found.promoted["elastic"] / found.seasons > 0.8
    assert set(found.promoted) <= {"elastic"}
    assert found.verdicts["elastic", POLICY.champion]["better"] / found.seasons > 0.8


def test_a_season_is_decided_by_its_seed() -> None:
    world = World(CLONES | {"elastic": 0.62})
    once, again = (play(world, POLICY, TARGETS, 3) for _ in range(2))
    assert once == again
    assert once.week in POLICY.looks_at_weeks
    assert once.promoted == "elastic"


@pytest.mark.parametrize("model", MODELS)
def test_a_worse_model_is_not_promoted(model: str) -> None:
    season = play(World(CLONES | {model: 0.05}), POLICY, TARGETS, 5)
    assert season.promoted != model
    assert {each.verdict for each in season.verdicts if each.model == model and each.against == RULES} == {"worse"}
