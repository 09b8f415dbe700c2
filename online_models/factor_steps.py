"""Factor steps: by how much learning has moved each row since somebody last asked, summed by row.

Whoever learns sends these sums to the owners of the rows. Where a row's sums are stands in a hash table (open addressing, linear
probing), so that memory goes with the rows that have moved and not with all there are.
"""

import numpy as np

from online_models.base import FACTORS, Float32Array, Int32Array, Int64Array
from online_models.kernel import i32, i64, kernel, read, void, write

#: Columns of the sums: the vector, then bias and accumulator.
WIDTH = FACTORS + 2
#: Spreads row numbers over the table (Knuth 1973, 6.4: 2^32 divided by the golden ratio).
SPREAD = 2654435769


@kernel(void, write(i32), read(i32), i64)
def _enter(table: Int32Array, rows: Int32Array, spread: int) -> None:
    mask = table.shape[0] - 1
    for at in range(rows.shape[0]):
        place = ((rows[at] * spread) >> 7) & mask
        while table[place] >= 0:
            place = (place + 1) & mask
        table[place] = at


class FactorSteps:
    """Sums by row, in the order in which rows were first named.

    Memory: about 160 bytes for each row that was named since the last `take`; bound: the number of rows.

    Attributes
    ----------
    table : int32, shape (t,), a power of two above twice the rows; numbers of sums at the places of their rows, -1: free
    rows, sums : int32, shape (s,); float32, shape (s, 34): q, b, acc. The first `used[0]` are in use, the others 0
    used : int64, shape (1,)
    """

    def __init__(self) -> None:
        self.used: Int64Array = np.zeros(1, np.int64)
        self._empty()

    def _empty(self) -> None:
        self.table: Int32Array = np.full(2, -1, np.int32)
        self.rows: Int32Array = np.empty(0, np.int32)
        self.sums: Float32Array = np.empty((0, WIDTH), np.float32)
        self.used[0] = 0

    def __len__(self) -> int:
        return int(self.used[0])

    @property
    def size_bytes(self) -> int:
        """What the sums take when they are sent."""
        return len(self) * 4 * (1 + WIDTH)

    def expect(self, rows: int, more: int) -> None:
        """Have room for `more` rows that are not named yet, of row numbers below `rows`."""
        needed = min(rows, len(self) + more)
        if needed <= len(self.rows):
            return
        size = min(rows, max(needed, 2 * len(self.rows)))
        n, named, sums = len(self), self.rows, self.sums
        self.rows, self.sums = np.empty(size, np.int32), np.zeros((size, WIDTH), np.float32)
        self.rows[:n], self.sums[:n] = named[:n], sums[:n]
        self.table = np.full(1 << (2 * size).bit_length(), -1, np.int32)
        _enter(self.table, self.rows[:n], SPREAD)

    def peek(self) -> tuple[Int32Array, Float32Array]:
        """Rows and their sums so far, as views; int32, shape (m,), and float32, shape (m, 34)."""
        return self.rows[: len(self)], self.sums[: len(self)]

    def take(self) -> tuple[Int32Array, Float32Array]:
        """As `peek`; the sums that follow begin at 0."""
        taken = self.peek()
        self._empty()
        return taken
