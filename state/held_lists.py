"""Served lists that were fetched and wait for the events before them.

Flows in: batches of the log of lists. Flows out: those that came no later than the events that are applied, in order. Always holds:
what is held is not in the state, so the cut is before it. Lists and events are two topics; where a log is read anew, lists would
else be read far ahead of what followed them, and make room for others.
"""

from collections import deque

import numpy as np

from topics.record_batch import RecordBatch


class HeldLists:
    """Batches of records of a shard, oldest first."""

    def __init__(self) -> None:
        self._batches: deque[RecordBatch] = deque()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, batch: RecordBatch) -> None:
        """They were fetched."""
        if len(batch):
            self._batches.append(batch)
            self._count += len(batch)

    def take(self, until_ms: int | None, most: int) -> RecordBatch | None:
        """The first records, at most so many, that arrived by then (None: all have); None if there are none."""
        if not self._batches:
            return None
        first = self._batches[0]
        reached = len(first) if until_ms is None else int(np.searchsorted(first.timestamps, until_ms, side="right"))
        count = min(reached, most)
        if not count:
            return None
        self._count -= count
        if count == len(first):
            return self._batches.popleft()
        self._batches[0] = first[count:]
        return first[:count]
