"""Segments: which items are chosen more by users who share a word, a country or a band of age, before they have chosen anything.

In: rows of positives with the segments of their users, as bits. Out: how much more often than everybody's an item is the choice of
such users. Each word of a user is hashed to one of `BUCKETS`; a row counts its positives by bucket, fading, as of its own reference
time. The lift of one bucket is its count over what would be expected if its users chose as all do, both raised by `PRIOR`, so that
little evidence says little (an additive prior on a ratio, as in Good 1965 for rates); that of a user is the mean of the logarithms
over their buckets, so that a user with many words is no more extreme than one with few.
"""

from typing import ClassVar

import numpy as np

from online_models.base import (
    SEGMENT_WORDS,
    ColumnSpec,
    Context,
    Float32Array,
    Float64Array,
    Int32Array,
    ItemModel,
    UInt64Array,
    accepted,
)
from online_models.kernel import f32, f64, i32, i64, kernel, read, u64, write
from online_models.popularity import COUNT_FLOOR, LONG_AGO

BUCKETS = 64 * SEGMENT_WORDS
HALF_LIFE = 30_000.0
"""In ticks. Who likes what fades slower than what is liked: with 3,000 ticks most of the gain is lost (see docs/performance.md)."""
PRIOR = 5.0
"""Positives, of a bucket and of what is expected of it, that a row starts with."""

_ALL = BUCKETS


@kernel(i64, write(f32, 2), write(f64), read(i32), read(u64, 2), read(f64), f64)
def _apply(
    counts: Float32Array,
    at: Float64Array,
    rows: Int32Array,
    segments: UInt64Array,
    ticks: Float64Array,
    half_life: float,
) -> int:
    if not rows.shape[0] == segments.shape[0] == ticks.shape[0]:
        return 4
    for e in range(rows.shape[0]):
        if not 0 <= rows[e] < counts.shape[0]:
            return 1
        if not np.isfinite(ticks[e]):
            return 2
    last = counts.shape[1] - 1
    for e in range(rows.shape[0]):
        some = np.uint64(0)
        for w in range(segments.shape[1]):
            some |= segments[e, w]
        if some == np.uint64(0):
            continue
        row = rows[e]
        step = ticks[e] - at[row]
        if counts[row, last] == np.float32(0.0):
            step = 0.0
            at[row] = ticks[e]
        weight = np.float32(1.0)
        if step > 0.0:
            kept = np.float32(2.0 ** (-step / half_life))
            for c in range(last + 1):
                counts[row, c] *= kept
            at[row] = ticks[e]
        else:
            weight = np.float32(2.0 ** (step / half_life))
        for w in range(segments.shape[1]):
            bits = segments[e, w]
            for b in range(64):
                if bits & (np.uint64(1) << np.uint64(b)):
                    counts[row, 64 * w + b] += weight
        counts[row, last] += weight
    return 0


@kernel(i64, write(f64), read(f32, 2), read(f64), i64, f64, f64, f64)
def _sum(
    sums: Float64Array, counts: Float32Array, at: Float64Array, n: int, ticks: float, half_life: float, long_ago: float
) -> int:
    if not n <= counts.shape[0]:
        return 1
    for i in range(n):
        if not counts[i, counts.shape[1] - 1] > np.float32(0.0):
            continue
        kept = 2.0 ** -min(max(ticks - at[i], 0.0) / half_life, long_ago)
        for c in range(counts.shape[1]):
            sums[c] += kept * counts[i, c]
    return 0


@kernel(i64, write(f32), read(f32, 2), read(f64), read(i32), read(i32), read(f64), f64, f64, f64, f64)
def _lifts(
    out: Float32Array,
    counts: Float32Array,
    at: Float64Array,
    rows: Int32Array,
    buckets: Int32Array,
    shares: Float64Array,
    ticks: float,
    half_life: float,
    long_ago: float,
    prior: float,
) -> int:
    if out.shape[0] != rows.shape[0] or shares.shape[0] != counts.shape[1]:
        return 4
    for i in range(rows.shape[0]):
        if not 0 <= rows[i] < counts.shape[0]:
            return 1
    last = counts.shape[1] - 1
    for i in range(rows.shape[0]):
        row = rows[i]
        out[i] = np.float32(0.0)
        # What is not finite goes on, so that it is seen.
        if counts[row, last] == np.float32(0.0) or buckets.shape[0] == 0:
            continue
        kept = 2.0 ** -min(max(ticks - at[row], 0.0) / half_life, long_ago)
        everybody = counts[row, last] * kept
        total, chosen, expected = 0.0, 1.0, 1.0
        for b in range(buckets.shape[0]):
            bucket = buckets[b]
            chosen *= counts[row, bucket] * kept + prior
            expected *= everybody * shares[bucket] + prior
            # One division and one logarithm for eight factors: of what a float32 can count, eight do not overflow.
            if b % 8 == 7:
                total += np.log(chosen / expected)
                chosen, expected = 1.0, 1.0
        out[i] = (total + np.log(chosen / expected)) / buckets.shape[0]
    return 0


