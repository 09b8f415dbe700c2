"""Records that wait to become files, and when they do: at the end of an hour, at a number of rows or bytes, or after a while.

Always holds: what waits of a partition is one range of its offsets, all of which arrived in the same hour, so a range is one file; and
all partitions together hold no more than `Bounds.bytes_`, but for one record.
"""

import time
from dataclasses import dataclass, field

from ingestion.lake.files import HOUR_MS
from ingestion.lake.store import Place
from ingestion.lake.tables import Taken


@dataclass(frozen=True)
class Bounds:
    """When a range ends.

    Attributes
    ----------
    rows : of one partition
    bytes_ : in memory, of all partitions together; then the largest range ends
    seconds : since its first record came
    """

    rows: int = 100_000
    bytes_: int = 128 * 1024 * 1024
    seconds: float = 60.0


DEFAULT_BOUNDS = Bounds()


@dataclass
class Range:
    """What waits of a partition.

    Attributes
    ----------
    first : offset at which it begins
    begun : last offset, where somebody has begun the range before: then it ends there, and nowhere else
    since : when its first record came, by the monotonic clock
    """

    first: int
    begun: int | None = None
    records: list[Taken] = field(default_factory=list)
    size_bytes: int = 0
    since: float = 0.0

    def ends_before(self, record: Taken) -> bool:
        """Whether a record belongs to the next range."""
        if self.begun is not None:
            return record.offset > self.begun
        return bool(self.records) and record.timestamp // HOUR_MS != self.records[-1].timestamp // HOUR_MS

    def add(self, record: Taken) -> None:
        """One more."""
        if not self.records:
            self.since = time.monotonic()
        self.records.append(record)
        self.size_bytes += record.size_bytes

    def is_over(self, bounds: Bounds) -> bool:
        """Whether it ends with what it has."""
        if not self.records:
            return False
        if self.begun is not None:
            return self.records[-1].offset >= self.begun
        return len(self.records) >= bounds.rows or time.monotonic() - self.since >= bounds.seconds

    @property
    def may_end(self) -> bool:
        """Whether it can end now: one that was begun before ends where it was to end."""
        return bool(self.records) and (self.begun is None or self.records[-1].offset >= self.begun)


def largest(ranges: dict[Place, Range]) -> Place | None:
    """Of those that can end, the one that takes most memory."""
    return max((place for place in ranges if ranges[place].may_end), key=lambda p: ranges[p].size_bytes, default=None)
