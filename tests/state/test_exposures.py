"""Exposures and lists that are waited for: who finds what, what is over when, and that both are bounded."""

import numpy as np
import pytest

from online_models.heads import INPUTS
from state import exposures
from state.exposures import LIST_WINDOW_MS, SKEW_MS, WINDOW_MS, Exposure, Exposures, ServedList, ServedLists

NOW = 1_700_000_000_000
NO_INPUTS = np.zeros(len(INPUTS), np.float32)


def shown(slot: int, row: int, at: int = NOW, key: bytes = b"u") -> Exposure:
    return Exposure(slot, key, row, 2 * row + 2, at, NO_INPUTS)


def served(*codes: int, at: int = NOW) -> ServedList:
    return ServedList(at, at, np.array(codes, np.uint64), None, np.zeros(len(codes), np.bool_))


def test_an_exposure_is_found_until_its_window_is_over() -> None:
    held = Exposures()
    assert held.open(shown(1, 2))
    assert held.find(1, 2) is not None
    assert held.find(1, 3) is None
    assert list(held.over(NOW + WINDOW_MS)) == []
    [over] = held.over(NOW + WINDOW_MS + 1)
    assert (over.slot, over.row) == (1, 2)
    assert held.find(1, 2) is None
    assert len(held) == 0


def test_the_same_again_goes_on() -> None:
    held = Exposures()
    held.open(shown(1, 2))
    assert not held.open(shown(1, 2, NOW + 5))
    assert len(held) == 1


def test_another_user_in_the_slot_is_another_exposure() -> None:
    held = Exposures()
    held.open(shown(1, 2, key=b"gone"))
    assert held.open(shown(1, 2, key=b"new"))
    found = held.find(1, 2)
    assert found is not None
    assert found.key == b"new"
    assert len(held) == 1


def test_exposures_are_bounded_and_the_oldest_are_over_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposures, "CAPACITY", 10)
    held = Exposures()
    over = []
    for n in range(25):
        held.open(shown(n, 1))
        over += [each.slot for each in held.over(NOW)]
    assert len(held) == 10
    assert over == list(range(15))


def test_the_latest_list_with_the_video_is_found() -> None:
    lists = ServedLists()
    lists.add(b"u", served(2, 4, 6))
    lists.add(b"u", served(8, 4, at=NOW + 1_000))
    lists.add(b"other", served(6, at=NOW + 2_000))
    found = lists.find(b"u", 4, NOW + 5_000)
    assert found is not None
    assert found[0].at_ms == NOW + 1_000
    assert found[1] == 1
    assert lists.find(b"u", 6, NOW + 5_000) is not None
    assert lists.find(b"u", 10, NOW + 5_000) is None
    assert lists.find(b"nobody", 2, NOW) is None


def test_a_list_of_another_time_is_not_what_the_event_followed() -> None:
    lists = ServedLists()
    lists.add(b"u", served(2))
    assert lists.find(b"u", 2, NOW - SKEW_MS - 1) is None, "it was not served yet"
    assert lists.find(b"u", 2, NOW - SKEW_MS) is not None
    assert lists.find(b"u", 2, NOW + LIST_WINDOW_MS) is not None
    assert lists.find(b"u", 2, NOW + LIST_WINDOW_MS + 1) is None


def test_lists_are_bounded_in_all_and_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposures, "LISTS", 50)
    lists = ServedLists()
    over = 0
    for n in range(200):
        lists.add(b"u%d" % (n % 7), served(2 * n + 2, at=NOW + n))
        over += len(list(lists.over(NOW)))
    assert len(lists) == 50
    assert over == 150
    assert sum(len(held) for held in lists._of_user.values()) <= 7 * exposures.LISTS_A_USER
    assert len(list(lists.over(NOW + 10 * LIST_WINDOW_MS))) == 50
    assert len(lists) == 0
    assert not lists._of_user
