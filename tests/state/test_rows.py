"""Rows survive the way through bytes into another process, where row numbers are others."""

from dataclasses import dataclass

import msgspec
import numpy as np
import pytest

from online_models.ranker import PARAMETERS, SIZE
from state import rows
from state.engine import Engine, EngineOptions
from state.errors import SchemaMismatch
from state.replica import video_code
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
    users.open_row[slot], users.open_liked[slot] = one.row("c"), 1
    users.passed[slot, :2] = [one.row("d"), one.row("a")]
    users.set_seen(slot, np.array([2**64 - 2, 5, 8], np.uint64))
    [(key, data)] = rows.encode_users(users, np.array([slot], np.int32), one.engine.replica)
    assert key == "u:änn".encode()

    into = other.engine.users
    there = into.slot_of("somebody", 1)
    rows.decode_user(data, into, there, other.engine.replica)
    for name in ("p", "pacc", "recent", "recent_at", "counts", "last_ms", "offset", "open_liked"):
        np.testing.assert_array_equal(getattr(into, name)[there], getattr(users, name)[slot])
    assert into.open_row[there] == other.row("c")
    assert into.passed[there].tolist() == [other.row("d"), other.row("a")] + [-1] * 6
    assert into.history[there].tolist() == [other.row("c"), other.row("a"), other.row("b")] + [-1] * 17
    assert into.seen(there).tolist() == [2**64 - 2, 5, 8]
    read = rows.read_user(data)
    assert (read["history"], read["seen"].tolist(), int(read["recent_at"])) == (["c", "a", "b"], [2**64 - 2, 5, 8], 17)
    assert (read["open"], int(read["open_liked"])) == ("c", 1)
    # A second way through bytes changes nothing.
    assert rows.encode_users(into, np.array([there], np.int32), other.engine.replica)[0][1] == data


def carried(
    user: dict[str, list[str]], one: Process, other: Process, deleted: str | None = None
) -> dict[str, list[str]]:
    """The user's open video, those passed over and the history, by name, after their way into another process."""
    users = one.engine.users
    slot = users.slot_of("ann", 1)
    for video in user.get("open", []):
        users.open_row[slot] = one.row(video)
    for name in ("passed", "history"):
        numbers = [one.row(video) for video in user.get(name, [])]
        getattr(users, name)[slot, : len(numbers)] = numbers
    [(_, data)] = rows.encode_users(users, np.array([slot], np.int32), one.engine.replica)
    if deleted is not None:
        other.engine.replica.mark_deleted(deleted)
    into, replica = other.engine.users, other.engine.replica
    there = into.slot_of("somebody", 1)
    # What another user has left there.
    into.open_row[there], into.passed[there], into.history[there] = 3, 4, 5
    rows.decode_user(data, into, there, replica)
    held = {"open": into.open_row[there : there + 1], "passed": into.passed[there], "history": into.history[there]}
    # By hash: a video that has been passed over may be known by no more.
    names = {rows_: video for video in "abcdefghi" if (rows_ := int(replica.rows_of_hashes(code(video))[0])) >= 0}
    found = {name: [names[row] for row in numbers.tolist() if row >= 0] for name, numbers in held.items()}
    for name, numbers in held.items():
        assert (numbers[len(found[name]) :] == -1).all(), "no gaps"
    return found


def code(video_id: str) -> "np.typing.NDArray[np.uint64]":
    return np.array([video_code(video_id)], np.uint64)


WATCHING = {"open": ["h"], "passed": ["a", "b", "c", "d", "e", "f", "g", "i"], "history": ["c", "h"]}


def test_what_is_open_and_passed_over_is_named_in_a_process_that_has_never_heard_of_it(
    one: Process, other: Process
) -> None:
    before = len(other.engine.replica)
    assert carried(WATCHING, one, other) == WATCHING
    assert len(other.engine.replica) == before + 9
    # Evidence about what is open will name it to its owner; what was passed over comes with its own id when it comes.
    assert other.engine.replica.find("h") is not None
    assert other.engine.replica.ids_of([other.row("h")]) == ["h"]
    assert other.engine.replica.find("a") is None
    assert other.row("a") == int(other.engine.replica.rows_of_hashes(code("a"))[0])


@pytest.mark.parametrize("user", [{}, {"open": ["a"]}, {"passed": ["a"]}, {"history": ["a"]}, WATCHING])
def test_nothing_open_and_nothing_passed_over_comes_back_as_nothing(
    user: dict[str, list[str]], one: Process, other: Process
) -> None:
    assert carried(user, one, other) == {"open": [], "passed": [], "history": []} | user


@pytest.mark.parametrize("gone", ["h", "c", "i", "a"])
def test_deleted_videos_are_neither_open_nor_passed_over_when_read(gone: str, one: Process, other: Process) -> None:
    left = {name: [video for video in held if video != gone] for name, held in WATCHING.items()}
    assert carried(WATCHING, one, other, deleted=gone) == left


def test_users_in_one_batch_keep_their_own(one: Process, other: Process) -> None:
    """Ids are packed once for all of them."""
    users, n = one.engine.users, 40
    slots = np.array([users.slot_of(f"user{number}", 0) for number in range(n)], np.int32)
    rng = np.random.default_rng(1)
    videos = [one.row(f"video{number}") for number in range(60)]
    for slot in slots.tolist():
        users.open_row[slot] = rng.choice([-1, *videos])
        for name, most in (("passed", 8), ("history", 20)):
            held = int(rng.integers(0, most + 1))
            getattr(users, name)[slot, :held] = rng.choice(videos, held, replace=False)
    packed = rows.encode_users(users, slots, one.engine.replica)
    assert [key for key, _ in packed] == [f"u:user{number}".encode() for number in range(n)]
    for slot, (_, data) in zip(slots.tolist(), packed, strict=True):
        there = other.engine.users.slot_of(f"reader{slot}", 0)
        rows.decode_user(data, other.engine.users, there, other.engine.replica)
        for name in ("open_row", "passed", "history"):
            mine = one.engine.replica.hashes[getattr(users, name)[slot]]
            theirs = other.engine.replica.hashes[getattr(other.engine.users, name)[there]]
            held_here, held_there = getattr(users, name)[slot] >= 0, getattr(other.engine.users, name)[there] >= 0
            np.testing.assert_array_equal(held_here, held_there)
            np.testing.assert_array_equal(mine[held_here], theirs[held_there])


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


