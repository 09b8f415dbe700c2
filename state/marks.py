"""Which row or slot numbers have changed: sets of small dense integers, filled and read by the array."""

import numpy as np
from numba import njit, types

from state.distinct import distinct
from state.growth import grown_size
from state.types import BoolArray, Int32Array

#: Numbers that are kept, repeats and all, before they are reduced to distinct ones.
LONGEST = 1 << 20

_flags = types.boolean[::1]
_read = types.Array(types.int32, 1, "C", readonly=True)


@njit(types.int64(_flags, _read, types.int32[::1]), cache=True, nogil=True)
def _mark(flags: BoolArray, numbers: Int32Array, fresh: Int32Array) -> int:
    n = 0
    for i in range(numbers.shape[0]):
        if not flags[numbers[i]]:
            flags[numbers[i]] = True
            fresh[n] = numbers[i]
            n += 1
    return n


class Changed:
    """A set to which much is added and of which only all is asked. Memory: 4 MiB, or 4 bytes a number if that is more."""

    def __init__(self) -> None:
        self._parts: list[Int32Array] = []
        self._length = 0

    def add(self, numbers: Int32Array) -> None:
        """Add numbers (int32, shape (m,), repeats allowed)."""
        if not len(numbers):
            return
        self._parts.append(numbers)
        self._length += len(numbers)
        if self._length > LONGEST:
            reduced = self.take()
            self._parts, self._length = [reduced], 0

    def __bool__(self) -> bool:
        return bool(self._parts)

    def take(self) -> Int32Array:
        """All of them, each once, ascending; the set is empty then."""
        parts, self._parts, self._length = self._parts, [], 0
        rows, _ = distinct(max((int(part.max()) for part in parts), default=-1) + 1, *parts)
        return rows


class Marks:
    """A set that tells what is new to it. Memory: a byte for each number below the largest."""

    def __init__(self) -> None:
        self._flags: BoolArray = np.zeros(0, np.bool_)
        self._parts: list[Int32Array] = []

    def add(self, numbers: Int32Array) -> Int32Array:
        """Add numbers (int32, shape (m,), repeats allowed); returns those that are new, each once, in the order given."""
        if len(numbers) and (most := int(numbers.max())) >= len(self._flags):
            self._grow(most)
        fresh = np.empty(len(numbers), np.int32)
        fresh = fresh[: _mark(self._flags, numbers, fresh)]
        if len(fresh):
            self._parts.append(fresh)
        return fresh

    def add_one(self, number: int) -> bool:
        """Add a number; whether it is new."""
        if number >= len(self._flags):
            self._grow(number)
        if self._flags[number]:
            return False
        self._flags[number] = True
        self._parts.append(np.array([number], np.int32))
        return True

    def _grow(self, most: int) -> None:
        flags = np.zeros(grown_size(most + 1), np.bool_)
        flags[: len(self._flags)] = self._flags
        self._flags = flags

    def __contains__(self, number: int) -> bool:
        return number < len(self._flags) and bool(self._flags[number])

    def __bool__(self) -> bool:
        return bool(self._parts)

    def take(self) -> Int32Array:
        """All of them, ascending; the set is empty then."""
        if not self._parts:
            return np.empty(0, np.int32)
        taken = np.sort(np.concatenate(self._parts))
        self._flags[taken] = False
        self._parts.clear()
        return taken
