"""From 64-bit codes of videos to their rows: a hash table of row numbers alone.

A dict of Python integers would take ten times the memory. The codes themselves stand in the caller's array, by row. Open
addressing with linear probing; codes are hashes already, so their low bits (the lowest is always 0) are the place to begin.
"""

import numpy as np
from numba import njit

from state.types import Int32Array, UInt64Array

_EMPTY, _LEFT = -1, -2


@njit(cache=True, nogil=True)
def _find(table: Int32Array, codes: UInt64Array, wanted: UInt64Array, found: Int32Array) -> None:
    mask = np.uint64(table.shape[0] - 1)
    for i in range(wanted.shape[0]):
        place = (wanted[i] >> np.uint64(1)) & mask
        found[i] = -1
        while table[place] != _EMPTY:
            row = table[place]
            if row >= 0 and codes[row] == wanted[i]:
                found[i] = row
                break
            place = (place + np.uint64(1)) & mask


@njit(cache=True, nogil=True)
def _put(table: Int32Array, codes: UInt64Array, rows: Int32Array) -> None:
    mask = np.uint64(table.shape[0] - 1)
    for i in range(rows.shape[0]):
        place = (codes[rows[i]] >> np.uint64(1)) & mask
        while table[place] >= 0:
            place = (place + np.uint64(1)) & mask
        table[place] = rows[i]


@njit(cache=True, nogil=True)
def _drop(table: Int32Array, codes: UInt64Array, row: int) -> None:
    mask = np.uint64(table.shape[0] - 1)
    place = (codes[row] >> np.uint64(1)) & mask
    while table[place] != _EMPTY:
        if table[place] == row:
            table[place] = _LEFT
            return
        place = (place + np.uint64(1)) & mask


class CodeTable:
    """Rows by code. The caller holds the codes (uint64, by row), and hands the same array to every call."""

    def __init__(self) -> None:
        self._table: Int32Array = np.full(2048, _EMPTY, np.int32)
        self._used = 0

    def find(self, codes: UInt64Array, wanted: UInt64Array) -> Int32Array:
        """Rows of the codes `wanted` (uint64, (m,)); int32, (m,), -1 for those that have none."""
        found = np.empty(len(wanted), np.int32)
        _find(self._table, codes, wanted, found)
        return found

    def add(self, codes: UInt64Array, rows: Int32Array) -> None:
        """Add rows whose codes are not in the table."""
        self._used += len(rows)
        if 3 * self._used > 2 * len(self._table):
            # Anew, so that the places of dropped rows are free again.
            held = np.concatenate([self._table[self._table >= 0], rows])
            self._used = len(held)
            self._table = np.full(1 << int(3 * self._used // 2).bit_length(), _EMPTY, np.int32)
            rows = held
        _put(self._table, codes, rows)

    def drop(self, codes: UInt64Array, row: int) -> None:
        """Take a row out; its code must still be in place."""
        _drop(self._table, codes, row)
