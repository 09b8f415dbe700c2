"""The graph index against exact search."""

import threading
from typing import Any

import numpy as np
import pytest

from state.index import ItemIndex
from state.types import Float32Array, Int32Array


def vectors(seed: int, n: int, k: int = 32) -> tuple[Float32Array, Float32Array]:
    """Vectors as factorization makes them: a few directions carry most, lengths differ (or inner product were cosine)."""
    rng = np.random.default_rng(seed)
    shape = (1 + np.arange(k)) ** -0.75
    q = rng.normal(0, 1, (n, k)) * shape * rng.lognormal(0, 0.2, (n, 1))
    return q.astype(np.float32), rng.normal(0, 0.5, n).astype(np.float32)


def exact(q: Float32Array, b: Float32Array, z: Float32Array, n: int) -> Int32Array:
    return np.argsort(-(q @ z + b), kind="stable")[:n].astype(np.int32)


def filled(q: Float32Array, b: Float32Array) -> ItemIndex:
    index = ItemIndex(q.shape[1], 100_000)
    index.mark(np.arange(len(q), dtype=np.int32))
    while index.waiting:
        index.refresh(q, b)
    return index


def recall(index: ItemIndex, q: Float32Array, b: Float32Array, allowed: Any = slice(None)) -> float:
    rng = np.random.default_rng(99)
    rows = np.arange(len(q), dtype=np.int32)[allowed]
    found = 0
    for _ in range(30):
        z = (rng.normal(0, 1, q.shape[1]) * (1 + np.arange(q.shape[1])) ** -0.75).astype(np.float32)
        wanted = rows[exact(q[rows], b[rows], z, 50)]
        found += len(np.intersect1d(wanted, index.search(z, 50, q, b)))
    return found / (30 * 50)


def test_finds_what_exact_search_finds() -> None:
    q, b = vectors(1, 3_000)
    index = filled(q, b)
    assert len(index) == 3_000
    assert recall(index, q, b) >= 0.95


def test_the_order_is_that_of_the_inner_product() -> None:
    q, b = vectors(2, 500)
    index = filled(q, b)
    z = np.ones(32, np.float32)
    scores = (q @ z + b)[index.search(z, 100, q, b)]
    assert (np.diff(scores) <= 1e-3).all()


def test_removed_rows_are_never_returned() -> None:
    q, b = vectors(3, 1_000)
    index = filled(q, b)
    gone = np.random.default_rng(4).permutation(1_000)[:950]
    index.remove(gone.tolist())
    index.remove(gone[:10].tolist())
    assert len(index) == 50
    kept = np.setdiff1d(np.arange(1_000), gone)
    for seed in range(20):
        z = np.random.default_rng(seed).normal(0, 1, 32).astype(np.float32)
        assert sorted(index.search(z, 1_000, q, b).tolist()) == kept.tolist()


def test_a_row_removed_while_a_refresh_is_under_way_stays_away() -> None:
    """`refresh` runs in a thread: a removal may come between its choice of rows and its work on the graph."""
    q, b = vectors(5, 100)
    index = filled(q, b)

    class Interrupting(np.ndarray[Any, np.dtype[np.float32]]):
        def __getitem__(self, key: Any) -> Any:
            index.remove([7])
            return np.asarray(self)[key]

    q[7] *= 3
    index.mark(np.array([7], np.int32))
    index.refresh(q.view(Interrupting), b)
    assert 7 not in index.search(q[7], 100, q, b).tolist()
    assert len(index) == 99


def test_a_row_that_comes_back_is_found_again() -> None:
    q, b = vectors(7, 200)
    index = filled(q, b)
    index.remove([3])
    index.mark(np.array([3], np.int32))
    index.refresh(q, b)
    assert index.search(q[3] * 10, 200, q, b).tolist().count(3) == 1
    assert len(index) == 200


def test_a_row_that_comes_back_unchanged_is_found_again() -> None:
    """Its vector is where the graph holds it; that it was taken out of there has to be undone all the same."""
    q, b = vectors(12, 300)
    index = filled(q, b)
    index.remove([5])
    assert 5 not in index.search(q[5] * 10, 300, q, b)
    index.mark(np.array([5], np.int32))
    while index.waiting:
        index.refresh(q, b)
    assert 5 in index.search(q[5] * 10, 300, q, b)


def test_rows_that_moved_are_found_exactly_before_the_graph_has_them() -> None:
    q, b = vectors(13, 3_000)
    index = filled(q, b)
    everything = np.arange(3_000, dtype=np.int32)
    q = np.random.default_rng(5).permutation(q)
    index.mark(everything)
    for _ in range(3):  # a refresh looks at 2,048 rows
        index.refresh(q, b, budget_s=0)
    assert index.waiting > 2_500
    assert recall(index, q, b) == 1.0
    index.remove(range(0, 3_000, 2))
    assert recall(index, q, b, slice(1, None, 2)) == 1.0


