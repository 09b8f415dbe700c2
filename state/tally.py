"""The tally of an experiment: what followed the lists of each arm, summed by buckets of users.

Flows in: lists as they become known, and what follows them. Flows out: sums by arm, bucket and measure, of all shards. Always holds:
each list counts once, from when it is known, with what has followed it so far. What is waited for is in memory only: a list that was
before its user when its worker ended keeps what had followed it by then, gets no more, and is counted as cut short. That is alike in
all arms.

A shard's part is a row of its items changelog, as those of the ranker and the heads: it is exact with the shard's cut, and every
worker reads those of all shards. It names the experiment; what another one has counted is nothing here. All numbers are whole, so
sums and differences are exact.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import xxhash

from state.experiment import BUCKETS, Experiment
from state.types import Float64Array, Int16Array, Int64Array

MEASURES = ("lists", "hits", "shown", "clicks", "positives", "watch_ms")
"""What is summed.

- `lists`: served; `hits`: those with a click
- `shown`: places that were shown: those with an impression or a click, of clients that send impressions, else all
- `clicks`: places whose video was opened, meant to be seen or positive; `positives`: those with a positive
- `watch_ms`: time that videos of the list were watched
"""
LISTS = MEASURES.index("lists")
WATCH = MEASURES.index("watch_ms")
#: One watch counts no more than four hours: a single broken clock would outweigh an arm.
LONGEST_MS = 4 * 3_600_000
#: In front of a part: the experiment, and how many lists came too late to be watched and were cut short. How many of each arm's are
#: waited for follows, then the sums.
_HEAD = 3
_LATE, _SHORT = 1, 2


class Said(NamedTuple):
    """What an event says of a video in a list: that it was `shown`, and nothing else, or the rest; NaN seconds are none."""

    shown: bool = False
    clicked: bool = False
    liked: bool = False
    watch_seconds: float = 0.0


@dataclass(slots=True)
class Followed:
    """What has followed a list of an arm.

    Attributes
    ----------
    arm, bucket : where it counts
    sends : whether the client is known to say what it shows
    shown, clicked, liked : int16, shape (n,); how many events said so of each place
    watch_ms : time that its videos were watched
    counted : float64, shape (6,); what of it is in the tally, in the order of `MEASURES`
    """

    arm: int
    bucket: int
    sends: bool
    shown: Int16Array
    clicked: Int16Array
    liked: Int16Array
    watch_ms: int = 0
    counted: Float64Array = field(default_factory=lambda: np.zeros(len(MEASURES)))

    @classmethod
    def of(cls, arm: int, bucket: int, places: int, sends: bool) -> "Followed":
        """Nothing yet."""
        shown, clicked, liked = np.zeros((3, places), np.int16)
        return cls(arm, bucket, sends, shown, clicked, liked)

    def add(self, place: int, said: Said, times: int = 1) -> None:
        """An event said something of the video at `place`; -1 times takes it back."""
        if said.shown:
            self.shown[place] += times
            return
        self.clicked[place] += times * (said.clicked or said.liked)
        self.liked[place] += times * said.liked
        if said.watch_seconds > 0.0:
            self.watch_ms += times * round(min(said.watch_seconds * 1000.0, LONGEST_MS))

    def measures(self) -> Float64Array:
        """What it counts now; float64, shape (6,)."""
        clicked, shown = self.clicked > 0, self.shown > 0
        says = self.sends or bool(shown.any())
        return np.array(
            [
                1,
                clicked.any(),
                (shown | clicked).sum() if says else len(shown),
                clicked.sum(),
                (self.liked > 0).sum(),
                self.watch_ms,
            ],
            np.float64,
        )


class Tally:
    """Sums of all shards, each shard's in a part of its own."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self._shape = len(experiment.arms), BUCKETS, len(MEASURES)
        self._sums_at = _HEAD + len(experiment.arms)
        self._size = self._sums_at + int(np.prod(self._shape))
        meaning = f"{experiment.id} {BUCKETS} {MEASURES}"
        #: Names the experiment and what its numbers mean, below 2**53: a float64 holds it.
        self.id = float((xxhash.xxh3_64_intdigest(meaning.encode()) >> 11) or 1)
        self._parts: dict[int, Float64Array] = {}

    def _own(self, number: int) -> Float64Array:
        part = self._parts.get(number)
        if part is None:
            part = self._parts[number] = np.zeros(self._size)
            part[0] = self.id
        return part

    def _sums(self, part: Float64Array) -> Float64Array:
        """A view of a part's sums."""
        return part[self._sums_at :].reshape(self._shape)

    def _waiting(self, part: Float64Array) -> Float64Array:
        """A view of how many lists of each arm are waited for."""
        return part[_HEAD : self._sums_at]

    def part(self, number: int) -> Float64Array:
        """Copy of a shard's part, float64, one-dimensional."""
        return self._own(number).copy()

    def put(self, number: int, values: Float64Array) -> bool:
        """Replace a shard's part; by nothing, and False, where it is of another experiment or not sound."""
        ours = len(values) == self._size and values[0] == self.id
        sound = ours and bool(np.isfinite(values).all() and (values >= 0.0).all())
        self._parts.pop(number, None)
        if sound:
            self._parts[number] = values.astype(np.float64)
        return sound

    def recover(self, number: int) -> bool:
        """Nobody waits any more for what follows the lists that a shard's last owner was waiting for; whether there were any."""
        part = self._own(number)
        waiting = self._waiting(part)
        short = float(waiting.sum())
        part[_SHORT] += short
        waiting[:] = 0.0
        return short > 0.0

    def open(self, number: int, followed: Followed) -> None:
        """Count a list of a shard with what has followed it, and wait for more."""
        self._waiting(self._own(number))[followed.arm] += 1.0
        self.count(number, followed)

    def count(self, number: int, followed: Followed) -> None:
        """Count what has followed a list since it was counted last."""
        measures = followed.measures()
        self._sums(self._own(number))[followed.arm, followed.bucket] += measures - followed.counted
        followed.counted = measures

    def close(self, number: int, followed: Followed) -> None:
        """What has followed a list is all that counts."""
        self._waiting(self._own(number))[followed.arm] -= 1.0

    def miss(self, number: int) -> None:
        """A list came when what could have followed it had been read."""
        self._own(number)[_LATE] += 1.0

    def sums(self, numbers: Iterable[int] | None = None) -> Float64Array:
        """Sums over shards, all that are known unless told; float64, shape (arms, BUCKETS, measures)."""
        total = np.zeros(self._shape)
        for part in self._parts.values() if numbers is None else [self._own(number) for number in numbers]:
            total += self._sums(part)
        return total

    def waiting(self) -> Int64Array:
        """Lists of each arm that are waited for, in all shards; int64, shape (arms,)."""
        total = np.zeros(self._shape[0])
        for part in self._parts.values():
            total += self._waiting(part)
        return total.astype(np.int64)

    @property
    def late(self) -> int:
        """Lists of all shards that came too late."""
        return int(sum(part[_LATE] for part in self._parts.values()))

    @property
    def short(self) -> int:
        """Lists of all shards whose worker ended before all that could follow them had come."""
        return int(sum(part[_SHORT] for part in self._parts.values()))
