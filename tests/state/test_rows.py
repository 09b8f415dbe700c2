"""Rows survive the way through bytes into another process, where row numbers are others."""

from dataclasses import dataclass

import msgspec
import numpy as np
import pytest

from state import rows
from state.engine import Engine, EngineOptions
from state.errors import SchemaMismatch
from state.rows import Cut
from topics.catalog import Video


@dataclass
class Process:
    engine: Engine

    def row(self, video_id: str) -> int:
        return self.engine.replica.row_of(video_id)


def process() -> Process:
    return Process(Engine(EngineOptions(partitions=4), b"x"))


@pytest.fixture
def one() -> Process:
    return process()


@pytest.fixture
def other() -> Process:
    """Knows other videos first, so that every row number differs."""
    fresh = process()
    for n in range(9):
        fresh.row(f"other{n}")
    return fresh


def test_users(one: Process, other: Process) -> None:
    users = one.engine.users
    slot = users.slot_of("änn", 1)
    users.p[slot] = np.arange(32)
    users.pacc[slot], users.last_ms[slot], users.offset[slot] = 3.5, 2**50, 2**40
    users.recent[slot] = np.arange(32, dtype=np.uint64) + np.uint64(2**63)
    users.recent_at[slot] = 17
    users.counts[slot] = np.arange(12)
    users.history[slot, :3] = [one.row("c"), one.row("a"), one.row("b")]
    users.set_seen(slot, np.array([2**64 - 2, 5, 8], np.uint64))
    [(key, data)] = rows.encode_users(users, np.array([slot], np.int32), one.engine.replica)
    assert key == "u:änn".encode()

    into = other.engine.users
    there = into.slot_of("somebody", 1)
    rows.decode_user(data, into, there, other.engine.replica)
    for name in ("p", "pacc", "recent", "recent_at", "counts", "last_ms", "offset"):
        np.testing.assert_array_equal(getattr(into, name)[there], getattr(users, name)[slot])
    assert into.history[there].tolist() == [other.row("c"), other.row("a"), other.row("b")] + [-1] * 17
    assert into.seen(there).tolist() == [2**64 - 2, 5, 8]
    read = rows.read_user(data)
    assert (read["history"], read["seen"].tolist(), int(read["recent_at"])) == (["c", "a", "b"], [2**64 - 2, 5, 8], 17)
    # A second way through bytes changes nothing.
    assert rows.encode_users(into, np.array([there], np.int32), other.engine.replica)[0][1] == data


def test_a_row_is_a_copy(one: Process) -> None:
    """Learning goes on while a checkpoint's rows wait to be sent."""
    users = one.engine.users
    slot = users.slot_of("ann", 0)
    row = one.row("a")
    one.engine.replica.base["b"][row] = 1
    user = rows.encode_users(users, np.array([slot], np.int32), one.engine.replica)[0][1]
    item = rows.encode_items(one.engine.replica, np.array([row], np.int32))[0][1]
    users.counts[slot] = 9
    one.engine.replica.base["b"][row] = 2
    assert not rows.read_user(user)["counts"].any()
    assert rows.read_item(item)["b"] == 1


def test_items(one: Process, other: Process) -> None:
    replica, popularity = one.engine.replica, one.engine.popularity.columns
    numbers = np.array([one.row("a"), one.row("b")], np.int32)
    for name in ("plays", "decayed_at"):
        popularity[name][numbers] = [1.5, 2.5]
    popularity["decayed"][numbers] = [[1, 2, 3], [4, 5, 6]]
    popularity["first_ms"][numbers], popularity["last_ms"][numbers] = [1, 2], [10**12, 10**12 + 1000]
    replica.counts[numbers] = np.arange(24).reshape(2, 12)
    for name, base in replica.base.items():
        base[numbers] += np.arange(2).reshape(2, *[1] * (base.ndim - 1)) + 1
        # What is served runs ahead; only what the owner applied is its row.
        one.engine.mf.columns[name][numbers] = 77
    records = [(key[2:].decode(), data) for key, data in rows.encode_items(replica, numbers)]

    there = rows.decode_items(records, other.engine.replica)
    assert there.tolist() == [other.row("a"), other.row("b")]
    for name in ("plays", "decayed", "decayed_at", "first_ms", "last_ms"):
        np.testing.assert_array_equal(other.engine.popularity.columns[name][there], popularity[name][numbers])
    np.testing.assert_array_equal(other.engine.replica.counts[there], replica.counts[numbers])
    for name, base in replica.base.items():
        np.testing.assert_array_equal(other.engine.replica.base[name][there], base[numbers])
        np.testing.assert_array_equal(other.engine.mf.columns[name][there], base[numbers])
    assert other.engine.replica.stream_ms == 10**12 + 1000
    assert len(rows.decode_items([], other.engine.replica)) == 0


