"""Arms: who is in which, and that it says nothing of anything else."""

from dataclasses import replace

import numpy as np
import pytest

from state.experiment import BUCKETS, Arm, Experiment
from state.objective import Objective
from topics.partitions import partition_of

#: Written down once: another release must deal users out alike.
KNOWN = "other control other control other control other control control other control control"
KNOWN_BUCKETS = [16, 49, 30, 39, 11, 34]
USERS = [f"user{n}".encode() for n in range(40_000)]


def experiment(*shares: float, salt: str = "salt") -> Experiment:
    return Experiment("mix", salt, tuple(Arm(f"arm{n}", share) for n, share in enumerate(shares)))


def places(defined: Experiment) -> list[int]:
    return [defined.place_of(user) for user in USERS]


def names(defined: Experiment) -> list[str]:
    return [defined.arms[place].name for place in places(defined)]


def chi_squared(rows: list[int], columns: list[int]) -> float:
    """Pearson's, as a number of standard deviations from what independence gives."""
    table = np.zeros((max(rows) + 1, max(columns) + 1))
    np.add.at(table, (rows, columns), 1.0)
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    return float((((table - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom))


@pytest.mark.parametrize("shares", [(1, 1), (8, 1, 1), (0.05, 0.95), (3, 2, 5, 0.5), tuple(range(1, 11))])
def test_each_arm_has_its_share_of_the_users(shares: tuple[float, ...]) -> None:
    counts = np.bincount(places(experiment(*shares)), minlength=len(shares))
    wanted = np.array(shares) / sum(shares)
    deviations = (counts - len(USERS) * wanted) / np.sqrt(len(USERS) * wanted * (1 - wanted))
    assert np.abs(deviations).max() < 4.0, counts


def test_a_user_stays_in_their_arm_in_every_process() -> None:
    defined = Experiment("mix", "salt", (Arm("control", 1.0), Arm("other", 1.0)))
    assert " ".join(defined.arm_of(f"u{n}").name for n in range(12)) == KNOWN
    assert [defined.bucket_of(f"u{n}".encode()) for n in range(6)] == KNOWN_BUCKETS


def test_a_larger_share_takes_users_from_the_others_and_moves_nobody_else() -> None:
    before, after = names(experiment(5, 2, 3)), names(experiment(5, 4, 3))
    moved = [(one, other) for one, other in zip(before, after, strict=True) if one != other]
    assert {other for _, other in moved} == {"arm1"}
    expected = 4 / 12 - 2 / 10
    assert len(moved) / len(USERS) == pytest.approx(expected, abs=0.01)


def test_an_arm_that_goes_gives_its_users_away_and_keeps_the_others() -> None:
    full = experiment(5, 2, 3)
    before, after = names(full), names(replace(full, arms=full.arms[:2]))
    assert all(one == other for one, other in zip(before, after, strict=True) if one != "arm2")
    assert {other for one, other in zip(before, after, strict=True) if one == "arm2"} == {"arm0", "arm1"}


def test_the_order_of_arms_does_not_matter_to_who_is_in_them() -> None:
    full = experiment(5, 2, 3)
    assert names(full) == names(replace(full, arms=full.arms[::-1]))


def test_arms_buckets_partitions_and_salts_say_nothing_of_each_other() -> None:
    defined = experiment(1, 1, 2)
    arms = places(defined)
    buckets = [defined.bucket_of(user) for user in USERS]
    partitions = [partition_of(user, 8) for user in USERS]
    others = places(experiment(1, 1, 2, salt="other"))
    assert set(buckets) == set(range(BUCKETS))
    for one, other in ((arms, partitions), (arms, buckets), (buckets, partitions), (arms, others)):
        assert abs(chi_squared(one, other)) < 4.0
    # What would be seen if they did.
    assert chi_squared(arms, arms) > 100.0


def test_whatever_is_changed_makes_it_another_experiment() -> None:
    one = Experiment("mix", "salt", (Arm("a", 1.0), Arm("b", 1.0, {"diversity": 0.5})))
    again = Experiment("mix", "salt", (Arm("a", 1.0), Arm("b", 1.0, {"diversity": 0.5})))
    one.place_of(b"u"), one.place_named("a")
    assert one.id == again.id
    assert 0 < one.id < 2**53
    a, b = one.arms
    others = [
        replace(one, name="other"),
        replace(one, salt="other"),
        replace(one, arms=(b, a)),
        replace(one, arms=(a, replace(b, share=2.0))),
        replace(one, arms=(a, replace(b, preset={"diversity": 0.6}))),
        replace(one, arms=(a, replace(b, objective=Objective.parse("choice=1,like=1")))),
        replace(one, arms=(a, replace(b, without=("markov",)))),
        replace(one, arms=(a, replace(b, name="c"))),
    ]
    assert len({one.id, *(other.id for other in others)}) == len(others) + 1
