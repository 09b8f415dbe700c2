"""`Users.admit` against a reference of plain lists and sets, through eviction, stores and a growing pool."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.plain_user import Event, PlainUser
from state import rows
from state.engine import Engine, EngineOptions
from state.errors import StateFull
from state.replica import Replica, video_code
from state.store import MemoryStore
from state.types import Int32Array
from state.users import (
    ACT_NEGATIVE,
    ACT_NONE,
    ACT_SEEN,
    ACT_UNDO,
    DUPLICATE,
    HISTORY,
    IGNORED,
    KINDS,
    PASSED,
    POSITIVE,
    SEEN_MAX,
    SIGNAL,
    Users,
)


def replica_of(capacity: int = 1_000) -> Replica:
    return Engine(EngineOptions(partitions=4, max_videos=capacity), b"test").replica


class Seen(NamedTuple):
    """What became of an event, videos by name."""

    outcome: int
    history: list[str]
    passes: list[str]
    came: bool
    before: bool
    damped: bool


def drive(users: Users, replica: Replica, events: list[Event], alive: list[bool] | None = None) -> list[Seen]:
    slots = np.array([users.slot_of(e.user, 0) for e in events], np.int32)
    number = np.array([replica.row_of(e.video) for e in events], np.int32)
    admitted = users.admit(
        slots,
        number,
        replica.hashes[number],
        np.array([e.event_id for e in events], np.uint64),
        np.array([e.kind for e in events], np.uint8),
        np.array([e.act for e in events], np.uint8),
        np.array([e.positive for e in events], np.uint8),
        np.array([e.at_ms for e in events], np.int64),
        np.ones(len(events), np.bool_) if alive is None else np.array(alive, np.bool_),
    )
    assert admitted.histories.shape == (len(events), HISTORY)
    assert admitted.passes.shape == (len(events), PASSED)
    return [
        Seen(int(outcome), named(replica, history), named(replica, passes), bool(came), bool(before), bool(damped))
        for outcome, history, passes, came, before, damped in zip(*admitted, strict=True)
    ]


def named(replica: Replica, rows_: Int32Array) -> list[str]:
    """Names of a list's rows, which has no gaps."""
    held = rows_ >= 0
    assert held.tolist() == sorted(held.tolist(), reverse=True)
    return [str(replica.ids[row]) for row in rows_[held].tolist()]


class Reference:
    """Plain users, and in which batch each came to what they have open."""

    def __init__(self) -> None:
        self.users: dict[str, PlainUser] = {}
        self._came: dict[str, int] = {}
        self._batch = 0

    def admit(self, events: list[Event]) -> list[Seen]:
        self._batch += 1
        return [self._one(event) for event in events]

    def _one(self, event: Event) -> Seen:
        user = self.users.setdefault(event.user, PlainUser())
        outcome, history = user.admit(event)
        assert user.shown in (None, event.video)
        came = user.shown is not None
        if came:
            self._came[event.user] = self._batch
        before = outcome != DUPLICATE and self._came[event.user] != self._batch
        if came and outcome != POSITIVE:
            history = list(user.history)
        # What they had passed over when they came to it, or liked it; a video that they like is taken out of it before.
        passes = list(user.passed) if came or outcome == POSITIVE else []
        return Seen(outcome, history, passes, came, before, user.damped)


def check(users: Users, replica: Replica, slot: int, plain: PlainUser) -> None:
    assert named(replica, users.history[slot]) == plain.history
    assert users.seen(slot).tolist() == [video_code(v) | int(flag) for v, flag in plain.seen.items()]
    assert users.counts[slot].tolist() == [plain.counts[kind] for kind in range(KINDS)]
    assert users.last_ms[slot] == plain.last_ms
    assert set(users.recent[slot].tolist()) - {0} == set(plain.recent)
    opened = int(users.open_row[slot])
    assert (None if opened < 0 else replica.ids[opened]) == plain.open
    assert bool(users.open_liked[slot]) == plain.open_liked
    assert named(replica, users.passed[slot]) == plain.passed


