"""A shard that another worker owns, as its changelogs have it: what lists are made of here, and what a take-over goes on from.

Flows in: committed rows and cuts, from the thread that tails the changelogs. Flows out: rows of users. Always holds: nothing is
learned here, and the stores are the image of a prefix of their changelogs, which a take-over reads on from.
"""

from collections.abc import Mapping

from state.expiry import horizon
from state.rows import Cut
from state.store import Store


class Standby:
    """One shard's stores, and how far they have come.

    Parameters
    ----------
    partition : the shard
    users_store : read on the loop, written by the thread that tails
    cut : the last one that the store has
    """

    def __init__(self, partition: int, users_store: Store, cut: Cut) -> None:
        self.partition = partition
        self.users_store = users_store
        self.cut = cut
        #: When the state was current, as far as is known; wall clock in ms, 0 before anybody has looked.
        self.as_of_ms = 0
        #: After which its users expire, in days of event time; the engine sets it. None: never.
        self.user_ttl_days: int | None = None
        #: Whether the ends of both changelogs have been reached, once.
        self.caught_up = False

    @property
    def next(self) -> Mapping[str, int]:
        """Next offset by input topic, as `Shard.next`."""
        return self.cut.next

    @property
    def horizon(self) -> int:
        """The first day that has not expired for its users, 0 where nothing expires."""
        return horizon(self.cut.event_ms, self.user_ttl_days)

    def row_of_user(self, key: bytes) -> bytes | None:
        """A row of the users table, as last committed."""
        return self.users_store.get(key)
