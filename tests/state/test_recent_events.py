"""The ring of the latest events: whose they are, in order, and bounded."""

import numpy as np
import pytest

from state import recent_events
from state.recent_events import Applied, RecentEvents
from state.tally import Followed, Said


def events(first: int, n: int, users: int = 3) -> Applied:
    numbers = np.arange(first, first + n)
    return Applied(
        [b"u%d" % (number % users) for number in numbers],
        numbers * 10,
        numbers * 10 - 1,
        numbers.astype(np.uint64),
        numbers % 2 == 0,
        numbers % 3 == 0,
        numbers % 5 == 0,
        numbers / 4.0,
    )


@pytest.mark.parametrize("step", [1, 3, 7])
def test_the_latest_events_of_a_user_are_found_in_order(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    monkeypatch.setattr(recent_events, "CAPACITY", 20)
    recent = RecentEvents()
    assert recent.since_ms == 0
    assert recent.of(b"u1", 0) == []
    for first in range(0, 84, step):
        recent.add(events(first, step), {})
        last = first + step
        kept = range(max(0, last - 20), last)
        assert recent.since_ms == kept[0] * 10
        for since_ms in (0, 10 * last - 95):
            found = [int(recent.codes[number]) for number in recent.of(b"u1", since_ms)]
            assert found == [number for number in kept if number % 3 == 1 and number * 10 >= since_ms]
    assert recent.of(b"nobody", 0) == []


def test_what_an_event_says_and_followed_goes_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_events, "CAPACITY", 6)
    recent, followed = RecentEvents(), Followed.of(0, 0, 3, False)
    recent.add(events(0, 4), {2: (followed, 1)})
    [_, number] = recent.of(b"u0", 0)
    assert recent.said(number) == Said(False, True, False, 0.75)
    [number] = recent.of(b"u2", 0)
    assert recent.said(number) == Said(True, False, False, 0.5)
    assert recent.joined[number] == (followed, 1)
    assert recent.at_ms[number] == 19
    recent.add(events(4, 6), {})
    assert not recent.joined, "another event is in its place"