def test_what_was_shown_goes_with_the_item(one: Process, other: Process) -> None:
    columns = one.engine.popularity.columns
    numbers = np.array([one.row("a"), one.row("b")], np.int32)
    columns["shown"][numbers], columns["shown_at"][numbers] = [[1.5, 2.5], [3.5, 4.5]], [1e9, 2e9]
    records = [(key[2:].decode(), data) for key, data in rows.encode_items(one.engine.replica, numbers)]
    there = rows.decode_items(records, other.engine.replica)
    for name in ("shown", "shown_at"):
        np.testing.assert_array_equal(other.engine.popularity.columns[name][there], columns[name][numbers])
    assert rows.read_item(records[1][1])["shown"].tolist() == [3.5, 4.5]


def test_segments_go_with_the_item_and_cost_nothing_where_there_are_none(one: Process, other: Process) -> None:
    numbers = np.array([one.row("a"), one.row("b"), one.row("c")], np.int32)
    one.engine.segments.apply(numbers[1:2], np.array([[6, 1]], np.uint64), np.array([50.0]))
    records = [(key[2:].decode(), data) for key, data in rows.encode_items(one.engine.replica, numbers)]
    plain, counted, _ = (len(data) for _, data in records)
    assert counted > plain == len(records[2][1])
    # A row replaces what was there.
    stale = np.array([other.row("c")], np.int32)
    other.engine.segments.apply(stale, np.array([[1, 0]], np.uint64), np.array([10.0]))
    there = rows.decode_items(records, other.engine.replica)
    columns = other.engine.segments.columns
    for name in ("at", "counts"):
        np.testing.assert_array_equal(columns[name][there[:2]], one.engine.segments.columns[name][numbers[:2]])
    assert not columns["counts"][there[2]].any()
    assert columns["counts"].sum() == 4.0
    assert rows.read_item(records[1][1])["plays"] == 0


def part() -> "np.typing.NDArray[np.float64]":
    values = np.random.default_rng(1).normal(0.0, 1.0, SIZE)
    values[PARAMETERS:] = np.abs(values[PARAMETERS:])
    return values


@pytest.mark.parametrize("partition", [0, 3, 2**31])
def test_a_rankers_part_is_read_as_it_was_written(partition: int) -> None:
    written = rows.encode_part(rows.RANKER_KEY, partition, part())
    found, values = rows.decode_part(rows.RANKER_KEY, written)
    assert found == partition
    assert values.dtype == np.float64
    np.testing.assert_array_equal(values, part())
    # It is not a view of the message, which may go.
    values[:] = 0.0
    np.testing.assert_array_equal(rows.decode_part(rows.RANKER_KEY, written)[1], part())


def test_a_rankers_row_reaches_the_ranker_of_an_engine(one: Process, other: Process) -> None:
    for partition in (2, 1):
        other.engine.take_rows([(rows.RANKER_KEY, rows.encode_part(rows.RANKER_KEY, partition, part()))])
    np.testing.assert_array_equal(other.engine.ranker.part(1), part())
    np.testing.assert_array_equal(other.engine.ranker.part(2), part())
    assert not other.engine.ranker.part(0).any()
    # The last row counts; that of a catalogue without a part changes nothing, and neither does one without a value.
    newer = rows.encode_part(rows.RANKER_KEY, 1, 2.0 * part())
    other.engine.take_rows([(rows.RANKER_KEY, rows.encode_part(rows.RANKER_KEY, 1, part())), (rows.RANKER_KEY, newer)])
    other.engine.take_rows([(rows.VIDEO + b"a", rows.encode_video_row(Video(title="x")))])
    other.engine.take_rows([(rows.RANKER_KEY, None)])
    np.testing.assert_array_equal(other.engine.ranker.part(1), 2.0 * part())
    assert not one.engine.ranker.part(1).any()


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

    ranker = rows.encode_part(rows.RANKER_KEY, 1, part())

    def future(data: bytes) -> bytes:
        return bytes([data[0] + 1]) + data[1:]

    def past(data: bytes) -> bytes:
        return bytes([data[0] - 1]) + data[1:]

    replica = one.engine.replica
    for refused in (
        lambda: rows.decode_user(future(user), one.engine.users, int(slot[0]), replica),
        lambda: rows.read_user(future(user)),
        lambda: rows.decode_items([("a", item), ("b", future(item))], replica),
        lambda: rows.read_item(future(item)),
        # Rows of users and videos without segments: of the release before.
        lambda: rows.decode_user(past(user), one.engine.users, int(slot[0]), replica),
        lambda: rows.read_user(past(user)),
        lambda: rows.decode_items([("a", past(item))], replica),
        lambda: rows.read_item(past(item)),
        lambda: rows.decode_part(rows.RANKER_KEY, future(ranker)),
        lambda: rows.decode_part(rows.RANKER_KEY, past(ranker)),
        lambda: one.engine.take_rows([(rows.RANKER_KEY, future(ranker))]),
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
    with pytest.raises(SchemaMismatch, match="layout 2, this release reads 3"):
        rows.read_user(past(user))
    assert not one.engine.ranker.part(1).any()
