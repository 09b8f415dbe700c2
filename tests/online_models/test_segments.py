"""What users of a kind choose, and how little it says where few have chosen."""

import numpy as np
import pytest

from online_models.base import FACTORS, Context, ModelError, UInt64Array
from online_models.segments import BUCKETS, HALF_LIFE, PRIOR, Segments, buckets_of

A = np.array([0b011, 0], np.uint64)
"""Buckets 0 and 1."""
B = np.array([0b101, 1 << 63], np.uint64)
"""Buckets 0, 2 and 127."""
NOBODY = np.zeros(2, np.uint64)


def rows(*numbers: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.array(numbers, np.int32)


def learned(model: Segments, row: int, segments: UInt64Array, times: int, ticks: float = 0.0) -> None:
    model.apply(np.full(times, row, np.int32), np.tile(segments, (times, 1)), np.full(times, ticks))


def test_buckets_are_the_numbers_of_the_bits() -> None:
    assert buckets_of(A).tolist() == [0, 1]
    assert buckets_of(B).tolist() == [0, 2, 127]
    assert buckets_of(NOBODY).tolist() == []
    assert buckets_of(np.full(2, 2**64 - 1, np.uint64)).tolist() == list(range(BUCKETS))


def test_the_lift_is_the_mean_over_the_users_buckets() -> None:
    model = Segments(3)
    learned(model, 0, A, 30)
    learned(model, 0, B, 10)
    learned(model, 1, B, 40)
    model.weigh(0.0, 3)
    # Bucket 0 has all positives, bucket 1 has 30 of 80, buckets 2 and 127 have 50 of 80.
    one = (30 + PRIOR) / (40 * 30 / 80 + PRIOR)
    others = (10 + PRIOR) / (40 * 50 / 80 + PRIOR)
    assert model.lifts(rows(0), A, 0.0)[0] == pytest.approx(np.log([1.0, one]).mean(), rel=1e-6)
    assert model.lifts(rows(0), B, 0.0)[0] == pytest.approx(np.log([1.0, others, others]).mean(), rel=1e-6)
    lifts = model.lifts(rows(1, 0, 2), A, 0.0)
    assert lifts[0] < 0.0 < lifts[1]
    assert lifts[2] == 0.0


def test_many_buckets_count_like_few() -> None:
    """Also by the hundred: their product is taken in pieces."""
    model = Segments(2)
    everything, none = np.full(2, 2**64 - 1, np.uint64), A
    learned(model, 0, everything, 1_000_000)
    learned(model, 1, none, 9_000_000)
    model.weigh(0.0, 2)
    columns = model.columns["counts"].astype(float)
    shares = columns.sum(axis=0) / columns[:, -1].sum()
    expected = np.log((columns[0, :-1] + PRIOR) / (columns[0, -1] * shares[:-1] + PRIOR)).mean()
    assert model.lifts(rows(0), everything, 0.0)[0] == pytest.approx(expected, rel=1e-5)


def test_one_positive_says_little_and_a_hundred_say_more() -> None:
    model = Segments(3)
    learned(model, 0, A, 1)
    learned(model, 1, A, 100)
    learned(model, 2, B, 200)
    model.weigh(0.0, 3)
    few, many = model.lifts(rows(0, 1), A, 0.0)
    assert 0.0 < few < 0.1 < many


def test_counts_fade_as_of_their_own_time_in_any_order() -> None:
    forward, backward = Segments(1), Segments(1)
    at = np.array([0.0, HALF_LIFE, 3 * HALF_LIFE])
    for model, order in ((forward, [0, 1, 2]), (backward, [2, 0, 1])):
        model.apply(rows(0, 0, 0), np.stack([A, B, A])[order], at[order])
    for model in (forward, backward):
        assert model.columns["at"][0] == 3 * HALF_LIFE
        np.testing.assert_allclose(model.columns["counts"][0, [0, 1, 2, 127, 128]], [1.375, 1.125, 0.25, 0.25, 1.375])
    kept = forward.columns["counts"].copy()
    now, later = (forward.lifts(rows(0), A, ticks) for ticks in (3 * HALF_LIFE, 300 * HALF_LIFE))
    assert np.isfinite([now, later]).all()
    np.testing.assert_array_equal(forward.columns["counts"], kept)


def test_users_of_whom_nothing_is_known_are_not_counted() -> None:
    model = Segments(2)
    learned(model, 0, NOBODY, 50)
    assert not model.columns["counts"].any()
    assert not model.columns["at"].any()
    learned(model, 0, A, 2, 7.0)
    assert model.columns["counts"][0, BUCKETS] == 2.0
    assert model.lifts(rows(0, 1), NOBODY, 8.0).tolist() == [0.0, 0.0]


def test_the_arm_ranks_by_popularity_among_the_users_kind() -> None:
    model = Segments(3)
    learned(model, 0, A, 60)
    learned(model, 1, B, 80)
    model.weigh(0.0, 3)
    for segments, order in ((A, [0, 1, 2]), (B, [1, 0, 2])):
        asked = Context(rows(), np.zeros(FACTORS, np.float32), 0.0, segments=segments)
        assert np.argsort(-model.score_many(asked, rows(0, 1, 2))).tolist() == order


@pytest.mark.parametrize("ticks", [np.nan, np.inf])
def test_what_is_refused_changes_nothing(ticks: float) -> None:
    model = Segments(2)
    learned(model, 1, A, 3)
    before = {name: column.copy() for name, column in model.columns.items()}
    for bad, at in (
        (rows(0, 2), [1.0, 1.0]),
        (rows(0, -1), [1.0, 1.0]),
        (rows(0, 1), [1.0, ticks]),
        (rows(0, 1), [1.0]),
    ):
        with pytest.raises(ModelError):
            model.apply(bad, np.stack([A, A]), np.array(at))
    with pytest.raises(ModelError):
        model.lifts(rows(2), A, 0.0)
    with pytest.raises(ModelError):
        model.weigh(0.0, 3)
    for name, column in model.columns.items():
        np.testing.assert_array_equal(column, before[name])


def test_growing_keeps_what_is_learned() -> None:
    model = Segments(0)
    model.resize(2)
    learned(model, 1, A, 3, 5.0)
    model.resize(1_000)
    assert model.columns["counts"][1, BUCKETS] == 3.0
    assert model.columns["counts"].sum() == 9.0
    model.forget(rows(1))
    assert not model.columns["counts"].any()


def test_counts_at_time_0_survive_growing() -> None:
    model = Segments(2)
    learned(model, 1, A, 3, 0.0)
    model.resize(10)
    assert model.columns["counts"][1, BUCKETS] == 3.0
