"""The largest scores as marks, against sorting."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from online_models.base import BoolArray, Float32Array, ModelError
from online_models.selection import mark_first, mark_largest

SCORES = st.sampled_from([-np.inf, -2.0, -1.0, 0.0, 1e-30, 0.5, 1.0, 2.0, 3.0, 1e30, np.inf, np.nan])


def marked(scores: Float32Array, allowed: BoolArray, n: int, above: float = -np.inf) -> list[int]:
    marks = np.zeros(len(scores), np.bool_)
    mark_largest(marks, scores, allowed, n, above)
    return np.flatnonzero(marks).tolist()


def reference(scores: list[float], allowed: list[bool], n: int, above: float) -> list[int]:
    """Of equal scores the lower row first; what is not finite is no score."""
    usable = [row for row, score in enumerate(scores) if allowed[row] and np.isfinite(score) and score > above]
    return sorted(sorted(usable, key=lambda row: (-scores[row], row))[: max(n, 0)])


@given(st.lists(st.tuples(SCORES, st.booleans()), max_size=40), st.integers(-1, 45), st.sampled_from([-np.inf, 0.0]))
@settings(deadline=None)
def test_the_largest_are_marked(drawn: list[tuple[float, bool]], n: int, above: float) -> None:
    scores, allowed = [score for score, _ in drawn], [may for _, may in drawn]
    found = marked(np.array(scores, np.float32), np.array(allowed, np.bool_), n, above)
    # 1e-30 and the like as they are in 32 bits.
    assert found == reference(np.array(scores, np.float32).tolist(), allowed, n, above)


@pytest.mark.parametrize("n", [1, 2, 50, 999, 1_000])
def test_of_many_scores(n: int) -> None:
    rng = np.random.default_rng(n)
    for scores in (rng.normal(0, 1, 1_000), np.arange(1_000.0), -np.arange(1_000.0), rng.integers(0, 9, 1_000)):
        allowed = rng.random(1_000) < 0.9
        given_ = scores.astype(np.float32)
        assert marked(given_, allowed, n) == reference(given_.tolist(), allowed.tolist(), n, -np.inf)


def test_marks_of_several_sources_add_up() -> None:
    marks = np.array([True, False, False, False])
    scores, allowed = np.array([9, 1, 3, 2], np.float32), np.ones(4, np.bool_)
    mark_largest(marks, scores, np.array([False, True, True, True]), 1)
    mark_first(marks, np.array([3, 1], np.int32), allowed, 1)
    assert marks.tolist() == [True, False, True, True]


def test_the_first_allowed_rows_are_marked_and_rows_that_have_come_since_are_passed_over() -> None:
    marks = np.zeros(5, np.bool_)
    mark_first(marks, np.array([9, 4, -1, 0, 5, 2, 3], np.int32), np.array([False, True, True, True, True]), 2)
    assert np.flatnonzero(marks).tolist() == [2, 4]
    mark_first(marks, np.array([1], np.int32), np.ones(5, np.bool_), 0)
    assert np.flatnonzero(marks).tolist() == [2, 4]


def test_arrays_of_different_length_are_refused() -> None:
    for marks, scores, allowed in ((3, 4, 4), (4, 3, 4), (4, 4, 3)):
        with pytest.raises(ModelError, match="length"):
            mark_largest(np.zeros(marks, np.bool_), np.zeros(scores, np.float32), np.zeros(allowed, np.bool_), 2)
    with pytest.raises(ModelError, match="length"):
        mark_first(np.zeros(3, np.bool_), np.zeros(1, np.int32), np.ones(4, np.bool_), 2)
