"""The tally: what a list counts, what is taken back, and whose parts are read."""

import math

import numpy as np
import pytest

from state.experiment import BUCKETS, Arm, Experiment
from state.tally import LONGEST_MS, MEASURES, Followed, Said, Tally
from state.types import Float64Array

EXPERIMENT = Experiment("mix", "salt", (Arm("control", 1.0), Arm("other", 1.0)))


def followed(arm: int = 0, bucket: int = 3, places: int = 4, sends: bool = False) -> Followed:
    return Followed.of(arm, bucket, places, sends)


def counted(tally: Tally, arm: int = 0) -> dict[str, float]:
    return dict(zip(MEASURES, tally.sums()[arm].sum(axis=0).tolist(), strict=True))


def measured(one: Followed) -> dict[str, float]:
    return dict(zip(MEASURES, one.measures().tolist(), strict=True))


def test_a_list_that_nothing_follows_counts_its_places() -> None:
    assert measured(followed()) == {
        "lists": 1, "hits": 0, "shown": 4, "clicks": 0, "positives": 0, "watch_ms": 0,
    }  # fmt: skip


def test_what_follows_counts_once_a_place() -> None:
    one = followed()
    one.add(1, Said(False, True, False, 8.0))
    one.add(1, Said(False, True, True, 2.5))
    one.add(2, Said(False, False, False, 1.0))
    one.add(3, Said(False, False, True, math.nan))
    assert measured(one) == {
        "lists": 1, "hits": 1, "shown": 4, "clicks": 2, "positives": 2, "watch_ms": 11_500,
    }  # fmt: skip


def test_with_impressions_only_what_was_shown_or_clicked_was_shown() -> None:
    one = followed()
    one.add(0, Said(True))
    one.add(2, Said(False, True, False, 0.0))
    assert measured(one)["shown"] == 2
    assert measured(followed(sends=True))["shown"] == 0


def test_what_is_taken_back_was_never_there() -> None:
    one = followed()
    one.add(2, Said(False, True, True, 3.25))
    before = measured(one)
    for said in (Said(True), Said(False, True, False, 1.1115), Said(False, False, True, math.nan)):
        one.add(2, said)
        one.add(0, said)
    for said in (Said(True), Said(False, True, False, 1.1115), Said(False, False, True, math.nan)):
        one.add(2, said, times=-1)
        one.add(0, said, times=-1)
    assert measured(one) == before


def test_one_watch_cannot_outweigh_an_arm() -> None:
    one = followed()
    one.add(0, Said(False, True, False, 1e300))
    assert measured(one)["watch_ms"] == LONGEST_MS


def test_a_list_counts_from_the_first_and_is_waited_for_until_it_is_closed() -> None:
    tally, one = Tally(EXPERIMENT), followed(arm=1)
    tally.open(0, one)
    assert counted(tally, 1)["lists"] == 1
    one.add(0, Said(False, True, True, 3.0))
    tally.count(0, one)
    tally.count(0, one)
    expected = {"lists": 1, "hits": 1, "shown": 4, "clicks": 1, "positives": 1, "watch_ms": 3_000}
    assert counted(tally, 1) == expected
    assert tally.waiting().tolist() == [0, 1]
    tally.close(0, one)
    assert tally.waiting().tolist() == [0, 0]
    assert counted(tally, 1) == expected
    assert not tally.sums()[0].any()
    assert tally.sums()[1, 3, 0] == 1


def test_whoever_takes_a_shard_over_says_which_lists_were_cut_short() -> None:
    tally, closed, waiting = Tally(EXPERIMENT), followed(), followed(arm=1)
    tally.open(0, closed)
    tally.close(0, closed)
    waiting.add(1, Said(False, True, True, 2.0))
    tally.open(0, waiting)
    tally.miss(0)
    other = Tally(EXPERIMENT)
    assert other.put(0, tally.part(0))
    assert other.waiting().tolist() == [0, 1]
    assert other.recover(0)
    assert not other.recover(0)
    for arm in range(2):
        assert counted(other, arm) == counted(tally, arm)
    assert (other.late, other.short) == (1, 1)
    assert other.waiting().tolist() == [0, 0]


def test_parts_of_all_shards_are_summed_and_those_of_the_owned_ones_can_be() -> None:
    tally = Tally(EXPERIMENT)
    for number in range(3):
        for _ in range(number + 1):
            tally.open(number, followed(bucket=number))
    assert counted(tally)["lists"] == 6
    assert tally.sums([0, 2]).sum(axis=(0, 1))[0] == 4
    before = tally.part(1)
    tally.open(1, followed())
    assert tally.put(1, before)
    assert counted(tally)["lists"] == 6


def another(_part: Float64Array) -> Float64Array:
    theirs = Tally(Experiment("mix", "other", EXPERIMENT.arms))
    theirs.open(0, followed())
    return theirs.part(0)


def changed(place: int, value: float) -> object:
    def made(part: Float64Array) -> Float64Array:
        part = part.copy()
        part[place] = value
        return part

    return made


@pytest.mark.parametrize(
    "make",
    [another, np.zeros_like, lambda part: part[:-1], changed(20, np.nan), changed(20, -1.0), changed(20, np.inf)],
)
def test_what_another_experiment_counted_and_what_is_broken_is_nothing(make: object) -> None:
    tally = Tally(EXPERIMENT)
    tally.open(0, followed())
    assert not tally.put(0, make(tally.part(0)))  # type: ignore[operator] # made above
    assert not tally.sums().any()
    tally.open(0, followed())
    assert counted(tally)["lists"] == 1
    assert tally.put(0, tally.part(0))


def test_a_part_is_bounded() -> None:
    assert len(Tally(EXPERIMENT).part(0)) == 3 + 2 + 2 * BUCKETS * len(MEASURES)
