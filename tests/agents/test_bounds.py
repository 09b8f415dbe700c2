"""Batches larger than the room for users."""

from tests.agents.world import liked, world


def test_a_batch_of_more_users_than_slots_mixes_nobody_up() -> None:
    """What finds no room is a dead letter; nothing is ever booked on another user."""
    state = world(1, max_users=10)
    state.send(*(liked(f"user{n % 30}", f"video{n % 30}", n) for n in range(90)))
    state.settle()
    totals = state.totals()
    assert totals["learned"] + totals["ignored"] + totals["dead"] == 90
    assert totals["learned"] == 10
    assert {letter.reason for letter in state.dead} == {"state_full"}
    for n in range(30):
        slot = state.engine.users.find(f"user{n}", 0)
        if slot is not None:
            assert [state.engine.replica.ids[row] for row in state.engine.users.history[slot] if row >= 0] == [
                f"video{n}"
            ]
            assert state.engine.users.counts[slot].sum() == 3


def test_a_user_of_the_batch_is_not_evicted_by_the_rest_of_it() -> None:
    state = world(1, max_users=10)
    state.send(*(liked(f"early{n}", f"video{n}", n) for n in range(9)))
    state.settle()
    # Nine clean slots, one free: the batch's own first user is the only one not waiting for a checkpoint at some point.
    state.send(*(liked(f"late{n}", f"video{n}", 100 + n) for n in range(10)))
    state.settle()
    assert state.totals()["learned"] == 19
    for n in range(9):
        slot = state.engine.users.find(f"late{n}", 0)
        assert slot is not None
        assert [state.engine.replica.ids[row] for row in state.engine.users.history[slot] if row >= 0] == [f"video{n}"]
