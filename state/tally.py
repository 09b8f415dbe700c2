"""The tally of an experiment: what followed the lists of each arm, summed by buckets of users.

Flows in: lists as they become known, and what follows them. Flows out: sums by arm, bucket and measure, of all shards. Always holds:
each list counts once, from when it is known, with what has followed it so far; whoever takes a shard over takes back the lists that
were still waited for, whose followers they cannot tell. So what is counted has been watched for as long as any list is, and a restart
loses lists, of all arms alike, and not what followed them.

A shard's part is a row of its items changelog, as those of the ranker and the heads: it is exact with the shard's cut, and every
worker reads those of all shards. It names the experiment; what another one has counted is nothing here. All numbers are whole, so
sums and differences are exact.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import xxhash

from state.experiment import BUCKETS, Experiment
from state.types import BoolArray, Float64Array, Int64Array

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
#: In front of a part: the experiment, lists that came too late to be watched, lists that were given up.
_HEAD = 3
_LATE, _LOST = 1, 2


@dataclass(slots=True)
class Followed:
    """What has followed a list of an arm.

    Attributes
    ----------
    arm, bucket : where it counts
    says : whether the client says what it shows
    shown, clicked, liked : bool, shape (n,); of its places
    watch_ms : time that its videos were watched
    counted : float64, shape (6,); what of it is in the tally, in the order of `MEASURES`
    """

    arm: int
    bucket: int
    says: bool
    shown: BoolArray
    clicked: BoolArray
    liked: BoolArray
    watch_ms: int = 0
    counted: Float64Array = field(default_factory=lambda: np.zeros(len(MEASURES)))

    @classmethod
    def of(cls, arm: int, bucket: int, places: int, says: bool) -> "Followed":
        """Nothing yet."""
        shown, clicked, liked = np.zeros((3, places), np.bool_)
        return cls(arm, bucket, says, shown, clicked, liked)

    def saw(self, place: int) -> None:
        """The video at `place` was shown."""
        self.says = True
        self.shown[place] = True

    def did(self, place: int, clicked: bool, liked: bool, watch_seconds: float) -> None:
        """Something else followed; NaN seconds are none."""
        self.clicked[place] |= clicked or liked
        self.liked[place] |= liked
        if watch_seconds > 0.0:
            self.watch_ms += int(min(watch_seconds * 1000.0, LONGEST_MS))

    def measures(self) -> Float64Array:
        """What it counts now; float64, shape (6,)."""
        clicks = int(self.clicked.sum())
        shown = int((self.shown | self.clicked).sum()) if self.says else len(self.shown)
        return np.array([1, clicks > 0, shown, clicks, self.liked.sum(), self.watch_ms], np.float64)


class Tally:
    """Sums of all shards, each shard's in a part of its own."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self._shape = len(experiment.arms), BUCKETS, len(MEASURES)
        self._size = _HEAD + 2 * int(np.prod(self._shape))
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

    def _counts(self, part: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Views of a part: of all its lists, and of those that are waited for."""
        every, waiting = np.split(part[_HEAD:], 2)
        return every.reshape(self._shape), waiting.reshape(self._shape)

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
        """Take back the lists of a shard that its last owner was waiting for; whether there were any."""
        part = self._own(number)
        every, waiting = self._counts(part)
        lost = float(waiting[..., LISTS].sum())
        every -= waiting
        waiting[:] = 0.0
        part[_LOST] += lost
        return lost > 0.0

    def count(self, number: int, followed: Followed) -> None:
        """Count a list of a shard, or what has followed it since it was counted last."""
        measures = followed.measures()
        for counts in self._counts(self._own(number)):
            counts[followed.arm, followed.bucket] += measures - followed.counted
        followed.counted = measures

    def close(self, number: int, followed: Followed) -> None:
        """What has followed a list is all that counts."""
        _, waiting = self._counts(self._own(number))
        waiting[followed.arm, followed.bucket] -= followed.counted

    def give_up(self, number: int, followed: Followed) -> None:
        """Take a list back."""
        part = self._own(number)
        for counts in self._counts(part):
            counts[followed.arm, followed.bucket] -= followed.counted
        part[_LOST] += 1.0

    def miss(self, number: int) -> None:
        """A list came when what could have followed it had been read."""
        self._own(number)[_LATE] += 1.0

    def sums(self, numbers: Iterable[int] | None = None) -> Float64Array:
        """Sums over shards, all that are known unless told; float64, shape (arms, BUCKETS, measures)."""
        known = self._parts if numbers is None else {number: self._own(number) for number in numbers}
        total = np.zeros(self._shape)
        for part in known.values():
            total += self._counts(part)[0]
        return total

    def waiting(self) -> Int64Array:
        """Lists of each arm that are waited for, in all shards; int64, shape (arms,)."""
        total = np.zeros(self._shape[0])
        for part in self._parts.values():
            total += self._counts(part)[1][..., LISTS].sum(axis=1)
        return total.astype(np.int64)

    @property
    def late(self) -> int:
        """Lists of all shards that came too late."""
        return int(sum(part[_LATE] for part in self._parts.values()))

    @property
    def lost(self) -> int:
        """Lists of all shards that were given up."""
        return int(sum(part[_LOST] for part in self._parts.values()))
