"""Users that come from a store, when something is in the way."""

import pytest

from state.errors import StateFull
from state.users import Users


def test_a_user_that_cannot_be_read_leaves_no_empty_slot_behind() -> None:
    """An empty slot would pass for the user's state: the next event would write it over the stored row."""

    def load(users: Users, _key: bytes, slot: int) -> bool:
        users.counts[slot] = 5
        raise StateFull("the history names videos for which there is no room")

    users = Users(4, 32, load)
    for _ in range(2):
        with pytest.raises(StateFull):
            users.slot_of("ann", 0)
        assert users.peek("ann") is None
        assert users.find("ann", 0) is None
    assert len(users) == 0


def test_serving_does_not_fail_while_every_slot_waits_for_a_checkpoint() -> None:
    users = Users(3, 32, lambda *_: True)
    users.pin([users.slot_of(f"user{n}", 0) for n in range(3)])
    assert users.find("somebody stored", 0) is None
    assert users.find("user1", 0) == 1
