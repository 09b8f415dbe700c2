"""Rows of videos: growth, names, deletion, bounds."""

import numpy as np
import pytest

from state.engine import CLOCK_STEP_TICKS, Engine, EngineOptions
from state.errors import StateFull
from state.expiry import DAY_MS
from state.replica import Replica, video_code
from topics.catalog import Video


def replica_of(capacity: int = 5_000) -> Replica:
    return Engine(EngineOptions(partitions=4, max_videos=capacity), b"x").replica


def test_growth_keeps_every_row() -> None:
    replica = replica_of()
    numbers = [replica.row_of(f"v{n}") for n in range(3_000)]
    assert numbers == list(range(3_000))
    q = replica.models["sequential_mf"].columns["q"]
    assert len({q[row].tobytes() for row in numbers}) == 3_000
    np.testing.assert_array_equal(replica.base["q"][:3_000], q[:3_000])
    assert [replica.find(f"v{n}") for n in range(3_000)] == numbers
    assert replica.active_rows().tolist() == numbers
    assert sorted(row for p in range(4) for row in replica.rows_in(p).tolist()) == numbers


def test_first_vectors_depend_on_the_id_alone() -> None:
    one, other = replica_of(), replica_of()
    for n in range(5):
        other.row_of(f"before{n}")
    a, b = one.row_of("a"), other.row_of("a")
    assert a != b
    np.testing.assert_array_equal(one.base["q"][a], other.base["q"][b])


def test_the_capacity_is_a_bound() -> None:
    replica = replica_of(3)
    for n in range(3):
        replica.row_of(f"v{n}")
    with pytest.raises(StateFull, match="HEADRACE_MAX_VIDEOS"):
        replica.row_of("v3")
    with pytest.raises(StateFull, match="HEADRACE_MAX_VIDEOS"):
        replica.rows_of_hashes(np.array([12], np.uint64))
    assert replica.find("v3") is None
    assert replica.row_of("v1") == 1
    assert len(replica) == 3


def test_rows_made_together_equal_rows_made_one_by_one() -> None:
    together, apart = replica_of(), replica_of()
    names = ["a", "b", "a", "c"]
    rows = together.rows_of(names)
    assert rows.tolist() == [apart.row_of(name) for name in names]
    np.testing.assert_array_equal(together.base["q"][:3], apart.base["q"][:3])
    np.testing.assert_array_equal(together.active_rows(), rows[[0, 1, 3]])


def test_rows_made_before_the_capacity_was_met_are_whole() -> None:
    replica, other = replica_of(2), replica_of()
    with pytest.raises(StateFull):
        replica.rows_of(["a", "b", "c"])
    other.rows_of(["a", "b"])
    np.testing.assert_array_equal(replica.base["q"][:2], other.base["q"][:2])
    assert replica.find("c") is None


def test_a_placeholder_becomes_the_video_when_its_id_arrives() -> None:
    replica = replica_of()
    [row] = replica.rows_of_hashes(np.array([video_code("a")], np.uint64)).tolist()
    assert not replica.active[row]
    assert len(replica.rows_in(replica.partition[row])) == 0 or replica.partition[row] == -1
    assert replica.find("a") is None
    with pytest.raises(KeyError):
        replica.ids_of([row])
    assert replica.row_of("a") == row
    assert replica.active[row]
    assert replica.ids_of([row]) == ["a"]
    assert replica.rows_of_hashes(np.array([video_code("a")], np.uint64)).tolist() == [row]


def test_hashes_become_rows_in_any_shape() -> None:
    replica = replica_of()
    a, b = replica.row_of("a"), replica.row_of("b")
    codes = np.array([[video_code("b"), 0], [video_code("a"), video_code("b")]], np.uint64)
    assert replica.rows_of_hashes(codes).tolist() == [[b, -1], [a, b]]
    assert replica.rows_of_hashes(np.empty(0, np.uint64)).tolist() == []
    seen = np.array([video_code("a") | 1, 2**40, video_code("b")], np.uint64)
    assert replica.find_codes(seen).tolist() == [a, b]


def test_a_deletion_forgets_what_was_learned_and_publishing_starts_anew() -> None:
    replica = replica_of()
    row = replica.publish("a", Video(title="x"))
    other = replica.row_of("b")
    first = replica.base["q"][row].copy()
    replica.base["q"][row] = replica.models["sequential_mf"].columns["q"][row] = 5
    replica.counts[row] = 3
    replica.models["popularity"].columns["plays"][row] = 2
    replica.models["covisitation"].columns["neighbour"][other, 0] = row
    assert replica.mark_deleted("a") == row
    assert not replica.active[row]
    assert replica.video(row) is None
    assert replica.models["covisitation"].columns["neighbour"][other, 0] == -1
    # An event for it finds the row and does not bring it back.
    assert replica.row_of("a") == row
    assert not replica.active[row]
    assert replica.publish("a", Video(title="y")) == row
    assert replica.active[row]
    assert not replica.counts[row].any()
    assert replica.models["popularity"].columns["plays"][row] == 0
    np.testing.assert_array_equal(replica.base["q"][row], first)
    np.testing.assert_array_equal(replica.models["sequential_mf"].columns["q"][row], first)


def test_a_dropped_row_is_used_again_only_after_recycling() -> None:
    replica = replica_of(3)
    rows = [replica.row_of(f"v{n}") for n in range(3)]
    replica.models["markov"].columns["neighbour"][rows[0], 0] = rows[1]
    replica.counts[rows[1]] = 4
    replica.drop(rows[1])
    assert replica.find("v1") is None
    assert replica.models["markov"].columns["neighbour"][rows[0], 0] == -1
    with pytest.raises(StateFull):
        replica.row_of("v3")
    replica.recycle()
    assert replica.row_of("v3") == rows[1]
    assert not replica.counts[rows[1]].any()
    assert replica.video(rows[1]) is None
    assert replica.active[rows[1]]
    assert replica.ids_of([rows[1]]) == ["v3"]


def test_one_event_of_today_does_not_fade_a_log_of_years_ago() -> None:
    made = replica_of()
    step = int(CLOCK_STEP_TICKS * DAY_MS / EngineOptions().positives_per_day)
    old = 1_600_000_000_000
    made.advance(np.array([old], np.int64))
    made.advance(np.array([old + 5 * 365 * DAY_MS], np.int64))
    assert made.stream_ms == old + step
    made.advance(np.array([old, old - 1], np.int64))
    assert made.stream_ms == old + step
    made.advance(np.full(30, old + 10 * step, np.int64))
    assert made.stream_ms == old + 10 * step
