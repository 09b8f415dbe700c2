"""What was shown to users and is waited for: exposures whose outcome is not known yet, and the lists that they came from.

Flows in: exposures and served lists with their inputs, then events. Flows out: what followed each exposure, once its window is
over. Always holds: nothing in here is needed for exact state; it is lost with the process, and a lesson that lost its exposure is not
learned at all, so nothing is taken for "nothing followed" that was not waited for. Bounds: CAPACITY exposures and LISTS lists a
shard, the oldest are over first.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from online_models.heads import HEADS
from state.tally import Followed, Said
from state.types import BoolArray, Float32Array, Float64Array, UInt64Array

#: How long an exposure is waited for, in the stream's own time: a like comes while a video plays or soon after.
WINDOW_MS = 600_000
CAPACITY = 16_384
#: A list is taken for what a user has before them for so long, and so many of them.
LIST_WINDOW_MS = 1_800_000
#: How far an event's time may be before that of the list that it follows: clocks differ.
SKEW_MS = 60_000
LISTS = 8_192
LISTS_A_USER = 3

LONG_VIEW, LIKE, CLICK, SKIP, WATCH_SHARE = range(len(HEADS))


@dataclass(slots=True)
class Exposure:
    """A video that was shown to a user.

    Attributes
    ----------
    slot, key : the user's, who may have left the slot since
    row, code : the video's row and hash
    opened_ms : the stream's time when it was shown
    inputs : float32, shape (44,); as `online_models.heads` makes them, of before it was shown
    outcomes : float64, shape (5,), in the order of `HEADS`; so far
    """

    slot: int
    key: bytes
    row: int
    code: int
    opened_ms: int
    inputs: Float32Array
    outcomes: Float64Array = field(default_factory=lambda: np.zeros(len(HEADS)))


class Exposures:
    """Exposures by user and video, the longest known first."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[tuple[int, int], Exposure] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def open(self, exposure: Exposure) -> bool:
        """Wait for what follows; False where the same is waited for already, which goes on."""
        pair = exposure.slot, exposure.row
        held = self._waiting.get(pair)
        if held is not None and held.key == exposure.key:
            return False
        self._waiting.pop(pair, None)
        self._waiting[pair] = exposure
        return True

    def find(self, slot: int, row: int) -> Exposure | None:
        """The exposure of the video to the user in `slot`, if it is waited for."""
        return self._waiting.get((slot, row))

    def over(self, now_ms: int) -> Iterator[Exposure]:
        """Take out what is no longer waited for at `now_ms`, in the stream's time; also what is above the bound."""
        while self._waiting:
            first = next(iter(self._waiting.values()))
            if first.opened_ms >= now_ms - WINDOW_MS and len(self._waiting) <= CAPACITY:
                return
            yield self._waiting.popitem(last=False)[1]


@dataclass(slots=True)
class ServedList:
    """A list as it was served.

    Attributes
    ----------
    at_ms : when it was served
    arrived_ms : when the log had it, by the broker's clock
    codes : uint64, shape (n,); hashes of its videos, best first
    inputs : float32, shape (n, 44); as `online_models.heads` made them for serving; None if they were not logged
    engaged : bool, shape (n,); something but an impression followed
    impressions : whether the client says what it shows
    first : places before it, in earlier pages
    followed : what the experiment's tally knows of it; None where it is in none
    """

    at_ms: int
    arrived_ms: int
    codes: UInt64Array
    inputs: Float32Array | None
    engaged: BoolArray
    impressions: bool = False
    first: int = 0
    followed: Followed | None = None

    def was_there(self, at_ms: int) -> bool:
        """Whether the user can have had it before them at `at_ms`."""
        return -SKEW_MS <= at_ms - self.at_ms <= LIST_WINDOW_MS

    def place_of(self, code: int) -> int:
        """Where the video stands, -1 if it does not."""
        found = np.flatnonzero(self.codes == np.uint64(code))
        return int(found[0]) if len(found) else -1

    def note(self, place: int, said: Said) -> None:
        """Note what an event says of one of the places."""
        if said.shown:
            self.impressions = True
        else:
            self.engaged[place] = True
        if self.followed is not None:
            self.followed.add(place, said)


class ServedLists:
    """The latest lists of users, the longest known first."""

    def __init__(self) -> None:
        self._of_user: dict[bytes, deque[ServedList]] = {}
        self._order: deque[tuple[bytes, ServedList]] = deque()

    def __len__(self) -> int:
        return len(self._order)

    def add(self, key: bytes, served: ServedList) -> None:
        """A list was served to the user with this id."""
        held = self._of_user.setdefault(key, deque(maxlen=LISTS_A_USER))
        held.append(served)
        self._order.append((key, served))

    def has(self, key: bytes) -> bool:
        """Whether the user with this id has any list."""
        return key in self._of_user

    def forget(self, key: bytes) -> None:
        """Nothing that follows is joined with what the user with this id was served."""
        self._of_user.pop(key, None)

    def left_alone(self, key: bytes) -> list[UInt64Array]:
        """Of each list that the user with this id has had lately, hashes (uint64) of the videos that nothing followed."""
        return [served.codes[~served.engaged] for served in self._of_user.get(key, ())]

    def find(self, key: bytes, code: int, at_ms: int) -> tuple[ServedList, int] | None:
        """The user's latest list that has the video and was before them at `at_ms`, and its place there."""
        for served in reversed(self._of_user.get(key, ())):
            # Where all is read anew, lists may come long before the events that followed them, and after.
            if not served.was_there(at_ms):
                continue
            place = served.place_of(code)
            if place >= 0:
                return served, place
        return None

    def over(self, now_ms: int) -> Iterator[ServedList]:
        """Take out lists that nobody has before them any more, and those above the bound.

        Parameters
        ----------
        now_ms : when the latest event that is applied arrived, by the broker's clock, which lists have too: a log that is replayed,
            or whose events are of another year, keeps each list for as long as it was kept when it was served
        """
        while self._order:
            key, served = self._order[0]
            if served.arrived_ms >= now_ms - LIST_WINDOW_MS and len(self._order) <= LISTS:
                return
            self._order.popleft()
            held = self._of_user.get(key)
            # One that newer lists have pushed out is not there any more.
            if held is not None and held[0] is served:
                held.popleft()
                if not held:
                    del self._of_user[key]
            yield served