def buckets_of(segments: UInt64Array) -> Int32Array:
    """Numbers of the bits that are set in `segments` (uint64, shape (w,)), ascending; int32."""
    bits = np.unpackbits(np.ascontiguousarray(segments, "<u8").view(np.uint8), bitorder="little")
    return np.flatnonzero(bits).astype(np.int32)


class Segments(ItemModel):
    """Positives by bucket.

    Columns:

    - `at` float64 (n,): ticks as of which `counts` are
    - `counts` float32 (n, BUCKETS + 1): sums that fade with HALF_LIFE, by bucket, and of all users who have any

    Nothing is written, and so no memory taken, before the first positive of a user with segments.
    """

    name: ClassVar[str] = "segments"

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity, {"at": ColumnSpec(np.float64), "counts": ColumnSpec(np.float32, (BUCKETS + 1,))})
        self._shares: Float64Array = np.zeros(BUCKETS + 1)

    def resize(self, capacity: int) -> None:
        """As of all models; what has learned nothing stays unwritten."""
        if capacity < 0 or self.columns["counts"][:, _ALL].any():
            super().resize(capacity)
        else:
            self.columns = {name: spec.rows(capacity) for name, spec in self._specs.items()}

    def apply(self, rows: Int32Array, segments: UInt64Array, ticks: Float64Array) -> None:
        """Count positives of users in their buckets.

        Parameters
        ----------
        rows : int32, shape (m,)
        segments : uint64, shape (m, SEGMENT_WORDS); a user without any is not counted
        ticks : float64, shape (m,), in any order

        Raises
        ------
        ModelError
            A row is out of range or a time is not finite; nothing has changed.
        """
        accepted(_apply(self.columns["counts"], self.columns["at"], rows, segments, ticks, HALF_LIFE))

    def weigh(self, ticks: float, n_items: int) -> None:
        """Take the share of each bucket in all counts of the first `n_items` rows, as of `ticks`: what lifts are measured against."""
        sums = np.zeros(BUCKETS + 1)
        accepted(_sum(sums, self.columns["counts"], self.columns["at"], n_items, ticks, HALF_LIFE, LONG_AGO))
        self._shares = sums / max(sums[_ALL], 1e-9)

    def lifts(self, rows: Int32Array, segments: UInt64Array, ticks: float) -> Float32Array:
        """Mean log lift of `rows` (int32, shape (m,)) for a user with these segments (uint64, shape (SEGMENT_WORDS,)); pure.

        Returns
        -------
        float32, shape (m,); 0 of a row that nobody with segments has chosen, and where the user has none
        """
        out = np.empty(len(rows), np.float32)
        columns = self.columns
        accepted(
            _lifts(
                out, columns["counts"], columns["at"], rows, buckets_of(segments), self._shares, ticks, HALF_LIFE, LONG_AGO,
                PRIOR,
            )
        )  # fmt: skip
        return out

    def score_many(self, context: Context, rows: Int32Array) -> Float32Array:
        """Score by the logarithm of the fading count of all who have segments, raised by the user's lift."""
        elapsed = np.maximum(context.ticks - self.columns["at"][rows], 0.0) / HALF_LIFE
        counts = self.columns["counts"][rows, _ALL] * np.exp2(-np.minimum(elapsed, LONG_AGO))
        popular = np.log(counts + COUNT_FLOOR).astype(np.float32)
        lifted: Float32Array = popular + self.lifts(rows, context.segments, context.ticks)
        return lifted

    def learn_one(self, context: Context, row: int, ticks: float) -> None:
        """Count one positive of the user."""
        self.apply(np.array([row], np.int32), context.segments[None], np.array([ticks]))