def test_a_new_graph_is_built_while_the_old_one_answers() -> None:
    q, b = vectors(14, 2_000)
    index = filled(q, b)
    q[:10] *= 50
    index.mark(np.arange(10, dtype=np.int32))
    index.refresh(q, b, budget_s=0.01)
    queued = index.waiting
    assert queued > 1_500
    index.remove([3, 1_999])
    index.mark(np.array([1_999], np.int32))
    kept = np.setdiff1d(np.arange(2_000), [3])
    turns = 0
    while index.waiting:
        assert recall(index, q, b, kept) >= 0.95
        index.refresh(q, b, budget_s=0.005)
        turns += 1
    assert turns > 2
    assert len(index) == 1_999
    assert 3 not in index.search(q[3], 2_000, q, b)
    assert recall(index, q, b, kept) >= 0.95


def test_removals_and_marks_of_another_thread_lose_nothing() -> None:
    q, b = vectors(15, 1_500)
    index = filled(q, b)
    stop = threading.Event()

    def refresh() -> None:
        while not stop.is_set():
            index.refresh(q, b, budget_s=0.002)

    thread = threading.Thread(target=refresh)
    thread.start()
    rng = np.random.default_rng(6)
    removed: set[int] = set()
    try:
        for _ in range(300):
            some = rng.integers(0, 1_500, 20).astype(np.int32)
            if rng.random() < 0.5:
                index.remove(some.tolist())
                removed |= set(some.tolist())
            else:
                q[some] += rng.normal(0, 0.1, (20, 32)).astype(np.float32)
                index.mark(some)
                removed -= set(some.tolist())
            assert not removed & set(index.search(q[some[0]], 100, q, b).tolist())
    finally:
        stop.set()
        thread.join()
    while index.waiting:
        index.refresh(q, b)
    assert recall(index, q, b, np.setdiff1d(np.arange(1_500), sorted(removed))) >= 0.95


def test_the_popular_are_found_from_a_taste_that_is_far_from_them() -> None:
    """Two islands: long vectors of a taste, and large biases of little else. A walk may end on the first."""
    q, b = vectors(16, 4_000)
    b[:] = np.abs(b) * 0.1
    b[:60] += 12
    q[:60] *= 0.01
    index = filled(q, b)
    for seed in range(40):
        z = np.random.default_rng(seed).normal(0, 1.5, 32).astype(np.float32)
        wanted = exact(q, b, z, 100)
        assert len(np.intersect1d(wanted[wanted < 60], index.search(z, 100, q, b))) == (wanted < 60).sum()


def test_drift_updates_and_less_does_not() -> None:
    q, b = vectors(8, 1_000)
    index = filled(q, b)
    everything = np.arange(1_000, dtype=np.int32)
    index.mark(everything)
    assert index.refresh(q * np.float32(1.01), b * np.float32(1.01)) == 0
    moved = np.roll(q, 1, axis=0)
    index.mark(everything)
    while index.waiting:
        index.refresh(moved, b)
    assert recall(index, moved, b) >= 0.95


def test_growth_of_the_largest_norm_rebuilds() -> None:
    q, b = vectors(9, 1_000)
    index = filled(q, b)
    index.remove([1, 2, 3])
    q[:500] *= 20
    index.mark(np.arange(4, 500, dtype=np.int32))
    while index.waiting:
        index.refresh(q, b)
    assert len(index) == 997
    index.remove([0])
    assert recall(index, q, b, slice(4, None)) >= 0.95


def test_vectors_that_are_not_finite_are_left_out() -> None:
    q, b = vectors(10, 100)
    q[5, 3], b[6] = np.nan, np.inf
    index = filled(q, b)
    assert len(index) == 98
    found = index.search(np.ones(32, np.float32), 100, q, b).tolist()
    assert sorted(found) == [row for row in range(100) if row not in (5, 6)]
    assert not len(index.search(np.full(32, np.nan, np.float32), 10, q, b))


@pytest.mark.parametrize("n", [0, 1, 2, 50])
def test_asks_for_more_than_there_is(n: int) -> None:
    q, b = vectors(11, n)
    assert sorted(filled(q, b).search(np.ones(32, np.float32), 1_000, q, b).tolist()) == list(range(n))


def test_ties_cost_places_but_raise_nothing() -> None:
    """The graph of equal vectors falls into parts; what cannot be reached is missing, and the rest is found."""
    q, b = np.ones((3_000, 32), np.float32), np.zeros(3_000, np.float32)
    index = filled(q, b)
    assert len(set(index.search(np.ones(32, np.float32), 200, q, b).tolist())) > 10
