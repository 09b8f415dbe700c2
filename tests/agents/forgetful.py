"""A recount of a log whose users are forgotten when they were not met for long, counted with dictionaries."""

from collections import defaultdict
from collections.abc import Iterable

import msgspec

from cli.recount import DAY_MS, Recount
from topics.interactions import Interaction
from topics.partitions import partition_of


def recount_of(events: Iterable[Interaction], partitions: int, ttl_days: int) -> Recount:
    """Videos and outcomes of all events, and of users what is left at the end of the log (events of a partition in its order)."""
    clocks: dict[int, int] = defaultdict(int)
    met: dict[str, int] = {}
    lives: dict[str, int] = defaultdict(int)
    recount = Recount()
    for event in events:
        home = partition_of(event.user_id.encode(), partitions)
        clocks[home] = max(clocks[home], event.at_ms)
        day = clocks[home] // DAY_MS
        lives[event.user_id] += day - met.get(event.user_id, day) > ttl_days
        met[event.user_id] = day
        # Each life is somebody else's.
        recount.count(msgspec.structs.replace(event, user_id=f"{event.user_id}#{lives[event.user_id]}"))
    left = [
        user for user, day in met.items() if clocks[partition_of(user.encode(), partitions)] // DAY_MS - day <= ttl_days
    ]
    recount.users = {user: recount.users[f"{user}#{lives[user]}"] for user in left}
    return recount
