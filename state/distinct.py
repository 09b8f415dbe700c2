"""Which row numbers a batch names, without sorting: row numbers are dense, so a table of all of them is cheaper."""

import numpy as np

from state.types import AnyArray, Int32Array


def distinct(size: int, *named: AnyArray) -> tuple[Int32Array, Int32Array]:
    """The row numbers in arrays of any shape.

    Parameters
    ----------
    size : every row number is below it
    named : integer arrays of row numbers; negative ones name no row

    Returns
    -------
    rows : int32, shape (m,); ascending, each once
    place : int32, shape (size,); `rows[place[row]] == row` for those rows, undefined for others
    """
    used = np.zeros(size, np.bool_)
    for numbers in named:
        used[numbers[numbers >= 0]] = True
    rows = np.flatnonzero(used).astype(np.int32)
    place = np.empty(size, np.int32)
    place[rows] = np.arange(len(rows), dtype=np.int32)
    return rows, place
