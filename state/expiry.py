"""When a user or a video has expired: days of event time, and what is older than so many of them.

A day is event time in milliseconds divided by DAY_MS; 0 stands for none. Who was met last on day d has expired once the clock that is
asked shows a day later than d + ttl: after more than ttl and less than ttl + 1 days. Always holds: a clock never goes back, so what
has expired stays so until it is met again.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from state.types import AnyArray, Int64Array

DAY_MS = 86_400_000
#: Blocks of each shard in which nothing is heard of one that is behind: a quarter of a minute at the pace of checkpoints, for which
#: shards of one backlog may be apart.
PATIENCE = 64


def day_of(at_ms: int) -> int:
    """The day of an event time."""
    return at_ms // DAY_MS


def horizon(clock_ms: int, ttl_days: int | None) -> int:
    """The first day that has not expired, 0 where nothing expires."""
    return 0 if ttl_days is None else max(0, day_of(clock_ms) - ttl_days)


class EvidenceClock:
    """How far the shards have come whose evidence a shard applies: no further than the one that is furthest behind.

    Shards read a backlog at their own pace, and what one of them has still to say of a video must not find it gone. One of which
    nothing is heard for long, while another is more than the time to live ahead, has nothing to say: it is not waited for.

    Parameters
    ----------
    heard : by sender, the latest event time (ms) and the number of its latest block
    blocks : number of the latest block of all
    """

    def __init__(self, heard: Mapping[int, tuple[int, int]], blocks: int) -> None:
        self.heard = dict(heard)
        self.blocks = blocks

    def hear(self, sender: int, at_ms: int) -> None:
        """The block at hand, of `sender`, is applied up to there."""
        self.heard[sender] = max(self.heard.get(sender, (0, 0))[0], at_ms), self.blocks

    def day(self, partitions: int, ttl_days: int) -> int:
        """The day that all senders which are waited for have come to; 0 before each has been heard of."""
        foremost = max((at_ms for at_ms, _ in self.heard.values()), default=0)
        known = [self.heard.get(sender, (0, 0)) for sender in range(partitions)]
        waited_for = [
            at_ms
            for at_ms, number in known
            if at_ms >= foremost - ttl_days * DAY_MS or self.blocks - number <= PATIENCE * partitions
        ]
        return day_of(min(waited_for, default=0))


def day_ends(clock_ms: int, at_ms: Int64Array) -> list[int]:
    """Where a clock at `clock_ms` that events (int64 ms, shape (m,)) move on comes to another day, but for the first event."""
    days = np.maximum(np.maximum.accumulate(at_ms), clock_ms) // DAY_MS
    ends: list[int] = (np.flatnonzero(days[1:] != days[:-1]) + 1).tolist()
    return ends


def by_day(events: AnyArray) -> Iterator[tuple[int, AnyArray]]:
    """Events (with `at_ms`) of each day, and the latest time of it, ascending; of one day in their order."""
    days = events["at_ms"] // DAY_MS
    each = np.unique(days)
    for day in each.tolist():
        found = events if len(each) == 1 else events[days == day]
        yield int(found["at_ms"].max()), found
