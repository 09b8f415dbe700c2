"""A user who asks to be forgotten is: in memory, in rows, in lists, after a restart and in a replay; others lose nothing."""

import numpy as np
import pytest

from state import rows
from state.lists import recommend
from state.profiles import profile_of
from tests.agents.world import NOW_MS, World, liked, world
from topics.catalog import User
from topics.interactions import Interaction
from topics.specs import INTERACTIONS, USERS

BEFORE, ERASED, AFTER = NOW_MS - 2_000, NOW_MS - 1_000, NOW_MS - 500
GONE = User(erased_ms=ERASED)
NORTH = User(country="no")


def likes(user: str, first: int, *, at_ms: int, n: int = 6) -> list[Interaction]:
    return [liked(user, f"v{number}", first + number, at_ms=at_ms) for number in range(n)]


def audience(**options: int) -> World:
    state = world(**{"partitions": 2, **options})
    for number in range(8):
        state.send(*likes(f"u{number}", 100 * number, at_ms=BEFORE, n=4 + number % 3))
    state.settle()
    return state


def known(state: World, user: str) -> dict[str, int] | None:
    """Events that are known of the user; None where nothing is known at all."""
    found = profile_of(state.engine, user, state.partition_of(user))
    return None if found is None else found.events


def row_of(state: World, user: str) -> bytes | None:
    return state.engine.shards[state.partition_of(user)].users_store.get(rows.USER + user.encode())


@pytest.mark.parametrize("pinned", [False, True])
def test_nothing_is_left_in_memory_or_in_the_store(pinned: bool) -> None:
    """Also of somebody whose last events wait for a checkpoint."""
    state = audience()
    if pinned:
        state.send(liked("u1", "v7", 999, at_ms=BEFORE))
        state.step(INTERACTIONS, state.partition_of("u1"))
    others = {user: known(state, user) for user in ("u2", "u3", "u4")}
    state.describe("u1", GONE)
    state.step(USERS, state.partition_of("u1"))
    assert known(state, "u1") is None
    assert recommend(state.engine, "u1", state.partition_of("u1"), 5)[1] == "trending"
    state.settle()
    assert row_of(state, "u1") is None
    assert {user: known(state, user) for user in others} == others
    state.restart()
    assert known(state, "u1") is None
    assert {user: known(state, user) for user in others} == others


def test_who_comes_back_starts_anew() -> None:
    state = audience()
    state.describe("u1", GONE)
    state.step(USERS, state.partition_of("u1"))
    # Before the checkpoint that would have erased the row.
    state.send(liked("u1", "v5", 5_000, at_ms=AFTER))
    state.settle()
    assert known(state, "u1") == {"like": 1}
    state.restart()
    assert known(state, "u1") == {"like": 1}
    slot = state.engine.users.find("u1", state.partition_of("u1"))
    assert slot is not None
    assert len(state.engine.users.seen(slot)) == 1


def test_a_row_that_is_about_to_be_erased_is_not_read_again() -> None:
    """The user is not in memory, and comes back before the checkpoint that erases their row, or while it is under way."""
    for under_way in (False, True):
        state = audience()
        state.restart()
        partition = state.partition_of("u1")
        shard = state.engine.shards[partition]
        assert state.engine.users.peek("u1") is None
        state.describe("u1", GONE)
        state.step(USERS, partition)
        taken = shard.swap(state.engine.users, state.engine.replica, state.engine.origin) if under_way else None
        state.send(liked("u1", "v5", 5_000, at_ms=AFTER))
        state.step(INTERACTIONS, partition)
        assert known(state, "u1") == {"like": 1}
        if taken is not None:
            shard.users_store.write(taken.users, 0)
            shard.stored()
        state.settle()
        state.restart()
        assert known(state, "u1") == {"like": 1}


def test_old_events_that_come_again_count_and_are_not_learned() -> None:
    state = audience()
    state.describe("u1", GONE)
    state.settle()
    state.send(*likes("u1", 100, at_ms=BEFORE), *likes("u1", 7_000, at_ms=ERASED))
    state.settle()
    assert known(state, "u1") is None
    assert state.engine.totals()["ignored"] == 12
    state.send(*likes("u1", 8_000, at_ms=ERASED + 1, n=2))
    state.settle()
    assert known(state, "u1") == {"like": 2}


@pytest.mark.parametrize("first", [INTERACTIONS, USERS])
def test_a_replay_forgets_too_whatever_it_reads_first(first: str) -> None:
    state = audience()
    state.describe("u1", GONE)
    state.settle()
    other = world(partitions=2)
    other.logs = {place: list(log) for place, log in state.logs.items() if place[0] in (INTERACTIONS, USERS)}
    for topic in (first, INTERACTIONS, USERS):
        for partition in range(2):
            other.step(topic, partition)
    other.settle()
    assert known(other, "u1") is None
    for user in ("u2", "u5"):
        assert known(other, user) == known(state, user)


def test_what_is_said_of_them_later_does_not_bring_it_back() -> None:
    state = audience()
    state.describe("u1", GONE)
    state.settle()
    state.describe("u1", NORTH)
    state.settle()
    state.send(*likes("u1", 100, at_ms=BEFORE))
    state.settle()
    found = profile_of(state.engine, "u1", state.partition_of("u1"))
    assert found is not None
    assert (found.events, found.segments) == ({}, ["country:no"])
    state.describe("u1", None)
    state.settle()
    state.send(*likes("u1", 100, at_ms=BEFORE))
    state.settle()
    assert known(state, "u1") is None


def test_a_time_in_the_future_erases_nothing_that_is_still_to_come() -> None:
    state = audience()
    state.describe("u1", User(erased_ms=2**53))
    state.settle()
    assert known(state, "u1") is None
    state.send(liked("u1", "v5", 5_000, at_ms=NOW_MS + 60_000))
    state.settle()
    assert known(state, "u1") == {"like": 1}


def test_a_profile_says_what_lists_are_made_from() -> None:
    state = audience()
    state.describe("u3", NORTH)
    state.settle()
    found = profile_of(state.engine, "u3", state.partition_of("u3"))
    assert found is not None
    assert found.events == {"like": 4}
    assert [state.engine.replica.ids[row] for row in found.positives] == ["v3", "v2", "v1", "v0"]
    assert (found.seen, found.segments, found.last_event_ms) == (4, ["country:no"], BEFORE)
    assert profile_of(state.engine, "nobody", state.partition_of("nobody")) is None
    assert state.engine.users.peek("nobody") is None
    np.testing.assert_array_equal(state.engine.users.erased_ms[: len(state.engine.users)], -1)
