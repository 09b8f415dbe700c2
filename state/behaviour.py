"""How a user has reacted so far, as the heads are told it: one way to make it, for lists and for lessons."""

import numpy as np

from online_models.base import Behaviour
from state.types import Int32Array
from state.users import Users
from topics.interactions import event_code

IMPRESSION, LIKED, WATCHED = event_code("impression"), event_code("like"), event_code("watch")


def behaviour_of(counts: Int32Array, positives: int, last_ms: int, at_ms: int) -> Behaviour:
    """A user's behaviour.

    Parameters
    ----------
    counts : int32, shape (kinds,); accepted events by kind
    positives : first positives
    last_ms, at_ms : times of the latest event, 0 for none, and of what is asked for
    """
    # A client that does not say what it shows says at least what was played.
    tries = int(counts[IMPRESSION]) or int(counts.max())
    idle_s = max(at_ms - last_ms, 0) / 1000 if last_ms > 0 else -1.0
    return Behaviour(float(tries), float(positives), float(counts[LIKED]), float(counts[WATCHED]), idle_s)


def positives_in(users: Users, slot: int) -> int:
    """First positives of the user in `slot`, as far as their seen set holds them."""
    return int((users.seen(slot) & np.uint64(1)).sum())


def behaviour_in(users: Users, slot: int, at_ms: int) -> Behaviour:
    """Behaviour of the user in `slot` as of `at_ms`."""
    return behaviour_of(users.counts[slot], positives_in(users, slot), int(users.last_ms[slot]), at_ms)