EVENTS = st.builds(
    Event,
    user=st.sampled_from(["ann", "bob", "cy"]),
    video=st.integers(0, 30).map("v{}".format),
    event_id=st.integers(1, 60),
    kind=st.integers(0, 9),
    act=st.sampled_from([ACT_NONE, ACT_SEEN, ACT_NEGATIVE, ACT_UNDO]),
    positive=st.booleans(),
    at_ms=st.integers(0, 10**12),
)


@given(st.lists(EVENTS, max_size=120), st.integers(1, 40))
def test_admit_equals_the_reference(events: list[Event], batch: int) -> None:
    replica = replica_of()
    users = Users(8, 32)
    plain = Reference()
    for first in range(0, len(events), batch):
        part = events[first : first + batch]
        assert drive(users, replica, part) == plain.admit(part)
    for user_id, state in plain.users.items():
        check(users, replica, users.slot_of(user_id, 0), state)


@given(st.lists(st.tuples(st.integers(0, 9), EVENTS), max_size=150))
def test_users_survive_eviction_through_a_store(drawn: list[tuple[int, Event]]) -> None:
    """Three slots for ten users: nearly every event evicts one and loads one, always between two checkpoints."""
    replica = replica_of()
    store = MemoryStore()

    def load(users: Users, key: bytes, slot: int) -> bool:
        data = store.get(rows.USER + key)
        if data is None:
            return False
        rows.decode_user(data, users, slot, replica)
        return True

    users = Users(3, 32, load)
    plain = Reference()
    for number, drawn_event in drawn:
        event = replace(drawn_event, user=f"user{number}")
        slot = users.slot_of(event.user, 0)
        users.pin([slot])
        assert drive(users, replica, [event]) == plain.admit([event])
        store.write(rows.encode_users(users, np.array([slot], np.int32), replica), 1)
        users.unpin([slot])
    assert len(users) <= 3
    for user_id, state in plain.users.items():
        check(users, replica, users.slot_of(user_id, 0), state)


def test_the_seen_set_forgets_its_oldest_video_at_the_bound() -> None:
    replica = replica_of(capacity=5_000)
    users = Users(2, 32)
    plain = PlainUser()
    for n in range(SEEN_MAX + 50):
        event = Event("ann", f"v{n}", n + 1, 2, ACT_SEEN, n % 7 == 0, n)
        plain.admit(event)
        drive(users, replica, [event])
    slot = users.slot_of("ann", 0)
    assert users.seen_length[slot] == SEEN_MAX
    check(users, replica, slot, plain)
    # What was forgotten may become a first positive again; what was not may not.
    assert drive(users, replica, [Event("ann", "v0", 10**6, 3, ACT_NONE, True, 1)])[0].outcome == POSITIVE
    assert drive(users, replica, [Event("ann", "v2093", 10**6 + 1, 3, ACT_NONE, True, 1)])[0].outcome == IGNORED


def test_the_pool_grows_for_many_users_in_one_batch() -> None:
    replica = replica_of(capacity=1_000)
    users = Users(500, 32)
    plain = Reference()
    events = [Event(f"user{n % 300}", f"v{n // 300}", n + 1, 2, ACT_SEEN, n % 2 == 0, n) for n in range(300 * 150)]
    before = len(users.seen_pool)
    assert drive(users, replica, events) == plain.admit(events)
    assert len(users.seen_pool) > before
    for user_id, state in plain.users.items():
        check(users, replica, users.slot_of(user_id, 0), state)


def test_a_slot_that_changes_hands_shows_nothing_of_its_last_user() -> None:
    replica = replica_of()
    users = Users(1, 32)
    drive(users, replica, [Event("ann", f"v{n}", n + 1, 3, ACT_SEEN, True, n) for n in range(25)])
    users.p[users.slot_of("ann", 0)] = 7
    slot = users.slot_of("bob", 0)
    assert users.peek("ann") is None
    check(users, replica, slot, PlainUser())
    assert not users.p[slot].any()
    assert users.offset[slot] == -1


def test_pinned_users_stay_and_a_full_house_says_so() -> None:
    users = Users(20, 32)
    slots = [users.slot_of(f"user{n}", 0) for n in range(20)]
    users.pin(slots)
    with pytest.raises(StateFull, match="HEADRACE_MAX_USERS"):
        users.slot_of("one too many", 0)
    users.unpin(slots[:1])
    assert users.slot_of("one too many", 0) == slots[0]
    assert users.peek("user0") is None
    assert all(users.peek(f"user{n}") == slots[n] for n in range(1, 20))


