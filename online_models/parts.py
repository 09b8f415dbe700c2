"""What shards learn together: sums, of which each shard keeps its own part.

In: additions to a shard's part, or a part as another worker has it. Out: the total. All that lessons change are sums, so lessons
of one worker follow each other as if there were one shard only, and lessons of many workers meet as fast as their rows travel.
Always holds: the total is the sum of the parts in the order of their numbers, so that it has the same bits wherever it is made.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from online_models.base import Float32Array, Float64Array

LIMIT = 100.0
"""A lesson after which a weight would be larger is refused: the model has diverged."""
LARGEST = 1e38
"""A part whose inputs are larger in the mean is none that lessons have made."""


class Shared(Protocol):
    """Whatever each shard has a part of: how parts are written and read."""

    def part(self, number: int) -> Float64Array:
        """Copy of a shard's part, float64, one-dimensional."""

    def put(self, number: int, values: Float64Array) -> bool:
        """Replace a shard's part; False where it was not taken."""


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


class SharedModel(ABC):
    """A model that shards share: its weights are where they started plus the steps of all parts.

    A part has, in this order, the steps and the squared gradients of all weights; how many inputs lessons have seen, their sums and
    their sums of squares; and what else the model sums up.

    Parameters
    ----------
    start : floats, shape (weights,)
    inputs : how many
    rest : numbers of what else

    Attributes
    ----------
    refused : lessons and parts that were not taken because a number was not finite or too large
    """

    def __init__(self, start: Float32Array | Float64Array, inputs: int, rest: int = 0) -> None:
        self._start: Any = start
        self._inputs = inputs
        self._parts = Parts(2 * len(start) + 1 + 2 * inputs + rest)
        self.refused = 0

    @abstractmethod
    def _changed(self) -> None:
        """Derive from the total what is used."""

    def part(self, number: int) -> Float64Array:
        """Copy of a shard's part, float64, one-dimensional."""
        return self._parts.copy(number)

    def put(self, number: int, values: Float64Array) -> bool:
        """Replace a shard's part; False, and nothing changed, where it is not sound."""
        whole = values.shape == self._parts.total.shape
        if not whole or not self._is_sound(values) or not self._parts.put(number, values, self._is_bounded):
            self.refused += 1
            return False
        self._changed()
        return True

    def _is_sound(self, values: Float64Array) -> bool:
        """Whether lessons could have made the part."""
        weights = len(self._start)
        steps, squares, sums = np.split(values, [weights, 2 * weights])
        count, summed, squared, _ = np.split(sums, [1, 1 + self._inputs, 1 + 2 * self._inputs])
        most = LARGEST * max(float(count[0]), 1.0)
        return bool(
            # Another part may have gone the other way.
            (np.abs(steps) <= 2.0 * LIMIT).all()
            and (squares >= 0.0).all()
            and (squares < np.inf).all()
            and 0.0 <= count[0] < np.inf
            and (np.abs(summed) <= most).all()
            and (np.abs(squared) <= most * LARGEST).all()
        )

    def _is_bounded(self, total: Float64Array) -> bool:
        """Whether any lesson could still be taken."""
        return bool((np.abs(self._start + total[: len(self._start)]) <= LIMIT).all())
