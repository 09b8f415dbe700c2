"""Names of the lake's files: what is in one is known without opening it.

`{dataset}/date=YYYY-MM-DD/hour=HH/{partition}-{first}-{last}.parquet` has what is in the topic's partition from offset `first` to
`last`, both included, of which all arrived in that hour (UTC). Always holds: files of a dataset and partition do not overlap, but for
those that a larger one, merged of them, is about to replace.
"""

import datetime
import re
from collections.abc import Iterable, Iterator
from itertools import groupby, pairwise
from typing import NamedTuple

from topics.specs import DEAD, INTERACTIONS, RECOMMENDATIONS

TOPICS = (INTERACTIONS, RECOMMENDATIONS, DEAD)
#: Records that are not what their topic holds, beside the other datasets: one of its own for each topic.
REFUSED = "refused"
_PATH = re.compile(
    r"(?P<dataset>[^_.][^=]*?(?:/topic=[^/]+)?)/date=(?P<date>\d{4}-\d\d-\d\d)/hour=(?P<hour>\d\d)"
    r"/(?P<partition>\d+)-(?P<first>\d+)-(?P<last>\d+)\.parquet"
)
HOUR_MS = 3_600_000
#: Of the year 9999: folders have four digits for it, and readers count in microseconds.
LAST_MS = 253_402_300_799_999


class LakeFile(NamedTuple):
    """A file by its name; `date` and `hour` as text, as in the path."""

    dataset: str
    partition: int
    first: int
    last: int
    date: str
    hour: str

    @property
    def path(self) -> str:
        """Below the lake's address."""
        name = f"{self.partition}-{self.first}-{self.last}.parquet"
        return f"{self.dataset}/date={self.date}/hour={self.hour}/{name}"

    def covers(self, other: "LakeFile") -> bool:
        """Whether all that is in the other is in this one."""
        return self._replace(first=0, last=0) == other._replace(first=0, last=0) and (
            self.first <= other.first and other.last <= self.last
        )


def refused_dataset(topic: str) -> str:
    """Where what is refused of a topic lies."""
    return f"{REFUSED}/topic={topic}"


def hour_of(timestamp_ms: int) -> tuple[str, str]:
    """Date and hour of an arrival."""
    at = datetime.datetime.fromtimestamp(min(max(timestamp_ms, 0), LAST_MS) // 1000, datetime.UTC)
    return at.strftime("%Y-%m-%d"), at.strftime("%H")


def parse(paths: Iterable[str]) -> list[LakeFile]:
    """Those of the paths that are the lake's, by dataset, partition and offset."""
    found = [match for path in paths if (match := _PATH.fullmatch(path))]
    return sorted(
        LakeFile(
            each["dataset"], int(each["partition"]), int(each["first"]), int(each["last"]), each["date"], each["hour"]
        )
        for each in found
    )


def by_partition(files: Iterable[LakeFile]) -> Iterator[tuple[tuple[str, int], list[LakeFile]]]:
    """Files of each dataset and partition, in the order of their offsets."""
    for key, group in groupby(sorted(files), lambda file: (file.dataset, file.partition)):
        yield key, list(group)


def replaced(files: Iterable[LakeFile]) -> set[LakeFile]:
    """Files all of whose rows are in a larger one."""
    found = set()
    for _, group in by_partition(files):
        widest: LakeFile | None = None
        for file in sorted(group, key=lambda each: (each.first, -each.last)):
            if widest is not None and widest.covers(file):
                found.add(file)
            else:
                widest = file
    return found


def holes(files: Iterable[LakeFile]) -> list[tuple[int, int]]:
    """First and last offset of what is missing between files of a dataset and partition."""
    return [(a.last + 1, b.first - 1) for a, b in pairwise(sorted(files)) if b.first > a.last + 1]


def overlaps(files: Iterable[LakeFile]) -> list[LakeFile]:
    """Files that begin before the one before them ends."""
    return [b for a, b in pairwise(sorted(files)) if b.first <= a.last]
