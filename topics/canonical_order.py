"""The canonical order of a log: one sequence of the records of all partitions, which the log alone decides.

Flows in: partitions of `interactions`, `videos` and `users`, each in offset order, fetched in any pieces. Flows out: windows, each a
fixed number of records of the sequence, the last one what is left. Always holds: how records were fetched changes nothing.

1. Within a partition records come by offset.
2. Partitions of `interactions` are merged by the running maximum of `at_ms`: the largest event time of the partition's records up to
   and including this one. A record that is refused has no event time and takes the maximum before it. Ties: partition, offset.
3. Partitions of `videos` and `users` are merged by the running maximum of the arrival time (the record's timestamp). Ties: `videos`
   first, then partition, then offset.
4. A record of the catalogue (3) comes before the first interaction (2) at which the arrival times of the interactions so far have
   reached its own, and after all interactions where none has.

5. What users did who have been erased since is not part of it, if the erasures are known: events and lists of up to then.

Event time alone would not do for 4: a log of years ago that is read in today has its catalogue of today.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from topics.erasures import Erasures
from topics.event_columns import read_events
from topics.interactions import decode
from topics.record_batch import RecordBatch
from topics.rejected import Rejected
from topics.specs import INTERACTIONS, USERS, VIDEOS

Int64Array = NDArray[np.int64]
#: Ranks of the inputs in a window: what is known of videos and users is known when they are met.
CATALOGUE = (VIDEOS, USERS)
#: Before any time there is: a partition that begins with refused records comes first.
NEVER = np.iinfo(np.int64).min


class Stream:
    """One partition of one topic: records that were fetched and not taken yet.

    Parameters
    ----------
    times : gives the times (int64, shape (n,)) of a batch, NEVER for none; what the stream is merged by is their running maximum
    erasures : of the users that are the records' keys; what has a time of before is as if it were not there
    """

    def __init__(
        self,
        topic: str,
        partition: int,
        times: Callable[[RecordBatch], Int64Array] | None = None,
        erasures: Erasures | None = None,
    ) -> None:
        self.topic, self.partition = topic, partition
        self.ended = False
        self._times = times or (lambda batch: batch.timestamps)
        self._erasures = erasures
        self._reached = NEVER
        self._batches: list[RecordBatch] = []
        self._keys: Int64Array = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, batch: RecordBatch) -> None:
        """They were fetched."""
        if not len(batch):
            return
        times = self._times(batch)
        if self._erasures is not None and len(self._erasures):
            # A record that is refused has no time, and stays: it is counted as one.
            gone = (times != NEVER) & (times <= self._erasures.until(batch.keys()))
            if gone.all():
                return
            if gone.any():
                batch, times = batch.where(~gone), times[~gone]
        keys = np.maximum.accumulate(np.concatenate([[self._reached], times]))[1:]
        self._reached = int(keys[-1])
        self._batches.append(batch)
        self._keys = np.concatenate([self._keys, keys])

    def has(self, n: int) -> bool:
        """Whether the next `n` records are known, or all there are."""
        return self.ended or len(self) >= n

    def has_until(self, key: int) -> bool:
        """Whether all records of at most this key are known."""
        return self.ended or bool(len(self) and self._keys[-1] > key)

    def keys(self, n: int) -> Int64Array:
        """What the next records, at most `n`, are merged by; int64, ascending."""
        return self._keys[:n]

    def arrivals(self, n: int) -> Int64Array:
        """When the next records, at most `n`, arrived; int64, ms."""
        found: list[Int64Array] = [np.empty(0, np.int64)]
        for batch in self._batches:
            if n <= 0:
                break
            found.append(batch.timestamps[:n])
            n -= len(batch)
        return np.concatenate(found)

    def take(self, n: int) -> RecordBatch:
        """The next records, at most `n`, as one batch."""
        self._keys = self._keys[n:]
        taken: list[RecordBatch] = []
        while self._batches and n > 0:
            first = self._batches.pop(0)
            if len(first) > n:
                self._batches.insert(0, first[n:])
                first = first[:n]
            taken.append(first)
            n -= len(first)
        return RecordBatch.joined(taken) if taken else RecordBatch.of(())

    def take_until(self, key: int | None, most: int) -> RecordBatch:
        """The next records, at most `most`, of at most this key; None: whatever theirs is."""
        count = len(self) if key is None else int(np.searchsorted(self._keys, key, side="right"))
        return self.take(min(count, most))


def event_stream(partition: int, partitions: int, future_tolerance_ms: int, erasures: Erasures | None = None) -> Stream:
    """A partition of `interactions`; what is refused has no time."""

    def times(batch: RecordBatch) -> Int64Array:
        found = read_events(batch, partition=partition, partitions=partitions, future_tolerance_ms=future_tolerance_ms)
        at_ms = found.at_ms
        for i in np.flatnonzero(found.odd).tolist():
            record = batch[i]
            try:
                at_ms[i] = decode(
                    record.key,
                    record.value,
                    record.timestamp,
                    partition=partition,
                    partitions=partitions,
                    future_tolerance_ms=future_tolerance_ms,
                ).at_ms
            except Rejected:
                at_ms[i] = NEVER
        return at_ms

    return Stream(INTERACTIONS, partition, times, erasures)


class CanonicalOrder:
    """Cuts windows of the canonical order.

    Parameters
    ----------
    events, catalogue : streams of `interactions`, and of `videos` and `users`
    fetch : adds records to streams or ends them; called until those that a window needs are known
    """

    def __init__(self, events: Sequence[Stream], catalogue: Sequence[Stream], fetch: Callable[[], None]) -> None:
        self._events = sorted(events, key=lambda stream: stream.partition)
        self._catalogue = sorted(catalogue, key=lambda stream: (CATALOGUE.index(stream.topic), stream.partition))
        self._fetch = fetch
        self._arrived_ms = NEVER

    def windows(self, size: int) -> Iterator[list[tuple[Stream, RecordBatch]]]:
        """Consecutive stretches of `size` records, the last one shorter: the records of each stream, those of the catalogue first."""
        while window := self._window(size):
            yield window

    def _window(self, size: int) -> list[tuple[Stream, RecordBatch]]:
        streams = [*self._catalogue, *self._events]
        while not all(stream.has(size) for stream in streams):
            self._fetch()
        described, described_of = _merged(self._catalogue, size)
        happened, happened_of = _merged(self._events, size)
        arrivals = np.concatenate([stream.arrivals(size) for stream in self._events])[happened]
        reached = np.maximum.accumulate(np.concatenate([[self._arrived_ms], arrivals]))[1:]
        came = np.concatenate([stream.keys(size) for stream in self._catalogue] or [np.empty(0, np.int64)])[described]
        # Interactions before each record of the catalogue; it comes after these and after the records of the catalogue before it.
        before = np.searchsorted(reached, came, side="left")
        of_catalogue = int((before + np.arange(len(came)) < size).sum())
        of_events = min(len(happened), size - of_catalogue)
        if of_events:
            self._arrived_ms = int(reached[of_events - 1])
        counts = [
            *np.bincount(described_of[:of_catalogue], minlength=len(self._catalogue)).tolist(),
            *np.bincount(happened_of[:of_events], minlength=len(self._events)).tolist(),
        ]
        return [(stream, stream.take(count)) for stream, count in zip(streams, counts, strict=True) if count]


def _merged(streams: Sequence[Stream], size: int) -> tuple[Int64Array, Int64Array]:
    """The first `size` records of the merged streams: places among the first `size` of each, side by side, and numbers of streams."""
    heads = [stream.keys(size) for stream in streams]
    keys = np.concatenate([np.empty(0, np.int64), *heads])
    numbers = np.repeat(np.arange(len(heads)), [len(head) for head in heads])
    # Stable, so ties go by stream and then by offset.
    order = np.argsort(keys, kind="stable")[:size].astype(np.int64)
    return order, numbers[order].astype(np.int64)
