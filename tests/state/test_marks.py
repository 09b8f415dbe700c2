"""Sets of changed rows and slots, against Python's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from state import marks
from state.marks import Changed, Marks

batches = st.lists(st.lists(st.integers(0, 3_000), max_size=20), max_size=12)


@given(batches)
def test_marks_tell_what_is_new_each_once(drawn: list[list[int]]) -> None:
    made, expected = Marks(), set[int]()
    for numbers in drawn:
        fresh = made.add(np.array(numbers, np.int32)).tolist()
        assert fresh == [n for n in dict.fromkeys(numbers) if n not in expected]
        expected |= set(numbers)
        one = len(expected) * 7
        assert made.add_one(one) == (one not in expected)
        expected.add(one)
        assert all(n in made for n in expected)
    assert 9_999_999 not in made
    assert made.take().tolist() == sorted(expected)
    assert (bool(made), made.take().tolist()) == (False, [])
    assert made.add(np.array([5, 5], np.int32)).tolist() == [5]


@given(batches)
def test_changed_gives_all_each_once(drawn: list[list[int]]) -> None:
    made = Changed()
    for numbers in drawn:
        made.add(np.array(numbers, np.int32))
    expected = sorted({n for numbers in drawn for n in numbers})
    assert bool(made) == bool(expected)
    assert made.take().tolist() == expected
    assert not made


def test_what_is_added_again_and_again_takes_no_more_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "LONGEST", 1_000)
    made = Changed()
    for _ in range(500):
        made.add(np.arange(100, dtype=np.int32))
        assert sum(map(len, made._parts)) <= 1_100
    assert made.take().tolist() == list(range(100))
