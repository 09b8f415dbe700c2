"""Popularity: how often each item was chosen, in all and lately.

In: rows, weights and times of positive events. Out: counts that fade with half-lives of 300, 3,000 and 30,000 ticks.
A row's decayed counts are kept as of its own reference time `decayed_at`, its latest event's, and are brought forward
when read. Additions commute up to float rounding: an older event is scaled down to the reference, so nothing can
overflow.
"""

from typing import ClassVar

import numpy as np

from online_models.base import (
    ColumnSpec,
    Context,
    Float32Array,
    Float64Array,
    Int32Array,
    Int64Array,
    ItemModel,
    accepted,
)
from online_models.kernel import f32, f64, i32, i64, kernel, part, read, void, write

HALF_LIVES = (300.0, 3_000.0, 30_000.0)
"""In ticks. Days of a small site, hours of a large one; the best differs by data set, so all three are kept."""

SHOWN_HALF_LIVES = 2
"""How many of them count what was shown."""

COUNT_FLOOR = 0.1
"""Added to a decayed count under the logarithm: a new item ranks as one with a tenth of an event."""

NEVER = -1
"""`first_ms` and `last_ms` of an item without events."""


LONG_AGO = 100.0
"""Half-lives after which a count no longer fades: 1e-30 of it is left, and less would be slow denormal floats."""


@part
def _add(
    counts: Float32Array,
    at: Float64Array,
    row: int,
    ticks: float,
    weight: float,
    half_lives: Float64Array,
    fresh: bool,
) -> None:
    """Add `weight` to each of a row's fading counts, which are as of `at`; the first one sets their time."""
    step = ticks - at[row]
    if fresh:
        step = 0.0
        at[row] = ticks
    for c in range(counts.shape[1]):
        if step >= 0.0:
            counts[row, c] = counts[row, c] * 2.0 ** (-step / half_lives[c]) + weight
        else:
            counts[row, c] += weight * 2.0 ** (step / half_lives[c])
    if step > 0.0:
        at[row] = ticks


@kernel(
    i64,
    write(f64),
    write(f32, 2),
    write(f64),
    write(i64),
    write(i64),
    read(i32),
    read(f64),
    read(f64),
    read(i64),
    read(f64),
)
def _apply(
    plays: Float64Array,
    decayed: Float32Array,
    decayed_at: Float64Array,
    first_ms: Int64Array,
    last_ms: Int64Array,
    rows: Int32Array,
    weights: Float64Array,
    ticks: Float64Array,
    at_ms: Int64Array,
    half_lives: Float64Array,
) -> int:
    if not rows.shape[0] == weights.shape[0] == ticks.shape[0] == at_ms.shape[0]:
        return 4
    for e in range(rows.shape[0]):
        if not 0 <= rows[e] < plays.shape[0]:
            return 1
        if not np.isfinite(ticks[e]):
            return 2
        if not 0.0 < weights[e] < np.inf:
            return 3
    for e in range(rows.shape[0]):
        row = rows[e]
        weight = weights[e]
        _add(decayed, decayed_at, row, ticks[e], weight, half_lives, plays[row] == 0.0 and decayed[row, 0] == 0.0)
        plays[row] += weight
        if first_ms[row] < 0 or at_ms[e] < first_ms[row]:
            first_ms[row] = at_ms[e]
        if at_ms[e] > last_ms[row]:
            last_ms[row] = at_ms[e]
    return 0


@kernel(void, write(f32, 2), read(f64), read(f64), f64, f64)
def _exponents(
    out: Float32Array, decayed_at: Float64Array, half_lives: Float64Array, ticks: float, long_ago: float
) -> None:
    for c in range(half_lives.shape[0]):
        for i in range(decayed_at.shape[0]):
            out[c, i] = -min(max((ticks - decayed_at[i]) / half_lives[c], 0.0), long_ago)


@kernel(void, write(f32, 2), read(f32, 2))
def _multiply(out: Float32Array, decayed: Float32Array) -> None:
    for c in range(out.shape[0]):
        for i in range(out.shape[1]):
            out[c, i] *= decayed[i, c]


@kernel(i64, write(f32, 2), write(f64), read(i32), read(f64), read(f64))
def _show(
    shown: Float32Array, shown_at: Float64Array, rows: Int32Array, ticks: Float64Array, half_lives: Float64Array
) -> int:
    if rows.shape[0] != ticks.shape[0]:
        return 4
    for e in range(rows.shape[0]):
        if not 0 <= rows[e] < shown.shape[0]:
            return 1
        if not np.isfinite(ticks[e]):
            return 2
    for e in range(rows.shape[0]):
        row = rows[e]
        _add(shown, shown_at, row, ticks[e], 1.0, half_lives, shown[row, 0] == 0.0)
    return 0


