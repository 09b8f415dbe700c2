"""The latest events of a shard, for lists that are read after what followed them.

Flows in: events as they are applied, and which lists they are known to have followed. Flows out: those of a user since some time.
A list and what follows it come in two topics, and a client may be faster than the list's record; where a log is read anew, events
come by the thousand. Always holds: bounded, in memory only, and only where lists are counted; an event belongs to one list.
"""

from typing import NamedTuple

import numpy as np

from state.tally import Followed, Said
from state.types import BoolArray, Float64Array, Int64Array, UInt64Array

#: Events kept a shard, at 50 bytes each.
CAPACITY = 65_536


class Applied(NamedTuple):
    """Events in order, of m users.

    Attributes
    ----------
    keys : ids of the users as UTF-8
    arrived_ms, at_ms : int64, shape (m,)
    codes : uint64, shape (m,); hashes of the videos
    shown, clicked, liked : bool, shape (m,); what they say
    watch_seconds : float64, shape (m,); NaN where unknown
    """

    keys: list[bytes]
    arrived_ms: Int64Array
    at_ms: Int64Array
    codes: UInt64Array
    shown: BoolArray
    clicked: BoolArray
    liked: BoolArray
    watch_seconds: Float64Array


class RecentEvents:
    """A ring of the latest events.

    Attributes
    ----------
    arrived_ms, at_ms : int64, shape (CAPACITY,)
    codes : uint64, shape (CAPACITY,); hashes of videos
    joined : what is counted of the list that an event has followed, and the video's place there
    """

    def __init__(self) -> None:
        self._count = 0
        self._users = np.zeros(CAPACITY, np.int64)
        self._said = np.zeros((3, CAPACITY), np.bool_)
        self._watch_seconds = np.zeros(CAPACITY)
        self.arrived_ms, self.at_ms = np.zeros((2, CAPACITY), np.int64)
        self.codes = np.zeros(CAPACITY, np.uint64)
        self.joined: dict[int, tuple[Followed, int]] = {}

    def add(self, events: Applied, joined: dict[int, tuple[Followed, int]]) -> None:
        """Events were applied, of which those in `joined`, by their place in order, are known to have followed a list."""
        numbers = (self._count + np.arange(len(events.keys))) % CAPACITY
        for number in numbers.tolist() if self.joined else ():
            self.joined.pop(number, None)
        # Python's own hash: bytes remember theirs, and nothing of it leaves the process.
        self._users[numbers] = [hash(key) for key in events.keys]
        self.arrived_ms[numbers], self.at_ms[numbers], self.codes[numbers] = (
            events.arrived_ms,
            events.at_ms,
            events.codes,
        )
        self._said[:, numbers] = events.shown, events.clicked, events.liked
        self._watch_seconds[numbers] = events.watch_seconds
        for place, list_and_place in joined.items():
            self.joined[int(numbers[place])] = list_and_place
        self._count += len(events.keys)

    @property
    def since_ms(self) -> int:
        """Arrival of the oldest event that is kept; 0 while none is."""
        if not self._count:
            return 0
        return int(self.arrived_ms[self._count % CAPACITY if self._count > CAPACITY else 0])

    def of(self, key: bytes, since_ms: int) -> list[int]:
        """Numbers of the events of a user (id as UTF-8) that arrived then or later, oldest first."""
        kept = min(self._count, CAPACITY)
        numbers = np.flatnonzero((self._users[:kept] == hash(key)) & (self.arrived_ms[:kept] >= since_ms))
        first = self._count % CAPACITY if self._count > CAPACITY else 0
        return [*numbers[numbers >= first].tolist(), *numbers[numbers < first].tolist()]

    def said(self, number: int) -> Said:
        """What an event says."""
        shown, clicked, liked = self._said[:, number].tolist()
        return Said(shown, clicked, liked, float(self._watch_seconds[number]))
