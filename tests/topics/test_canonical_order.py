"""The canonical order against a plain merge, a record at a time, whatever the fetches were."""

from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from topics.canonical_order import NEVER, CanonicalOrder, Stream
from topics.record_batch import Record, RecordBatch
from topics.specs import INTERACTIONS, USERS, VIDEOS

Place = tuple[str, int, int]


@dataclass(frozen=True)
class Logged:
    """A record of a log; `at_ms` None: it is refused."""

    arrived_ms: int
    at_ms: int | None = 0

    def record(self, offset: int) -> Record:
        return Record(None, None if self.at_ms is None else str(self.at_ms).encode(), offset, self.arrived_ms)


Log = dict[tuple[str, int], list[Logged]]

times = st.integers(0, 12)
events = st.lists(st.builds(Logged, times, st.none() | times), max_size=12)
entries = st.lists(st.builds(Logged, times), max_size=4)
logs = st.fixed_dictionaries(
    {
        **{(INTERACTIONS, partition): events for partition in range(3)},
        **{(topic, partition): entries for topic in (VIDEOS, USERS) for partition in range(2)},
    }
)


def plain(log: Log) -> list[Place]:
    """The order as the module's docstring has it, a record at a time."""
    happened, described = [], []
    for (topic, partition), records in log.items():
        reached = NEVER
        for offset, record in enumerate(records):
            if topic == INTERACTIONS:
                reached = max(reached, NEVER if record.at_ms is None else record.at_ms)
                happened.append((reached, partition, offset, record.arrived_ms))
            else:
                reached = max(reached, record.arrived_ms)
                described.append((reached, [VIDEOS, USERS].index(topic), partition, offset))
    order: list[Place] = []
    waiting = sorted(described)
    arrived_ms = NEVER
    for _, partition, offset, came_ms in sorted(happened):
        arrived_ms = max(arrived_ms, came_ms)
        while waiting and waiting[0][0] <= arrived_ms:
            _, rank, of, at = waiting.pop(0)
            order.append(((VIDEOS, USERS)[rank], of, at))
        order.append((INTERACTIONS, partition, offset))
    return order + [((VIDEOS, USERS)[rank], of, at) for _, rank, of, at in waiting]


def read_times(batch: RecordBatch) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array([NEVER if record.value is None else int(record.value) for record in batch], np.int64)


def windows(log: Log, size: int, pieces: list[int]) -> list[list[Place]]:
    """Windows of the log, fetched in pieces of these sizes, over and over, one stream after another."""
    streams = {
        (topic, partition): Stream(topic, partition, read_times if topic == INTERACTIONS else None)
        for topic, partition in log
    }
    left = {where: [record.record(offset) for offset, record in enumerate(records)] for where, records in log.items()}
    calls = 0

    def fetch() -> None:
        nonlocal calls
        where = list(streams)[calls % len(streams)]
        count = pieces[calls % len(pieces)]
        calls += 1
        streams[where].add(RecordBatch.of(left[where][:count]))
        left[where] = left[where][count:]
        streams[where].ended = not left[where]

    order = CanonicalOrder(
        [stream for (topic, _), stream in streams.items() if topic == INTERACTIONS],
        [stream for (topic, _), stream in streams.items() if topic != INTERACTIONS],
        fetch,
    )
    found = []
    for window in order.windows(size):
        places = [(stream.topic, stream.partition, int(o)) for stream, batch in window for o in batch.offsets]
        for stream, batch in window:
            assert [record.timestamp for record in batch] == [
                log[stream.topic, stream.partition][offset].arrived_ms for offset in batch.offsets.tolist()
            ]
        found.append(places)
    return found


@given(logs, st.integers(1, 9), st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_windows_are_stretches_of_the_plain_order(log: Log, size: int, pieces: list[int]) -> None:
    order = plain(log)
    expected = [sorted(order[first : first + size]) for first in range(0, len(order), size)]
    assert [sorted(window) for window in windows(log, size, pieces)] == expected


@given(logs, st.integers(1, 9), st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_fetches_change_nothing(log: Log, size: int, pieces: list[int]) -> None:
    assert windows(log, size, pieces) == windows(log, size, [1_000])


def test_records_of_a_catalogue_come_where_they_arrived_and_refused_events_where_they_lie() -> None:
    log: Log = {
        # Event times of years ago, and one that is refused: it takes the time of the one before it.
        (INTERACTIONS, 0): [Logged(100, 5), Logged(101, None), Logged(102, 3), Logged(103, 9)],
        (INTERACTIONS, 1): [Logged(100, 4), Logged(103, 5)],
        (VIDEOS, 0): [Logged(99), Logged(102)],
        (USERS, 0): [Logged(99), Logged(104)],
    }
    order = [place for window in windows(log, 1, [1]) for place in window]
    assert order == [
        (VIDEOS, 0, 0),
        (USERS, 0, 0),
        (INTERACTIONS, 1, 0),
        (INTERACTIONS, 0, 0),
        (INTERACTIONS, 0, 1),
        (VIDEOS, 0, 1),
        (INTERACTIONS, 0, 2),
        (INTERACTIONS, 1, 1),
        (INTERACTIONS, 0, 3),
        (USERS, 0, 1),
    ]


def test_takes_over_several_fetches_keep_keys_and_values() -> None:
    stream = Stream(VIDEOS, 0)
    records = [Record(f"k{i}".encode() if i % 3 else None, None if i % 4 == 1 else b"v" * i, i, i) for i in range(20)]
    for first in range(0, 20, 3):
        stream.add(RecordBatch.of(records[first : first + 3]))
    assert list(stream.take(7)) == records[:7]
    assert list(stream.take_until(8, 100)) == records[7:9]
    assert list(stream.take_until(None, 5)) == records[9:14]
    assert list(stream.take(100)) == records[14:]
    assert not len(stream)
