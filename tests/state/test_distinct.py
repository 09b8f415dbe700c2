"""Row numbers without repeats, and where each stands among them."""

import numpy as np

from state.distinct import distinct


def test_rows_are_ascending_and_each_has_its_place() -> None:
    named = np.array([[7, -1, 3], [3, 0, -1]], np.int32)
    rows, place = distinct(9, named, np.array([8, 7], np.uint32))
    assert rows.tolist() == [0, 3, 7, 8]
    assert place[rows].tolist() == [0, 1, 2, 3]


def test_nothing_named_is_nothing() -> None:
    rows, _ = distinct(3, np.full(4, -1, np.int32))
    assert rows.tolist() == []
