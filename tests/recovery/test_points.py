"""How traces become targets, and listings differences: what the recovery suite rests on."""

from __future__ import annotations

import random

from tests.recovery.drive import must_be_stored
from tests.recovery.listings import differences
from tests.recovery.points import MOMENTS, Target, stratified, targets

TRACE = [
    "store.accept.before",
    "store.accept.provision.before",
    "store.renew.before",
    "store.claim.before",
    "store.claim.before",
    "outside.make_group.during",
    "outside.make_group.during",
]


def test_each_hit_is_a_target_of_its_own() -> None:
    found = targets(1, TRACE)

    assert [str(target) for target in found] == [
        "store.accept.provision.before:1@1",
        "store.claim.before:1@1",
        "outside.make_group.during:1@1",
        "outside.make_group.during:2@1",
    ]
    assert found[-1].plan == "outside.make_group.during=kill:2"


def test_a_sample_takes_moments_in_turn() -> None:
    found = [Target(0, f"p{number}.{moment}", 1) for number in range(5) for moment in MOMENTS]

    chosen = stratified(found, 4, 1, random.Random(7))

    assert len(set(chosen)) == 4
    assert sorted(target.moment for target in chosen) == ["after", "before", "during", "during"]
    assert [found.index(target) for target in chosen] == sorted(found.index(target) for target in chosen)


def test_a_sample_of_few_takes_what_there_is() -> None:
    found = [Target(0, "p.before", 1), Target(0, "q.before", 1)]

    assert stratified(found, 3, 0, random.Random(1)) == found


def test_what_must_be_stored_follows_from_the_point() -> None:
    assert must_be_stored(Target(0, "store.accept.provision.after", 1))
    assert must_be_stored(Target(0, "outside.make_group.before", 1))
    assert not must_be_stored(Target(0, "store.accept.provision.during", 1))
    assert not must_be_stored(Target(0, "store.amend.before", 1))
    assert not must_be_stored(Target(0, "store.claim.after", 1))


def test_a_difference_names_its_direction() -> None:
    assert differences(frozenset({"a", "b"}), frozenset({"b", "c"})) == ["+ c", "- a"]
    assert differences(frozenset({"a"}), frozenset({"a"})) == []
