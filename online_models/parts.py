"""What shards learn together: sums, of which each shard keeps its own part.

In: additions to a shard's part, or a part as another worker has it. Out: the total. All that lessons change are sums, so lessons
of one worker follow each other as if there were one shard only, and lessons of many workers meet as fast as their rows travel.
Always holds: the total is the sum of the parts in the order of their numbers, so that it has the same bits wherever it is made.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from online_models.base import Float64Array


class Shared(Protocol):
    """A model that shards share as a sum of parts."""

    def part(self, number: int) -> Float64Array:
        """Copy of a shard's part, float64, one-dimensional."""

    def put(self, number: int, values: Float64Array) -> bool:
        """Replace a shard's part; False, and nothing changed, where it is not sound."""


class Parts:
    """Parts by shard, and their total.

    Parameters
    ----------
    size : numbers of a part

    Attributes
    ----------
    total : float64, shape (size,); a lesson adds to it and to the part alike
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._parts: dict[int, Float64Array] = {}
        self.total = np.zeros(size)

    def own(self, number: int) -> Float64Array:
        """The part of shard `number` itself, for a lesson to change; float64, shape (size,)."""
        return self._parts.setdefault(number, np.zeros(self._size))

    def copy(self, number: int) -> Float64Array:
        """Copy of a shard's part, zeros if it has learned nothing."""
        return self._parts.get(number, np.zeros(self._size)).copy()

    def put(self, number: int, values: Float64Array, sound: Callable[[Float64Array], bool]) -> bool:
        """Replace a part; False, and nothing changed, where its shape is wrong or `sound` refuses the total that it would make."""
        if values.shape != (self._size,):
            return False
        parts = {**self._parts, number: values.astype(np.float64)}
        total = np.sum([parts[each] for each in sorted(parts)], axis=0)
        if not sound(total):
            return False
        self._parts, self.total = parts, total
        return True
