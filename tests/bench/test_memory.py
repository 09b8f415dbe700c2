import numpy as np

from bench.memory import fill_users, interleaved, per_piece, seen_counts
from bench.object_size import attribute_bytes, held_bytes
from state.engine import Engine, EngineOptions
from state.users import HISTORY, SEEN_MAX
from topics.catalog import Video


def test_seen_counts_have_the_mean_that_is_asked_for_and_keep_the_bounds() -> None:
    counts = seen_counts(50_000, 50.0, np.random.default_rng(1))
    assert abs(counts.mean() - 50) < 1
    assert counts.min() == HISTORY
    assert counts.max() <= SEEN_MAX
    assert np.median(counts) < 40, "a long tail, not a bell"


def test_events_of_users_are_mixed_and_counted_down() -> None:
    users, left = interleaved(np.array([3, 1, 5], np.int32), np.random.default_rng(1))
    assert np.bincount(users).tolist() == [3, 1, 5]
    assert left[users == 2].tolist() == [4, 3, 2, 1, 0]
    assert users.tolist() != sorted(users.tolist())


def test_users_end_with_whole_histories_and_the_drawn_seen_sets() -> None:
    engine = Engine(EngineOptions(max_users=50), b"test")
    about = fill_users(engine, 50, 40.0, videos=1_000, seed=1)
    seen = [len(engine.users.seen(slot)) for slot in range(50)]
    assert round(float(np.mean(seen)), 1) == about["mean_seen"]
    assert (engine.users.history[:50] >= 0).sum() > 0.95 * 50 * HISTORY, "a video may come twice in a history"


def test_an_object_counts_once_with_what_it_holds() -> None:
    values = np.zeros(1_000, np.float64)
    assert 8_000 <= held_bytes(values, set()) < 8_200
    assert held_bytes(values[:10], set()) > 8_000, "a view keeps its whole array"
    shared = "x" * 1_000
    assert 1_000 < held_bytes([shared, shared, (shared,)], set()) < 1_400
    assert held_bytes({"key": Video(description=shared)}, set()) > 1_000
    counted: set[int] = set()
    held_bytes(shared, counted)
    assert held_bytes([shared], counted) < 100


class Owner:
    def __init__(self) -> None:
        self.array = np.zeros(500, np.float32)
        self.named = {"a": "b" * 300}


def test_sizes_come_by_attribute_and_the_rest_is_named() -> None:
    sizes = attribute_bytes(Owner(), set())
    assert 2_000 <= sizes["array"] < 2_200
    assert 300 < sizes["named"] < 800
    shares = per_piece({"small": 200, "large": 1_000, "nothing": 1}, 10, 1_501)
    assert list(shares.items()) == [("large", 100.0), ("small", 20.0), ("rest", 30.0)]