class Popularity(ItemModel):
    """Counts of positives, and of what was shown.

    Columns:

    - `plays` float64 (n,): all-time sum of weights
    - `decayed` float32 (n, 3): sums that fade with `HALF_LIVES`, as of `decayed_at`
    - `decayed_at` float64 (n,): ticks
    - `shown` float32 (n, 2): how often users went on from it, liked or not; fades with the first two of `HALF_LIVES`
    - `shown_at` float64 (n,): ticks as of which `shown` is
    - `first_ms`, `last_ms` int64 (n,): event times, `NEVER` before the first
    """

    name: ClassVar[str] = "popularity"

    def __init__(self, capacity: int) -> None:
        super().__init__(
            capacity,
            {
                "plays": ColumnSpec(np.float64),
                "decayed": ColumnSpec(np.float32, (len(HALF_LIVES),)),
                "decayed_at": ColumnSpec(np.float64),
                "shown": ColumnSpec(np.float32, (SHOWN_HALF_LIVES,)),
                "shown_at": ColumnSpec(np.float64),
                "first_ms": ColumnSpec(np.int64, prior=NEVER),
                "last_ms": ColumnSpec(np.int64, prior=NEVER),
            },
        )
        self._half_lives = np.array(HALF_LIVES)

    def apply(self, rows: Int32Array, weights: Float64Array, ticks: Float64Array, at_ms: Int64Array) -> None:
        """Add events; the order does not matter beyond rounding.

        Parameters
        ----------
        rows : int32, shape (m,)
        weights : float64, shape (m,); above 0
        ticks : float64, shape (m,); finite
        at_ms : int64, shape (m,); event time, at least 0

        Raises
        ------
        ModelError
            A row, weight or time is out of range; nothing was changed.
        """
        c = self.columns
        counts = c["plays"], c["decayed"], c["decayed_at"], c["first_ms"], c["last_ms"]
        accepted(_apply(*counts, rows, weights, ticks, at_ms, self._half_lives))

    def show(self, rows: Int32Array, ticks: Float64Array) -> None:
        """Count that users went on from `rows` (int32, shape (m,)) at `ticks` (float64, shape (m,), finite); in any order.

        Raises
        ------
        ModelError
            A row or time is out of range; nothing was changed.
        """
        accepted(_show(self.columns["shown"], self.columns["shown_at"], rows, ticks, self._half_lives))

    def levels(self, ticks: float, n_items: int) -> Float32Array:
        """Decayed counts of the first `n_items` rows as of `ticks`.

        A row whose latest event is later than `ticks` is read as of that event: looking back never makes a count grow.

        Returns
        -------
        float32, shape (n_items, 3), one column a half-life
        """
        return self._faded(self.columns["decayed"][:n_items], self.columns["decayed_at"][:n_items], ticks)

    def levels_of(self, rows: Int32Array, ticks: float) -> Float32Array:
        """Decayed counts of `rows` (int32, shape (m,)) as of `ticks`, float32, shape (m, 3); see `levels`."""
        return self._faded(self.columns["decayed"][rows], self.columns["decayed_at"][rows], ticks)

    def _faded(self, decayed: Float32Array, decayed_at: Float64Array, ticks: float) -> Float32Array:
        # Powers are numpy's, which takes eight or more at once: in the compiled loop they would cost ten times as much.
        out = np.empty((len(HALF_LIVES), len(decayed_at)), np.float32)
        _exponents(out, decayed_at, self._half_lives, ticks, LONG_AGO)
        np.exp2(out, out=out)
        _multiply(out, decayed)
        return out.T

    def shown_lately(self, ticks: float, n_items: int) -> Float32Array:
        """How often the first `n_items` rows were shown, faded with the shortest half-life as of `ticks`; float32, (n_items,)."""
        return self._shown_as_of(np.arange(n_items), ticks)[:, 0].astype(np.float32)

    def shown_features(self, rows: Int32Array, ticks: float) -> Float32Array:
        """Logarithms of how often `rows` (int32, shape (m,)) were shown, faded as of `ticks`; float32, shape (m, 2)."""
        logs: Float32Array = np.log(self._shown_as_of(rows, ticks) + COUNT_FLOOR).astype(np.float32)
        return logs

    def _shown_as_of(self, rows: Int32Array | Int64Array, ticks: float) -> Float64Array:
        elapsed = np.maximum(ticks - self.columns["shown_at"][rows], 0.0)[:, None] / self._half_lives[:SHOWN_HALF_LIVES]
        shown: Float64Array = self.columns["shown"][rows] * np.exp2(-np.minimum(elapsed, LONG_AGO))
        return shown

    def score_many(self, context: Context, rows: Int32Array) -> Float32Array:
        """Score by the count with the middle half-life, 3,000 ticks."""
        return self.levels_of(rows, context.ticks)[:, 1].copy()

    def learn_one(self, context: Context, row: int, ticks: float) -> None:
        """Count one positive event; its event time in ms is taken to be its ticks."""
        del context
        self.apply(np.array([row], np.int32), np.ones(1), np.array([ticks]), np.array([max(0, int(ticks))]))
