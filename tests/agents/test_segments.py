"""What is known of users beside events: it reaches lists at once, lessons about videos once, and survives what state survives."""

import numpy as np
import pytest

from online_models.segments import BUCKETS
from state.lists import recommend
from state.segments import segments_of
from tests.agents.world import EVIDENCE, NOW_MS, World, liked, world
from topics.catalog import User, Video
from topics.specs import INTERACTIONS, USERS

NORTH, SOUTH = User(country="no", attributes={"band": "1"}), User(country="it", age_band="60+")


def described(state: World, user_id: str) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """What lists know of the user."""
    slot = state.engine.users.find(user_id, state.partition_of(user_id))
    context = state.engine.stranger() if slot is None else state.engine.context(slot)
    return context.segments


def test_a_user_without_events_is_known_by_their_words() -> None:
    state = world()
    state.describe("ann", NORTH)
    state.step(USERS, state.partition_of("ann"))
    np.testing.assert_array_equal(described(state, "ann"), segments_of(NORTH))
    assert not described(state, "bob").any()


def test_what_changes_reaches_a_user_in_memory_at_once() -> None:
    state = world()
    state.send(liked("ann", "v1", 1))
    state.settle()
    for user in (NORTH, SOUTH, User(), NORTH, None):
        state.describe("ann", user)
        state.step(USERS, state.partition_of("ann"))
        np.testing.assert_array_equal(described(state, "ann"), segments_of(user))


@pytest.mark.parametrize("events", [0, 1])
def test_words_survive_a_kill_and_an_eviction(events: int) -> None:
    state = world(max_users=3)
    state.describe("ann", NORTH)
    if events:
        state.send(liked("ann", "v1", 1))
    state.settle()
    state.restart()
    np.testing.assert_array_equal(described(state, "ann"), segments_of(NORTH))
    for n in range(6):
        state.send(liked(f"other{n}", "v1", 10 + n))
        state.settle()
    assert state.engine.users.peek("ann") is None
    np.testing.assert_array_equal(described(state, "ann"), segments_of(NORTH))


def test_a_user_read_while_a_checkpoint_is_under_way_has_the_latest_words() -> None:
    state = world(partitions=1)
    state.describe("ann", SOUTH)
    state.settle()
    state.describe("ann", NORTH)
    state.step(USERS, 0)
    shard, engine = state.engine.shards[0], state.engine
    taken = shard.swap(engine.users, engine.replica, engine.origin)
    # Neither in a store yet nor in what the next checkpoint will take.
    np.testing.assert_array_equal(described(state, "ann"), segments_of(NORTH))
    shard.users_store.write(taken.users, 0)
    shard.stored()
    engine.users.drop(engine.users.slot_of("ann", 0))
    np.testing.assert_array_equal(described(state, "ann"), segments_of(NORTH))


def counts(state: World, video_id: str) -> dict[int, float]:
    """Positives by bucket, those of anybody with words under the last number."""
    row = state.engine.segments.columns["counts"][state.row(video_id)]
    return {int(bucket): float(row[bucket]) for bucket in np.flatnonzero(row)}


def expected(**times: tuple[User, int]) -> dict[int, float]:
    found: dict[int, float] = {}
    for user, n in times.values():
        bits = segments_of(user)
        for bucket in range(BUCKETS):
            if int(bits[bucket // 64]) >> bucket % 64 & 1:
                found[bucket] = found.get(bucket, 0.0) + n
        found[BUCKETS] = found.get(BUCKETS, 0.0) + n
    return found


@pytest.mark.parametrize("partitions", [1, 4])
def test_first_positives_count_once_in_the_words_of_their_users(partitions: int) -> None:
    state = world(partitions)
    for n in range(6):
        state.describe(f"user{n}", NORTH if n % 2 else SOUTH)
    for partition in state.partitions:
        state.step(USERS, partition)
    number = 0
    for n in range(9):
        for video in ("a", "b")[: 1 + n % 2]:
            for event in ("impression", "like", "like"):
                number += 1
                state.send(liked(f"user{n}", video, number, event=event))
    state.send(liked("user1", "a", 2))  # a retry
    state.settle()
    # Of nine users six are described; those with odd numbers liked both.
    assert counts(state, "a") == expected(north=(NORTH, 3), south=(SOUTH, 3))
    assert counts(state, "b") == expected(north=(NORTH, 3))
    before = counts(state, "a"), counts(state, "b")
    state.restart()
    assert (counts(state, "a"), counts(state, "b")) == before
    for partition in state.partitions:
        state.give(EVIDENCE, partition, state.log(EVIDENCE, partition))
        state.give(INTERACTIONS, partition, state.log(INTERACTIONS, partition))
    state.settle()
    assert (counts(state, "a"), counts(state, "b")) == before


def test_a_deleted_video_has_no_counts() -> None:
    state = world()
    state.describe("ann", NORTH)
    state.settle()
    state.send(liked("ann", "a", 1), liked("ann", "b", 2))
    state.settle()
    state.put("a", None)
    state.settle()
    state.restart()
    state.put("a", Video(title="again"))
    state.settle()
    assert counts(state, "a") == {}
    assert counts(state, "b") == expected(north=(NORTH, 1))


def test_lists_of_new_users_differ_by_what_their_kind_likes() -> None:
    """The ranker learns that words tell taste, from people whose first choices follow them."""
    state = world(partitions=2, exploration=0.0)
    rng = np.random.default_rng(3)
    number = 0
    for n in range(700):
        kind = n % 2
        state.describe(f"user{n}", (NORTH, SOUTH)[kind])
        for partition in state.partitions:
            state.step(USERS, partition)
        for video in rng.choice(15, 2, replace=False):
            number += 1
            state.send(liked(f"user{n}", f"{'ns'[kind]}{video}", number, at_ms=NOW_MS - 60_000 * (1_500 - number)))
        if n % 10 == 9:
            state.settle()
    for name, user, letter in (("new north", NORTH, "n"), ("new south", SOUTH, "s")):
        state.describe(name, user)
        state.settle()
        places, source = recommend(state.engine, name, state.partition_of(name), 10)
        assert source == "owner"
        listed = [str(state.engine.replica.ids[place.row]) for place in places]
        assert sum(video.startswith(letter) for video in listed) >= 9, listed
        own = [place for place, video in zip(places, listed, strict=True) if video.startswith(letter)]
        assert all([why.kind for why in place.reasons] == ["segment"] for place in own if not place.explores)
