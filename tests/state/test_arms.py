"""Places in the lists of arms, against sorting."""

import numpy as np
import pytest

from state.arms import ABSENT, Scores, place_in, position


def sorted_position(scores: list[float], ties: list[float] | None, allowed: list[bool], target: int, k: int) -> int:
    order = sorted(
        (row for row in range(len(scores)) if allowed[row]),
        key=lambda row: (-scores[row], -(ties[row] if ties else 0.0), row),
    )[:k]
    return order.index(target) if target in order else ABSENT


@pytest.mark.parametrize("seed", range(20))
def test_the_place_is_that_in_the_sorted_list(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, k = 30, 8
    # Few values, so that most are equal to another.
    scores, ties = rng.integers(0, 6, n).astype(np.float64), rng.integers(0, 3, n).astype(np.float64)
    allowed = rng.random(n) < 0.7
    for target in range(n):
        for tied in (None, ties):
            expected = sorted_position(
                scores.tolist(), None if tied is None else tied.tolist(), allowed.tolist(), target, k
            )
            assert position(Scores(scores, tied), allowed, target, k) == expected


def test_what_nobody_can_list_has_no_place() -> None:
    scores, allowed = np.array([3.0, np.nan, 2.0]), np.array([True, True, False])
    assert position(Scores(scores), allowed, 0, 2) == 0
    assert [position(Scores(scores), allowed, target, 3) for target in (1, 2, None)] == [ABSENT] * 3


def test_a_place_in_a_list() -> None:
    listed = np.array([7, 3, 9], np.int32)
    assert [place_in(listed, row) for row in (7, 9, 8, None)] == [0, 2, ABSENT, ABSENT]