def test_reading_an_unknown_user_creates_nothing() -> None:
    users = Users(4, 32, lambda *_: False)
    assert users.find("nobody", 0) is None
    assert len(users) == 0


def viewed(video: str, number: int, *, liked: bool = False, user: str = "ann", at_ms: int | None = None) -> Event:
    return Event(user, video, number, 3 if liked else 1, ACT_NONE, liked, number if at_ms is None else at_ms)


def test_a_video_is_shown_when_the_user_comes_to_it_and_passed_over_unless_liked() -> None:
    replica, users, plain = replica_of(), Users(2, 32), Reference()
    events = [
        viewed("a", 10),
        viewed("a", 20),
        viewed("b", 30),
        viewed("b", 40, liked=True),
        viewed("b", 5),  # a late one
        viewed("c", 50),
        viewed("a", 60),
        viewed("d", 70, liked=True),
        viewed("a", 80, liked=True),
        viewed("c", 90, liked=True),
    ]
    seen = drive(users, replica, events)
    came = [True, False, True, False, False, True, True, True, True, True]
    assert [each.came for each in seen] == came
    # Of each positive, what they had gone on from without liking it: never the video itself.
    assert [each.passes for each in seen if each.outcome == POSITIVE] == [["a"], ["a", "c"], ["c"], []]
    slot = users.slot_of("ann", 0)
    assert named(replica, users.passed[slot]) == []
    assert plain.admit(events) == seen
    check(users, replica, slot, plain.users["ann"])


def test_only_what_was_open_before_the_batch_was_come_to_before_it() -> None:
    replica, users = replica_of(), Users(2, 32)
    drive(users, replica, [viewed("a", 1), viewed("b", 2, user="bob")])
    batch = [
        viewed("a", 3),
        viewed("a", 3),
        viewed("b", 4),
        viewed("b", 5, liked=True),
        viewed("b", 6, liked=True, user="bob"),
    ]
    assert [each.before for each in drive(users, replica, batch)] == [True, False, False, False, True]
    assert drive(users, replica, [viewed("b", 7)])[0].before


def test_a_duplicate_opens_nothing() -> None:
    replica, users = replica_of(), Users(2, 32)
    seen = drive(users, replica, [viewed("a", 1), viewed("b", 2), viewed("a", 1), viewed("b", 3), viewed("c", 4)])
    assert seen[2] == Seen(DUPLICATE, [], [], False, False, False)
    assert [each.came for each in seen] == [True, True, False, False, True]


def test_a_repeated_like_is_a_like_of_what_is_open() -> None:
    replica, users = replica_of(), Users(2, 32)
    events = [viewed("a", 1, liked=True), viewed("b", 2), viewed("a", 3), viewed("a", 4, liked=True), viewed("c", 5)]
    seen = drive(users, replica, events)
    assert seen[3].outcome == IGNORED
    assert named(replica, users.passed[users.slot_of("ann", 0)]) == ["b"]


def test_no_more_than_the_latest_are_kept_as_passed_over() -> None:
    replica, users, plain = replica_of(), Users(2, 32), Reference()
    # Those that come again move to the head.
    events = [viewed(f"v{n % 11}", n + 1) for n in range(30)] + [viewed("v7", 31), viewed("v2", 32)]
    assert drive(users, replica, events) == plain.admit(events)
    slot = users.slot_of("ann", 0)
    assert len(named(replica, users.passed[slot])) == PASSED
    check(users, replica, slot, plain.users["ann"])


def test_a_deleted_video_opens_and_ends_nothing() -> None:
    replica, users = replica_of(), Users(2, 32)
    events = [viewed("a", 1), viewed("gone", 2), viewed("a", 3), viewed("gone", 4), viewed("b", 5)]
    seen = drive(users, replica, events, [event.video != "gone" for event in events])
    assert [each.came for each in seen] == [True, False, False, False, True]
    slot = users.slot_of("ann", 0)
    assert replica.ids[users.open_row[slot]] == "b"
    assert named(replica, users.passed[slot]) == ["a"]
    # It counts for the user all the same.
    assert users.counts[slot].sum() == 5
    # And to a user who has nothing else it is nothing.
    drive(users, replica, [viewed("gone", 6, user="bob")], [False])
    assert users.open_row[users.slot_of("bob", 0)] == -1


