"""Factor steps: by how much learning has moved each row since somebody last asked, summed by row.

Whoever learns sends these sums to the owners of the rows.
"""

import numpy as np

from online_models.base import FACTORS, Float32Array, Int32Array, Int64Array

#: Columns of the sums: the vector, then bias and accumulator.
WIDTH = FACTORS + 2


class FactorSteps:
    """Sums by row, in the order in which rows were first named.

    Memory: 4 bytes a row number, and 140 for each row that was named since the last `take`; bound: the number of rows.

    Attributes
    ----------
    place : int32, shape (n,); where a row's sums are, -1 for a row without
    rows, sums : int32, shape (s,); float32, shape (s, 34): q, b, acc. The first `used[0]` are in use, the others 0
    used : int64, shape (1,)
    """

    def __init__(self) -> None:
        self.place: Int32Array = np.empty(0, np.int32)
        self.rows: Int32Array = np.empty(0, np.int32)
        self.sums: Float32Array = np.empty((0, WIDTH), np.float32)
        self.used: Int64Array = np.zeros(1, np.int64)

    def __len__(self) -> int:
        return int(self.used[0])

    @property
    def size_bytes(self) -> int:
        """What the sums take when they are sent."""
        return len(self) * 4 * (1 + WIDTH)

    def expect(self, rows: int, more: int) -> None:
        """Have room for `more` rows that are not named yet, of row numbers below `rows`."""
        if rows > len(self.place):
            place = np.full(rows, -1, np.int32)
            place[: len(self.place)] = self.place
            self.place = place
        needed = min(rows, len(self) + more)
        if needed > len(self.rows):
            size = min(rows, max(needed, 2 * len(self.rows)))
            named, sums = self.rows, self.sums
            self.rows, self.sums = np.empty(size, np.int32), np.zeros((size, WIDTH), np.float32)
            self.rows[: len(named)], self.sums[: len(sums)] = named, sums

    def peek(self) -> tuple[Int32Array, Float32Array]:
        """Rows and their sums so far, as views; int32, shape (m,), and float32, shape (m, 34)."""
        return self.rows[: len(self)], self.sums[: len(self)]

    def take(self) -> tuple[Int32Array, Float32Array]:
        """As `peek`; the sums that follow begin at 0."""
        rows, sums = self.peek()
        self.place[rows] = -1
        self.used[0] = 0
        self.rows, self.sums = np.empty(0, np.int32), np.empty((0, WIDTH), np.float32)
        return rows, sums
