"""Lists wait for the events before them, in order, however they were fetched."""

import random

from state.held_lists import HeldLists
from topics.record_batch import Record, RecordBatch


def batch(*arrivals: int, first: int = 0) -> RecordBatch:
    return RecordBatch.of([Record(b"u", b"v", first + n, at) for n, at in enumerate(arrivals)])


def taken(held: HeldLists, until_ms: int | None, most: int = 100) -> list[int]:
    found = held.take(until_ms, most)
    return [] if found is None else found.timestamps.tolist()


def test_lists_go_once_their_time_has_come_and_no_more_at_once_than_may() -> None:
    held = HeldLists()
    assert taken(held, None) == []
    held.add(batch(10, 20, 20, 30))
    held.add(batch())
    held.add(batch(40))
    assert len(held) == 5
    assert taken(held, 9) == []
    assert taken(held, 20, most=2) == [10, 20]
    assert taken(held, 20) == [20]
    assert taken(held, 29) == []
    assert taken(held, None) == [30]
    assert taken(held, None) == [40]
    assert len(held) == 0


def test_none_is_lost_and_none_comes_twice() -> None:
    rng, held = random.Random(2), HeldLists()
    arrivals: list[int] = []
    found: list[int] = []
    at = 0
    for _ in range(200):
        fresh = []
        for _ in range(rng.randrange(5)):
            at += rng.randrange(3)
            fresh.append(at)
        held.add(batch(*fresh, first=len(arrivals)))
        arrivals += fresh
        while some := taken(held, at - 10, rng.randrange(1, 6)):
            found += some
    assert found == [each for each in arrivals if each <= at - 10]
    while some := taken(held, None, 7):
        found += some
    assert found == arrivals
