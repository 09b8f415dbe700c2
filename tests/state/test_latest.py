"""The users that were used last are told, and nobody who has left."""

import numpy as np

from state.users import Users


def test_those_used_last_come_first() -> None:
    users = Users(100, 4)
    assert users.latest(5) == []
    slots = [users.slot_of(f"u{n}", n % 2) for n in range(20)]
    users.use(np.array([slots[3]], np.int32))
    users.find("u7", 1)
    assert users.latest(4) == [b"u7", b"u3", b"u19", b"u18"]
    assert len(users.latest(1_000)) == 20
    assert set(users.latest(1_000)) == {f"u{n}".encode() for n in range(20)}


def test_who_has_left_is_not_told() -> None:
    users = Users(100, 4)
    for n in range(6):
        users.slot_of(f"u{n}", n % 2)
    users.drop_partition(1)
    assert users.latest(10) == [b"u4", b"u2", b"u0"]
    assert users.latest(2) == [b"u4", b"u2"]
    # A slot that is used again is another user's.
    users.slot_of("u9", 1)
    assert users.latest(2) == [b"u9", b"u4"]
    assert users.latest(1) == [b"u9"]