@given(st.lists(EVENTS, min_size=1, max_size=80), st.sets(st.integers(0, 30).map("v{}".format), max_size=20))
def test_events_of_deleted_videos_are_as_if_they_were_of_no_video(events: list[Event], gone: set[str]) -> None:
    """For what is open and passed over; the learner has made them no positives and without effect."""
    dulled = [
        replace(event, act=ACT_NONE, positive=False) if event.video in gone else event
        for event in (replace(event, event_id=number + 1) for number, event in enumerate(events))
    ]
    replica, users, others = replica_of(), Users(8, 32), Users(8, 32)
    seen = drive(users, replica, dulled, [event.video not in gone for event in dulled])
    left = [event for event in dulled if event.video not in gone]
    alive = [each for each, event in zip(seen, dulled, strict=True) if event.video not in gone]
    assert alive == drive(others, replica, left)
    assert not any(each.came for each, event in zip(seen, dulled, strict=True) if event.video in gone)
    for name in {event.user for event in left}:
        one, other = users.slot_of(name, 0), others.slot_of(name, 0)
        assert users.open_row[one] == others.open_row[other]
        np.testing.assert_array_equal(users.passed[one], others.passed[other])


def test_forgotten_rows_leave_no_trace_in_what_is_open_and_passed_over() -> None:
    replica, users = replica_of(), Users(8, 32)
    drive(users, replica, [viewed(v, n + 1) for n, v in enumerate("abcd")])
    drive(users, replica, [viewed(v, n + 11, user="bob") for n, v in enumerate("ab")])
    drive(users, replica, [viewed(v, n + 21, user="cy", liked=v == "c") for n, v in enumerate("cd")])
    ann, bob, cy = (users.slot_of(name, 0) for name in ("ann", "bob", "cy"))
    assert sorted(users.forget_rows([replica.row_of("b")])) == [ann, bob]
    assert named(replica, users.passed[ann]) == ["c", "a"]
    assert (users.open_row[bob], named(replica, users.passed[bob])) == (-1, ["a"])
    # What was open is gone: it is not passed over when they go on, and they come to it anew when it returns.
    assert drive(users, replica, [viewed("b", 31, user="bob")])[0].came
    assert named(replica, users.passed[bob]) == ["a"]
    assert sorted(users.forget_rows([replica.row_of("d")])) == [ann, cy]
    assert (users.open_row[ann], users.open_row[cy]) == (-1, -1)
    assert users.forget_rows([replica.row_of("c"), replica.row_of("nobody's")]) == [ann, cy]
    assert named(replica, users.history[cy]) == []


def test_a_liked_video_that_is_deleted_while_open_leaves_the_next_one_unliked() -> None:
    replica, users = replica_of(), Users(2, 32)
    drive(users, replica, [viewed("a", 1, liked=True)])
    users.forget_rows([replica.row_of("a")])
    drive(users, replica, [viewed("b", 2), viewed("c", 3)])
    assert named(replica, users.passed[users.slot_of("ann", 0)]) == ["b"]


def test_a_dislike_passes_over_as_any_other_event_does() -> None:
    replica, users, plain = replica_of(), Users(2, 32), Reference()
    events = [
        viewed("a", 1, liked=True),
        Event("ann", "a", 2, 9, ACT_NEGATIVE, False, 2),
        viewed("b", 3),
        Event("ann", "b", 4, 9, ACT_NEGATIVE, False, 4),
        viewed("c", 5),
    ]
    seen = drive(users, replica, events)
    assert seen == plain.admit(events)
    assert [each.outcome for each in seen] == [POSITIVE, SIGNAL, IGNORED, SIGNAL, IGNORED]
    check(users, replica, users.slot_of("ann", 0), plain.users["ann"])
    assert plain.users["ann"].passed == ["b"]
