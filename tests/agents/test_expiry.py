"""Users and videos that are not met for long are forgotten: by the days of the log, whatever batches, sweeps and deaths there are."""

import random
from collections.abc import Callable

import numpy as np
import pytest

from agents import expiry
from agents.replayer import Replayer
from cli.canonical import digests_of, rows_of
from infra import metrics
from state import rows
from state.engine import Engine
from state.lists import recommend, similar, trending
from state.profiles import profile_of
from state.rows import CUT_KEY, decode_cut
from state.shard import Checkpoint
from state.users import KINDS
from tests.agents.forgetful import recount_of
from tests.agents.test_replayer import compared
from tests.agents.world import EVIDENCE, NOW_MS, TOLERANCE_MS, World, WorldLog, liked, random_events, world
from topics.catalog import User, Video
from topics.interactions import Interaction
from topics.specs import INTERACTIONS, USERS, VIDEOS

DAY_MS = 86_400_000
TTL = 30
NORTH = User(country="no")


def on(day: int) -> int:
    """A time of that day of the log."""
    return (NOW_MS // DAY_MS - 400 + day) * DAY_MS + 3_600_000


def visits(state: World, user: str, day: int, video: str = "v1", *, learn: bool = True) -> None:
    """The user likes a video on that day."""
    state.send(liked(user, video, len(state.log(INTERACTIONS, state.partition_of(user))), at_ms=on(day)))
    if learn:
        state.step(INTERACTIONS, state.partition_of(user))


def known(state: World, user: str) -> dict[str, int] | None:
    """Events that are known of the user; None where nothing is known at all."""
    found = profile_of(state.engine, user, state.partition_of(user))
    return None if found is None else found.events


def row_of(state: World, user: str) -> bytes | None:
    return state.stores[state.partition_of(user)][0].get(rows.USER + user.encode())


def evict(state: World, user: str) -> None:
    slot = state.engine.users.peek(user)
    assert slot is not None
    state.engine.users.drop(slot)


@pytest.mark.parametrize("where", ["memory", "waiting", "under way", "store"])
def test_who_is_not_met_for_so_long_is_forgotten(where: str) -> None:
    state = world(partitions=1, user_ttl_days=TTL)
    state.describe("ann", NORTH)
    visits(state, "ann", 1)
    visits(state, "bob", 1)
    taken = None
    if where == "under way":
        shard = state.engine.shards[0]
        taken = shard.swap(state.engine.users, state.engine.replica, state.engine.origin)
    elif where != "waiting":
        state.settle()
    if where == "store":
        evict(state, "ann")
    visits(state, "bob", 1 + TTL)
    assert known(state, "ann") == {"like": 1}
    if where == "store":
        evict(state, "ann")
    visits(state, "bob", 2 + TTL)
    assert known(state, "ann") in (None, {})
    # They may be shown again what they have seen.
    assert [place.row for place in recommend(state.engine, "ann", 0, 5)[0]] == [state.row("v1")]
    if taken is not None:
        store(state, taken)
    state.settle()
    assert row_of(state, "ann") is None
    assert known(state, "bob") == {"like": 3}
    state.restart()
    found = profile_of(state.engine, "ann", 0)
    assert found is not None
    assert (found.events, found.segments) == ({}, ["country:no"])
    assert known(state, "bob") == {"like": 3}


def store(state: World, taken: Checkpoint) -> None:
    """The end of a checkpoint of shard 0."""
    shard = state.engine.shards[0]
    shard.users_store.write(taken.users, 0)
    shard.items_store.write(taken.items, 0)
    shard.stored()
    state.engine.users.unpin(taken.pinned)


@pytest.mark.parametrize("settled", [False, True])
def test_who_comes_back_begins_anew(settled: bool) -> None:
    state = world(partitions=1, user_ttl_days=TTL)
    visits(state, "ann", 1, "v1")
    state.settle()
    if settled:
        visits(state, "bob", 200)
        state.settle()
    visits(state, "ann", 200, "v2")
    state.settle()
    for _ in range(2):
        assert known(state, "ann") == {"like": 1}
        slot = state.engine.users.find("ann", 0)
        assert slot is not None
        assert len(state.engine.users.seen(slot)) == 1
        assert state.engine.users.history[slot][:2].tolist() == [state.row("v2"), -1]
        state.restart()


def test_a_late_event_counts_for_when_it_came() -> None:
    """A device whose clock is wrong has a history all the same, and its user stays as long as anybody."""
    state = world(partitions=1, user_ttl_days=TTL)
    visits(state, "bob", 200)
    visits(state, "ann", 1, "v1")
    visits(state, "ann", 2, "v2")
    state.settle()
    evict(state, "ann")
    visits(state, "bob", 200 + TTL)
    assert known(state, "ann") == {"like": 2}
    visits(state, "bob", 201 + TTL)
    assert known(state, "ann") is None


def test_what_is_refused_moves_no_clock() -> None:
    state = world(partitions=1, user_ttl_days=TTL)
    visits(state, "ann", 1)
    state.send(liked("bob", "v1", 7, at_ms=NOW_MS + TOLERANCE_MS + 1))
    state.step(INTERACTIONS, 0)
    assert state.totals()["dead"] == 1
    assert known(state, "ann") == {"like": 1}


def long_log(seed: int, n: int, days: int) -> list[Interaction]:
    """Random events over so many days, a few of them late."""
    random_ = random.Random(seed)
    events = random_events(seed, n)
    late = [random_.random() < 0.05 for _ in events]
    return [
        Interaction(
            e.event_id, e.user_id, e.video_id, e.event,
            on(0) + number * days * DAY_MS // n - (random_.randrange(9 * DAY_MS) if late[number] else 0),
            e.watch_seconds, e.duration_seconds,
        )
        for number, e in enumerate(events)
    ]  # fmt: skip


@pytest.mark.parametrize(("seed", "batch", "max_users"), [(1, 1, 1_000), (2, 7, 8), (3, 90, 18), (4, 2_000, 1_000)])
def test_the_same_are_forgotten_whatever_the_batches(seed: int, batch: int, max_users: int) -> None:
    """Also where most users are evicted in between, checkpoints come at any time and the worker dies now and then."""
    events = long_log(seed, 1_000, 250)
    state = world(partitions=2, user_ttl_days=5, max_users=max_users)
    state.send(*events)
    random_ = random.Random(seed)
    while any(state.due(INTERACTIONS, partition) for partition in state.partitions):
        partition = random_.randrange(2)
        state.step(INTERACTIONS, partition, batch)
        if random_.random() < 0.3 or max_users < 20:
            state.checkpoint(partition)
        if random_.random() < 0.02:
            state.restart()
    state.settle()
    assert "dead" not in state.totals()
    recount = recount_of(events, 2, 5)
    assert 5 < len(recount.users) < 25
    found = {
        key[2:].decode(): rows.read_user(row) for pair in state.stores.values() for key, row in pair[0].scan(b"u:")
    }
    assert found.keys() == recount.users.keys()
    for user_id, plain in recount.users.items():
        assert found[user_id]["counts"].tolist() == [plain.counts[kind] for kind in range(KINDS)]
        assert found[user_id]["history"] == plain.history
    videos = {
        key[2:].decode(): rows.read_item(row) for pair in state.stores.values() for key, row in pair[1].scan(b"i:")
    }
    for video_id in {video_id for video_id, _ in recount.items}:
        assert videos[video_id]["counts"].tolist() == [recount.items[video_id, kind] for kind in range(KINDS)]
        assert videos[video_id]["plays"] == recount.plays[video_id]


def both(events: list[Interaction], **options: int) -> World:
    state = world(**{"user_ttl_days": 5, "video_ttl_days": 100, **options})
    for number in range(30):
        state.put(f"video{number}", Video(title=f"Video {number}"))
    state.send(*events)
    return state


def fading(seed: int, n: int = 1_800) -> list[Interaction]:
    """A log of 250 days in which a third of the videos are met in the first 60 only."""
    return [
        e if e.at_ms < on(60) or int(e.video_id.removeprefix("video")) % 3 else
        Interaction(e.event_id, e.user_id, "video1", e.event, e.at_ms, e.watch_seconds, e.duration_seconds)
        for e in long_log(seed, n, 250)
    ]  # fmt: skip


def replayed(state: World) -> Replayer:
    replayer = Replayer(state.options, TOLERANCE_MS)
    replayer.run(WorldLog(state))
    return replayer


def test_two_replays_have_equal_digests() -> None:
    state = both(fading(5))
    first, second = replayed(state), replayed(state)
    assert digests_of(first) == digests_of(second)
    table = rows_of(first)
    assert 0 < sum(key.startswith(rows.USER) for _, key in table) < 25
    assert sum(row == rows.EXPIRED_MARK for row in table.values()) > 5


@pytest.mark.parametrize("seed", range(2))
def test_a_worker_has_the_users_of_a_replay_at_any_moment(seed: int) -> None:
    """Though neither has swept all rows, and the shards are of different days."""
    state = both(fading(seed))
    random_ = random.Random(seed)
    for turn in range(80):
        partition = random_.randrange(4)
        topic = random_.choice([INTERACTIONS, INTERACTIONS, EVIDENCE, VIDEOS, USERS])
        state.step(topic, partition, random_.randrange(80))
        if random_.random() < 0.4:
            state.checkpoint(partition)
        if turn in (30, 60):
            state.restart()
    found = compared(state)
    assert found.differences == []
    assert found.users > 5
    state.settle()
    found = compared(state)
    assert found.differences == []
    assert found.videos > 15
    assert found.left_out > 5


def test_a_comparison_finds_who_was_forgotten_too_early() -> None:
    state = both(fading(6, 600))
    state.settle()
    user = next(key for pair in state.stores.values() for key, _ in pair[0].scan(rows.USER))
    for users, _ in state.stores.values():
        users.write([(user, None)], 0)
    assert [f"user {user[2:].decode()}: only replayed"] == compared(state).differences


def crowd(n: int = 60) -> World:
    """Users of day 1, all in the store, of whom every third comes back on day 20; then it is day 35."""
    state = world(partitions=1, user_ttl_days=TTL)
    for number in range(n):
        visits(state, f"user{number:03}", 1, learn=False)
    state.settle()
    for number in range(0, n, 3):
        visits(state, f"user{number:03}", 20, learn=False)
    state.settle()
    state.restart()
    visits(state, "bob", 35)
    return state


def left(state: World) -> set[str]:
    return {key[2:].decode() for key, _ in state.stores[0][0].scan(rows.USER)} - {"bob"}


def test_the_sweep_goes_on_where_it_was_after_a_death(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "SWEEP_ROWS", 10)
    state, swept, deaths = crowd(), [], 0
    while state.engine.shards[0].sweeping:
        before = len(left(state))
        assert state.checkpoint(0) is not None
        swept.append(before - len(left(state)))
        if len(swept) % 2:
            cut = decode_cut(state.stores[0][0].get(CUT_KEY) or b"")
            state.restart()
            assert state.engine.shards[0].swept == cut.swept
            deaths += 1
    assert left(state) == {f"user{number:03}" for number in range(0, 60, 3)}
    assert deaths > 2
    assert max(swept) <= 10
    assert state.checkpoint(0) is None or not state.engine.shards[0].sweeping
    assert not state.engine.shards[0].dirty


def test_a_death_between_sweep_and_store_loses_nobody_and_nothing() -> None:
    """The tombstones are in the checkpoint that is lost; the next worker finds the same rows."""
    state = crowd()
    expiry.sweep_users(state.engine, state.engine.shards[0], 100)
    state.engine.shards[0].swap(state.engine.users, state.engine.replica, state.engine.origin)
    state.restart()
    assert len(left(state)) == 60
    assert known(state, "user003") == {"like": 2}
    state.settle()
    assert left(state) == {f"user{number:03}" for number in range(0, 60, 3)}
    assert known(state, "user001") is None


def _before_swap(state: World, meet: Callable[[], None]) -> None:
    expiry.sweep_users(state.engine, state.engine.shards[0], 100)
    meet()
    shard = state.engine.shards[0]
    store(state, shard.swap(state.engine.users, state.engine.replica, state.engine.origin))


def _under_way(state: World, meet: Callable[[], None]) -> None:
    expiry.sweep_users(state.engine, state.engine.shards[0], 100)
    shard = state.engine.shards[0]
    taken = shard.swap(state.engine.users, state.engine.replica, state.engine.origin)
    meet()
    store(state, taken)


def _before_sweep(state: World, meet: Callable[[], None]) -> None:
    meet()
    _before_swap(state, lambda: None)


def _row_on_its_way(state: World, meet: Callable[[], None]) -> None:
    meet()
    shard = state.engine.shards[0]
    taken = shard.swap(state.engine.users, state.engine.replica, state.engine.origin)
    expiry.sweep_users(state.engine, shard, 100)
    store(state, taken)


@pytest.mark.parametrize("when", [_before_swap, _under_way, _before_sweep, _row_on_its_way])
def test_who_is_met_again_around_the_sweep_is_kept(when: Callable[[World, Callable[[], None]], None]) -> None:
    state = crowd()
    when(state, lambda: visits(state, "user001", 35, "v9"))
    assert known(state, "user001") == {"like": 1}
    state.settle()
    state.restart()
    assert known(state, "user001") == {"like": 1}
    assert known(state, "user002") is None


def test_one_who_was_met_in_time_outlives_the_sweep_that_sees_their_old_row() -> None:
    state = crowd(6)
    shard = state.engine.shards[0]
    state.settle()
    visits(state, "user000", 48)
    taken = shard.swap(state.engine.users, state.engine.replica, state.engine.origin)
    # Of day 20 is the row in the store, and that is over; that of day 48 is on its way.
    visits(state, "bob", 60)
    expiry.sweep_users(state.engine, shard, 100)
    store(state, taken)
    state.settle()
    state.restart()
    assert known(state, "user000") == {"like": 3}
    assert known(state, "user003") is None


def test_it_is_counted() -> None:
    before = metrics.EXPIRED.labels("users")._value.get()
    crowd().settle()
    assert metrics.EXPIRED.labels("users")._value.get() - before == 40


def test_an_erasure_is_remembered_of_one_who_has_expired() -> None:
    state = world(partitions=1, user_ttl_days=TTL)
    visits(state, "ann", 1)
    state.settle()
    state.describe("ann", User(erased_ms=on(1)))
    state.settle()
    visits(state, "bob", 200)
    state.settle()
    visits(state, "ann", 1)
    state.settle()
    assert known(state, "ann") is None


def test_without_a_time_to_live_rows_and_cuts_are_as_they_were() -> None:
    events = long_log(7, 600, 250)
    state = world(partitions=2)
    state.send(*events)
    state.settle()
    for users, items in state.stores.values():
        assert {row[0] for _, row in (*users.scan(rows.USER), *items.scan(rows.ITEM))} == {rows.LEARNED_VERSION}
        cut = decode_cut(users.get(CUT_KEY) or b"")
        assert (cut.event_ms, cut.heard, cut.blocks, cut.swept) == (0, {}, 0, (0, None))
    assert {key[2:].decode() for pair in state.stores.values() for key, _ in pair[0].scan(rows.USER)} == {
        event.user_id for event in events
    }


def test_rows_of_before_are_read_and_expire_by_their_latest_event() -> None:
    state = world(partitions=1)
    visits(state, "ann", 1)
    visits(state, "bob", 20)
    state.settle()
    state.options = world(partitions=1, user_ttl_days=TTL).options
    state.restart()
    visits(state, "eve", 40)
    assert known(state, "ann") is None
    assert known(state, "bob") == {"like": 1}
    state.settle()
    # And back: a worker that lets nobody go reads rows that have their day.
    state.options = world(partitions=1).options
    state.restart()
    visits(state, "eve", 300)
    assert known(state, "eve") == {"like": 2}
    assert known(state, "bob") == {"like": 1}


OLD, NEW, BARE = "old", "new", "bare"
OTHERS = [f"other{number}" for number in range(8)]


def films(partitions: int = 1) -> World:
    """On day 1 all are liked, on day 20 all but OLD and BARE; of BARE there is no record. Of OTHERS each shard has some."""
    state = world(partitions=partitions, video_ttl_days=TTL)
    for video in (OLD, NEW):
        state.put(video, Video(title=f"Film {video}", categories=("film",)))
    state.settle()
    for user in range(6):
        for video in (OLD, BARE, NEW, *OTHERS):
            visits(state, f"user{user}", 1, video, learn=False)
    state.settle()
    for user in range(6, 12):
        for video in (NEW, *OTHERS):
            visits(state, f"user{user}", 20, video, learn=False)
    state.settle()
    return state


def served(engine: Engine, state: World) -> set[str | None]:
    places = [*trending(engine, 20), *similar(engine, engine.replica.row_of(NEW), 20)]
    for user in ("user1", "user8", "nobody"):
        places += recommend(engine, user, state.partition_of(user), 20)[0]
    return {engine.replica.ids[place.row] for place in places}


def rows_about(state: World, video: str) -> set[bytes]:
    items = state.stores[state.partition_of(video)][1]
    return {
        prefix
        for prefix in (rows.ITEM, rows.NEIGHBOURS, rows.VIDEO, rows.DELETED)
        if items.get(prefix + video.encode())
    }


def pass_days(state: World, day: int) -> None:
    for user in range(12):
        for video in OTHERS:
            visits(state, f"user{user}", day, video, learn=False)
    state.settle()


@pytest.mark.parametrize("partitions", [1, 3])
def test_a_video_that_nobody_meets_is_not_served(partitions: int) -> None:
    state = films(partitions)
    pass_days(state, 1 + TTL)
    assert {OLD, BARE, NEW} <= served(state.engine, state)
    pass_days(state, 2 + TTL)
    for _ in range(2):
        assert {OLD, BARE} & served(state.engine, state) == set()
        assert NEW in served(state.engine, state)
        for video in (OLD, BARE):
            row = state.row(video)
            assert not state.engine.replica.counts[row].any()
            assert not state.engine.popularity.columns["plays"][row]
            assert not any(
                (model.columns["neighbour"] == row).any() for model in (state.engine.covisitation, state.engine.markov)
            )
        assert rows_about(state, OLD) == {rows.VIDEO, rows.DELETED}
        assert rows_about(state, BARE) == {rows.DELETED}
        # What the users did stays known of them.
        slot = state.engine.users.find("user1", state.partition_of("user1"))
        assert slot is not None
        assert state.row(OLD) in state.engine.users.history[slot]
        state.restart()


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("video", [OLD, BARE])
def test_an_event_brings_it_back_with_its_record_and_nothing_learned(video: str, restarted: bool) -> None:
    state = films()
    pass_days(state, 60)
    if restarted:
        state.restart()
    visits(state, "eve", 61, video)
    state.settle()
    for _ in range(2):
        row = state.row(video)
        assert video in served(state.engine, state)
        assert state.engine.popularity.columns["plays"][row] == 1
        known_of = state.engine.replica.video(row)
        assert (known_of is not None and known_of.title == f"Film {OLD}") == (video == OLD)
        assert bool(state.engine.content.columns["content"][row].any()) == (video == OLD)
        assert rows.DELETED not in rows_about(state, video)
        assert rows.has_returned(state.stores[0][1].get(rows.ITEM + video.encode()) or b"")
        state.restart()


def test_a_description_keeps_it_or_brings_it_back() -> None:
    state = films()
    state.put(OLD, Video(title="Again"))
    state.settle()
    # It was described on day 20.
    pass_days(state, 20 + TTL)
    assert OLD in served(state.engine, state)
    pass_days(state, 21 + TTL)
    assert OLD not in served(state.engine, state)
    state.put(OLD, Video(title="Once more"))
    state.settle()
    for _ in range(2):
        assert OLD in served(state.engine, state)
        assert rows_about(state, OLD) >= {rows.ITEM, rows.VIDEO}
        assert rows.DELETED not in rows_about(state, OLD)
        state.restart()
    pass_days(state, 21 + TTL + TTL + 1)
    assert OLD not in served(state.engine, state)


def test_what_is_described_and_never_met_goes_too() -> None:
    state = world(partitions=1, video_ttl_days=TTL)
    state.put("unseen", Video(title="Unseen"))
    state.settle()
    pass_days(state, 1)
    state.restart()
    pass_days(state, 1 + TTL)
    assert rows_about(state, "unseen") == {rows.ITEM, rows.VIDEO}
    pass_days(state, 2 + TTL)
    assert rows_about(state, "unseen") == {rows.VIDEO, rows.DELETED}


def test_deleted_is_deleted_whether_it_had_expired_or_not() -> None:
    state = films()
    pass_days(state, 60)
    state.put(OLD, None)
    state.settle()
    visits(state, "eve", 61, OLD)
    state.settle()
    for _ in range(2):
        assert state.engine.replica.deleted[state.row(OLD)]
        assert OLD not in served(state.engine, state)
        assert rows_about(state, OLD) == {rows.DELETED}
        state.restart()
    pass_days(state, 300)
    assert state.stores[0][1].get(rows.DELETED + OLD.encode()) == rows.DELETED_MARK


def test_other_workers_let_it_go_and_bring_it_back() -> None:
    """They read the changelog of its owner: as rows come, or from the beginning."""
    state = films()
    other = Engine(state.options, b"other")
    changelog: list[tuple[bytes, bytes | None]] = []

    def follow() -> None:
        # Before the first checkpoint, whose rows are in the store already.
        new = list(state.stores[0][1].scan(b""))
        gone = {key for key, _ in changelog} - {key for key, _ in new}
        batch = [*new, *((key, None) for key in sorted(gone))]
        changelog.extend(batch)
        other.take_rows(batch)

    follow()
    assert OLD in served(other, state)
    pass_days(state, 60)
    follow()
    assert OLD not in served(other, state)
    fresh = Engine(state.options, b"fresh")
    fresh.take_rows(changelog)
    assert not fresh.replica.active[fresh.replica.row_of(OLD)]
    visits(state, "eve", 61, OLD)
    state.settle()
    follow()
    assert OLD in served(other, state)
    row = other.replica.row_of(OLD)
    assert other.replica.video(row) is not None
    assert other.popularity.columns["plays"][row] == 1


def test_a_shard_that_is_behind_is_waited_for_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("state.expiry.PATIENCE", 4)
    state = world(partitions=2, video_ttl_days=TTL)
    users = {state.partition_of(f"user{n}"): f"user{n}" for n in range(20)}
    # All of one owner.
    near = [f"v{n}" for n in range(30) if state.partition_of(f"v{n}") == 0]

    def like(partition: int, day: int, video: str) -> None:
        visits(state, users[partition], day, video)
        state.settle()

    def expired(video: str) -> bool:
        return bool(state.engine.replica.expired[state.row(video)])

    like(0, 1, near[0])
    # Nothing is known of shard 1: it may be at day 1 of a backlog.
    like(0, 40, near[1])
    assert not expired(near[0])
    like(1, 20, near[0])
    like(1, 41, near[1])
    assert not expired(near[0])
    assert state.engine.popularity.columns["plays"][state.row(near[0])] == 2
    like(1, 58, near[1])
    # Shard 0 may know of it.
    assert not expired(near[0])
    like(0, 58, near[1])
    assert expired(near[0])
    like(0, 60, near[2])
    # Nobody comes to shard 1 any more.
    for day in range(200, 206):
        like(0, day, near[1])
    assert not expired(near[2])
    state.restart()
    for day in range(206, 210):
        like(0, day, near[1])
    assert expired(near[2])


def test_a_death_before_the_store_brings_the_video_back_and_lets_it_go_again() -> None:
    state = films()
    for user in range(12):
        visits(state, f"user{user}", 60, OTHERS[0])
    state.checkpoint(0)
    state.step(EVIDENCE, 0)
    assert state.engine.replica.expired[state.row(OLD)]
    state.engine.shards[0].swap(state.engine.users, state.engine.replica, state.engine.origin)
    state.restart()
    assert not state.engine.replica.expired[state.row(OLD)]
    assert rows_about(state, OLD) >= {rows.ITEM, rows.VIDEO}
    state.settle()
    assert state.engine.replica.expired[state.row(OLD)]
    assert rows_about(state, OLD) == {rows.VIDEO, rows.DELETED}
    assert np.isfinite(state.engine.mf.columns["q"]).all()