def test_neighbours(one: Process, other: Process) -> None:
    columns, markov = one.engine.covisitation.columns, one.engine.markov.columns
    a, b, c = one.row("a"), one.row("b"), one.row("c")
    columns["neighbour"][a, :2], columns["weight"][a, :2], columns["weight_at"][a] = [b, c], [0.5, 2.5], 1e8
    markov["neighbour"][a, :1], markov["weight"][a, :1], markov["weight_at"][a] = [c], [4.5], 2e8
    [(key, data)] = rows.encode_neighbours(one.engine.replica, np.array([a], np.int32))
    assert key == b"n:a"

    # A longer list that was there before goes altogether; b is known by its hash alone until its id arrives.
    into = other.engine.covisitation.columns
    into["neighbour"][other.row("a"), :5], into["weight"][other.row("a"), :5] = range(5), 9
    [row] = rows.decode_neighbours([("a", data)], other.engine.replica)
    placeholder = int(into["neighbour"][row, 0])
    assert other.engine.replica.ids[placeholder] is None
    assert other.row("b") == placeholder
    assert into["neighbour"][row, :3].tolist() == [placeholder, other.row("c"), -1]
    assert into["weight"][row, :3].tolist() == [0.5, 2.5, 0]
    assert other.engine.markov.columns["neighbour"][row, :2].tolist() == [other.row("c"), -1]
    assert (into["weight_at"][row], other.engine.markov.columns["weight_at"][row]) == (1e8, 2e8)
    read = rows.read_neighbours(data)
    assert {name: (at, entries["weight"].tolist()) for name, (at, entries) in read.items()} == {
        "covisitation": (1e8, [0.5, 2.5]),
        "markov": (2e8, [4.5]),
    }


def test_deleted_neighbours_and_histories_are_left_out_when_read(one: Process, other: Process) -> None:
    columns = one.engine.covisitation.columns
    a, b, c = one.row("a"), one.row("b"), one.row("c")
    columns["neighbour"][a, :2], columns["weight"][a, :2] = [b, c], [0.5, 2.5]
    slot = one.engine.users.slot_of("ann", 0)
    one.engine.users.history[slot, :3] = [a, b, c]
    [(_, neighbours)] = rows.encode_neighbours(one.engine.replica, np.array([a], np.int32))
    [(_, user)] = rows.encode_users(one.engine.users, np.array([slot], np.int32), one.engine.replica)
    other.engine.replica.mark_deleted("b")
    [row] = rows.decode_neighbours([("a", neighbours)], other.engine.replica)
    into = other.engine.covisitation.columns
    assert into["neighbour"][row, :2].tolist() == [other.row("c"), -1]
    assert into["weight"][row, :2].tolist() == [2.5, 0]
    there = other.engine.users.slot_of("ann", 0)
    rows.decode_user(user, other.engine.users, there, other.engine.replica)
    assert other.engine.users.history[there, :3].tolist() == [other.row("a"), other.row("c"), -1]


def test_videos_and_cuts() -> None:
    video = Video(title="Title", categories=("a", "b"), duration_seconds=1.5, hidden=True)
    assert rows.decode_video_row(rows.encode_video_row(video)) == video
    cut = Cut({"interactions": 2**40, "videos": 0}, {"learned": 5}, 7, {"interactions": "AAAAAAAAAAEAAAAAAAAAAg"})
    assert rows.decode_cut(rows.encode_cut(cut)) == cut
    # Whoever knows nothing of lists that are behind must not read it.
    behind = msgspec.structs.replace(cut, lists=3)
    assert rows.decode_cut(rows.encode_cut(behind)) == behind
    assert (b'"version":1' in rows.encode_cut(cut), b'"version":2' in rows.encode_cut(behind)) == (True, True)


def test_cuts_of_earlier_releases_are_read() -> None:
    """Those knew no clock, and then no topic ids; they pass over fields that they do not know."""
    for data in (
        b'{"next":{"videos":3},"totals":{"learned":5},"version":1}',
        b'{"next":{"videos":3},"totals":{"learned":5}}',
    ):
        assert rows.decode_cut(data) == Cut({"videos": 3}, {"learned": 5})
    assert rows.decode_cut(b'{"next":{},"clock_ms":9,"unheard_of":[1],"version":1}') == Cut({}, {}, 9)


def test_rows_of_another_version_are_refused(one: Process) -> None:
    slot = np.array([one.engine.users.slot_of("ann", 0)], np.int32)
    row = np.array([one.row("a")], np.int32)
    [(_, user)] = rows.encode_users(one.engine.users, slot, one.engine.replica)
    [(_, item)] = rows.encode_items(one.engine.replica, row)
    [(_, neighbours)] = rows.encode_neighbours(one.engine.replica, row)

    def future(data: bytes) -> bytes:
        return bytes([rows.VERSION + 1]) + data[1:]

    replica = one.engine.replica
    for refused in (
        lambda: rows.decode_user(future(user), one.engine.users, int(slot[0]), replica),
        lambda: rows.read_user(future(user)),
        lambda: rows.decode_items([("a", item), ("b", future(item))], replica),
        lambda: rows.read_item(future(item)),
        lambda: rows.decode_neighbours([("a", future(neighbours))], replica),
        lambda: rows.decode_video_row(future(rows.encode_video_row(Video(title="x")))),
        lambda: one.engine.take_rows([(rows.DELETED + b"z", future(bytes([rows.VERSION])))]),
        lambda: rows.decode_cut(b'{"next":{},"version":3}'),
        lambda: rows.decode_cut(b'{"next":[["videos",3]],"version":3}'),
        lambda: rows.decode_cut(b"no json"),
    ):
        with pytest.raises(SchemaMismatch, match="HEADRACE_VERSION"):
            refused()
    with pytest.raises(SchemaMismatch, match="layout 3, this release reads 1"):
        rows.decode_cut(b'{"next":[["videos",3]],"version":3}')
