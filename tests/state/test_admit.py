"""`Users.admit` against a reference of plain lists and sets, through eviction, stores and a growing pool."""

from dataclasses import replace

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
from state.users import (
    ACT_NEGATIVE,
    ACT_NONE,
    ACT_SEEN,
    ACT_UNDO,
    IGNORED,
    KINDS,
    POSITIVE,
    SEEN_MAX,
    Users,
)


def replica_of(capacity: int = 1_000) -> Replica:
    return Engine(EngineOptions(partitions=4, max_videos=capacity), b"test").replica


def drive(users: Users, replica: Replica, events: list[Event]) -> tuple[list[int], list[list[str]]]:
    slots = np.array([users.slot_of(e.user, 0) for e in events], np.int32)
    number = np.array([replica.row_of(e.video) for e in events], np.int32)
    outcome, histories, *_ = users.admit(
        slots,
        number,
        replica.hashes[number],
        np.array([e.event_id for e in events], np.uint64),
        np.array([e.kind for e in events], np.uint8),
        np.array([e.act for e in events], np.uint8),
        np.array([e.positive for e in events], np.uint8),
        np.array([e.at_ms for e in events], np.int64),
        np.ones(len(events), np.bool_),
    )
    named = [[str(replica.ids[row]) for row in history if row >= 0] for history in histories.tolist()]
    return outcome.tolist(), named


def check(users: Users, replica: Replica, slot: int, plain: PlainUser) -> None:
    assert [replica.ids[row] for row in users.history[slot] if row >= 0] == plain.history
    assert users.seen(slot).tolist() == [video_code(v) | int(flag) for v, flag in plain.seen.items()]
    assert users.counts[slot].tolist() == [plain.counts[kind] for kind in range(KINDS)]
    assert users.last_ms[slot] == plain.last_ms
    assert set(users.recent[slot].tolist()) - {0} == set(plain.recent)


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
    plain: dict[str, PlainUser] = {}
    for first in range(0, len(events), batch):
        part = events[first : first + batch]
        expected = [plain.setdefault(e.user, PlainUser()).admit(e) for e in part]
        outcome, histories = drive(users, replica, part)
        assert outcome == [code for code, _ in expected]
        assert histories == [history for _, history in expected]
    for user_id, state in plain.items():
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
    plain: dict[str, PlainUser] = {}
    for number, drawn_event in drawn:
        event = replace(drawn_event, user=f"user{number}")
        expected = plain.setdefault(event.user, PlainUser()).admit(event)
        slot = users.slot_of(event.user, 0)
        users.pin([slot])
        outcome, histories = drive(users, replica, [event])
        assert (outcome[0], histories[0]) == expected
        store.write(rows.encode_users(users, np.array([slot], np.int32), replica), 1)
        users.unpin([slot])
    assert len(users) <= 3
    for user_id, state in plain.items():
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
    assert drive(users, replica, [Event("ann", "v0", 10**6, 3, ACT_NONE, True, 1)])[0] == [POSITIVE]
    assert drive(users, replica, [Event("ann", "v2093", 10**6 + 1, 3, ACT_NONE, True, 1)])[0] == [IGNORED]


def test_the_pool_grows_for_many_users_in_one_batch() -> None:
    replica = replica_of(capacity=1_000)
    users = Users(500, 32)
    plain: dict[str, PlainUser] = {}
    events = [Event(f"user{n % 300}", f"v{n // 300}", n + 1, 2, ACT_SEEN, n % 2 == 0, n) for n in range(300 * 150)]
    before = len(users.seen_pool)
    expected = [plain.setdefault(e.user, PlainUser()).admit(e)[0] for e in events]
    assert drive(users, replica, events)[0] == expected
    assert len(users.seen_pool) > before
    for user_id, state in plain.items():
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
