"""Matrix factorisation that follows the sequence of a user's items.

`score(u, i) = b_i + z . q_i`, where `z = p_u + sum_{r<10} 0.9^r q_{h_r} / sqrt(sum_r 0.9^r)`: item vectors stand for
the user's recent past as in FISM (Kabbur et al. 2013), the user's own vector p (from 0) for what is left. Each
positive is learned by a softmax over it and 40 uniform negatives, whose logits are raised by log((n - 1) / 40) so
that they stand for all other items, with AdaGrad steps, one accumulator a row. Negatives come from a pool that a
batch shares: an event would otherwise touch, and send, 40 more rows. What the user chose lately is no negative: it is
never recommended again, and pushing it away costs a tenth of the recall where users have long sittings.

`learn_batch` changes rows in place, event by event in order, and sums up by how much for a caller that sends it to others.
"""

from typing import ClassVar

import numpy as np

from online_models.base import (
    EMPTY,
    FACTORS,
    HISTORY,
    ColumnSpec,
    Context,
    Float32Array,
    Int32Array,
    Int64Array,
    ItemModel,
    ModelError,
    UInt8Array,
    UInt64Array,
    accepted,
)
from online_models.counters import initial_vector, mix64, seed_key, uniforms
from online_models.factor_steps import SPREAD, FactorSteps
from online_models.kernel import f32, i32, i64, kernel, part, read, u64, write
from online_models.linear import dot_rows

LAGS = 10
"""Items of the history that make the user's vector."""
LAG_DECAY = np.float32(0.9)
NEGATIVES = 40
"""Negatives an event; 20 cost half the time and some recall."""
RATE = np.float32(0.1)
BIAS_RATE = np.float32(0.3)
REGULARISATION = np.float32(0.001)
EPSILON = np.float32(1e-3)
"""Added to the accumulator under the root, so that a row's first step is bounded."""


@part
def _note(
    row: int,
    noted: UInt8Array,
    named: Int32Array,
    before: Float32Array,
    q: Float32Array,
    b: Float32Array,
    acc: Float32Array,
    count: int,
) -> int:
    """Copy what the row holds before the batch, once; returns how many rows are copied."""
    if noted[row]:
        return count
    noted[row] = 1
    named[count] = row
    for f in range(FACTORS):
        before[count, f] = q[row, f]
    before[count, FACTORS] = b[row]
    before[count, FACTORS + 1] = acc[row]
    return count + 1


@kernel(
    i64,
    write(f32, 2),
    write(f32),
    write(f32),
    write(f32, 2),
    write(f32),
    read(i32),
    read(i32, 2),
    read(i32),
    read(f32),
    read(i32),
    i64,
    u64,
    u64,
    write(i32),
    write(i32),
    write(f32, 2),
    write(i64),
)
def _learn(
    q: Float32Array,
    b: Float32Array,
    acc: Float32Array,
    p: Float32Array,
    pacc: Float32Array,
    slots: Int32Array,
    histories: Int32Array,
    rows: Int32Array,
    weights: Float32Array,
    negatives: Int32Array,
    n_items: int,
    key: int,
    first: int,
    table: Int32Array,
    moved: Int32Array,
    sums: Float32Array,
    used: Int64Array,
) -> int:
    k = FACTORS
    n = q.shape[0]
    pool = negatives.shape[0]
    if not (
        rows.shape[0] == slots.shape[0] == histories.shape[0] == weights.shape[0]
        and p.shape[0] == pacc.shape[0]
        and p.shape[1] == k
    ):
        return 4
    for c in range(pool):
        if not 0 <= negatives[c] < n:
            return 1
    for e in range(rows.shape[0]):
        if not (0 <= rows[e] < n and 0 <= slots[e] < p.shape[0]):
            return 1
        if not 0.0 < weights[e] < np.inf:
            return 3
        for lag in range(histories.shape[1]):
            if histories[e, lag] >= n:
                return 1
    # What may move: copied now, compared when all is learned. Steps added to their sums as they are made cost more.
    noted = np.zeros(n, np.uint8)
    named = np.empty(min(n, pool + rows.shape[0] * (1 + LAGS)), np.int32)
    before = np.empty((named.shape[0], FACTORS + 2), np.float32)
    copied = 0
    for c in range(pool):
        copied = _note(negatives[c], noted, named, before, q, b, acc, copied)
    for e in range(rows.shape[0]):
        copied = _note(rows[e], noted, named, before, q, b, acc, copied)
        for lag in range(min(LAGS, histories.shape[1])):
            if histories[e, lag] >= 0:
                copied = _note(histories[e, lag], noted, named, before, q, b, acc, copied)
    drawn = min(NEGATIVES, pool)
    z = np.empty(FACTORS, np.float32)
    gz = np.empty(FACTORS, np.float32)
    chosen = np.empty(NEGATIVES + 1, np.int32)
    logit = np.empty(NEGATIVES + 1, np.float32)
    for e in range(rows.shape[0]):
        slot = slots[e]
        lags = 0
        norm = np.float32(0.0)
        share = np.float32(1.0)
        for f in range(k):
            gz[f] = np.float32(0.0)
        while lags < min(LAGS, histories.shape[1]) and histories[e, lags] >= 0:
            vector = q[histories[e, lags]]
            for f in range(k):
                gz[f] += share * vector[f]
            norm += share
            share *= LAG_DECAY
            lags += 1
        spread = np.float32(0.0)
        if lags > 0:
            spread = np.float32(1.0) / np.sqrt(norm)
        for f in range(k):
            z[f] = p[slot, f] + spread * gz[f]

        # A window of the pool at a place that depends on the event's number only.
        mixed = np.uint64(key ^ first + np.uint64(e)) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = mixed ^ (mixed >> np.uint64(31))
        chosen[0] = rows[e]
        count = 1
        if pool > 0:
            place = np.int64(mixed % np.uint64(pool))
            for _ in range(drawn):
                usable = negatives[place] != rows[e]
                for lag in range(histories.shape[1]):
                    usable &= negatives[place] != histories[e, lag]
                if usable:
                    chosen[count] = negatives[place]
                    count += 1
                place += 1
                if place == pool:
                    place = np.int64(0)
        if count == 1:
            continue
        offset = np.float32(np.log(max(n_items - 1, count - 1) / (count - 1)))
        highest = np.float32(-np.inf)
        for c in range(count):
            vector = q[chosen[c]]
            dot = np.float32(0.0)
            for f in range(k):
                dot += z[f] * vector[f]
            logit[c] = b[chosen[c]] + dot
            if c > 0:
                logit[c] += offset
            highest = max(highest, logit[c])
        total = np.float32(0.0)
        for c in range(count):
            logit[c] = np.exp(logit[c] - highest)
            total += logit[c]

        for f in range(k):
            gz[f] = np.float32(0.0)
        for c in range(count):
            row = chosen[c]
            vector = q[row]
            gradient = logit[c] / total
            if c == 0:
                gradient -= np.float32(1.0)
            squares = np.float32(0.0)
            for f in range(k):
                gz[f] += gradient * vector[f]
                step = gradient * z[f] + REGULARISATION * vector[f]
                squares += step * step
            acc[row] += squares / np.float32(FACTORS)
            rate = weights[e] * RATE / np.sqrt(acc[row] + EPSILON)
            for f in range(k):
                vector[f] -= rate * (gradient * z[f] + REGULARISATION * vector[f])
            b[row] -= weights[e] * BIAS_RATE * (gradient + REGULARISATION * b[row])

        share = spread
        for lag in range(lags):
            row = histories[e, lag]
            vector = q[row]
            squares = np.float32(0.0)
            for f in range(k):
                step = share * gz[f] + REGULARISATION * vector[f]
                squares += step * step
            acc[row] += squares / np.float32(FACTORS)
            rate = weights[e] * RATE / np.sqrt(acc[row] + EPSILON)
            for f in range(k):
                vector[f] -= rate * (share * gz[f] + REGULARISATION * vector[f])
            share *= LAG_DECAY
        squares = np.float32(0.0)
        for f in range(k):
            step = gz[f] + REGULARISATION * p[slot, f]
            squares += step * step
        pacc[slot] += squares / np.float32(FACTORS)
        rate = weights[e] * RATE / np.sqrt(pacc[slot] + EPSILON)
        for f in range(k):
            p[slot, f] -= rate * (gz[f] + REGULARISATION * p[slot, f])
    mask = table.shape[0] - 1
    for c in range(copied):
        row = np.int64(named[c])
        place = ((row * SPREAD) >> 7) & mask
        while table[place] >= 0 and moved[table[place]] != row:
            place = (place + 1) & mask
        if table[place] < 0:
            table[place] = used[0]
            moved[used[0]] = row
            used[0] += 1
        at = table[place]
        for f in range(k):
            sums[at, f] += q[row, f] - before[c, f]
        sums[at, FACTORS] += b[row] - before[c, FACTORS]
        sums[at, FACTORS + 1] += acc[row] - before[c, FACTORS + 1]
    return 0


class SequentialMF(ItemModel):
    """Item vectors of the sequential factorisation.

    Columns:

    - `q` float32 (n, 32): vectors; all 0 in a row that no item was admitted to
    - `b` float32 (n,): biases
    - `acc` float32 (n,): AdaGrad accumulators, sums of mean squared gradients

    Parameters
    ----------
    capacity : rows
    seed : of first vectors and of draws
    """

    name: ClassVar[str] = "sequential_mf"

    def __init__(self, capacity: int, seed: int) -> None:
        super().__init__(
            capacity,
            {"q": ColumnSpec(np.float32, (FACTORS,)), "b": ColumnSpec(np.float32), "acc": ColumnSpec(np.float32)},
        )
        self.seed = seed

    def admit(self, rows: Int32Array, ids: UInt64Array) -> None:
        """Give `rows` (int32, shape (m,)) the first vectors of the items with 64-bit `ids` (uint64, shape (m,))."""
        self.forget(rows)
        self.columns["q"][rows] = initial_vector(self.seed, ids)

    def learn_batch(
        self,
        p: Float32Array,
        pacc: Float32Array,
        slots: Int32Array,
        histories: Int32Array,
        rows: Int32Array,
        negatives: Int32Array,
        n_items: int,
        seed: int,
        first: int = 0,
        steps: FactorSteps | None = None,
        weights: Float32Array | None = None,
    ) -> None:
        """Learn events in order; changes `p`, `pacc` and this model's columns in place.

        Parameters
        ----------
        p : float32, shape (U, 32); users' vectors
        pacc : float32, shape (U,); their accumulators
        slots : int32, shape (m,); each event's user, a row of `p`
        histories : int32, shape (m, h), h >= 10, as wide as is known: the user's items before the event, newest first,
            padded with `EMPTY`; the first 10 are learned from, all are kept from being negatives
        rows : int32, shape (m,); the chosen items
        negatives : int32, shape (g,); the batch's pool, drawn uniformly from admitted rows; an event uses up to 40
        n_items : admitted rows, for the logit correction
        seed, first : event e draws by (seed, first + e) alone, so a batch equals its parts learned one after the other
        steps : gets what is added to the columns
        weights : float32, shape (m,); how many times the usual step each event takes; None: once

        Raises
        ------
        ModelError
            A row or slot is out of range; nothing was changed.
        """
        c = self.columns
        vectors = c["q"], c["b"], c["acc"], p, pacc
        steps = FactorSteps() if steps is None else steps
        if weights is None:
            weights = np.ones(len(rows), np.float32)
        steps.expect(self.capacity, len(negatives) + len(rows) * (1 + LAGS))
        sums = steps.table, steps.rows, steps.sums, steps.used
        accepted(_learn(*vectors, slots, histories, rows, weights, negatives, n_items, seed_key(seed), first, *sums))

    def user_vector(self, p: Float32Array, history: Int32Array) -> Float32Array:
        """Make z (float32, shape (32,)) of a user's own vector (the same) and history (int32, newest first)."""
        recent = history[:LAGS]
        if len(recent) == 0:
            return p.copy()
        shares = LAG_DECAY ** np.arange(len(recent), dtype=np.float32)
        context: Float32Array = (shares @ self.columns["q"][recent]) / np.sqrt(shares.sum())
        return p + context

    def scores(self, z: Float32Array, out: Float32Array) -> None:
        """Score the first `len(out)` rows into `out` (float32) for the user vector `z` (float32, (32,)); exact."""
        dot_rows(self.columns["q"], z, out)
        out += self.columns["b"][: len(out)]

    def score_many(self, context: Context, rows: Int32Array) -> Float32Array:
        """Score `rows` by `b + q . z`; log-odds, unbounded."""
        z = self.user_vector(context.p, context.history)
        out = np.empty(len(rows), np.float32)
        dot_rows(self.columns["q"], z, out, rows)
        out += self.columns["b"][rows]
        return out

    def learn_one(self, context: Context, row: int, ticks: float) -> None:
        """Learn one event with negatives from all admitted rows. The user's vector is left to `learn_batch`."""
        admitted = np.flatnonzero(self.columns["q"].any(axis=1)).astype(np.int32)
        if len(admitted) == 0:
            raise ModelError("sequential_mf: admit items before learning")
        counters = mix64(np.array([ticks]).view(np.uint64)) + np.arange(NEGATIVES).astype(np.uint64)
        places = (uniforms(self.seed, counters) * len(admitted)).astype(np.int64)
        histories = np.full((1, HISTORY), EMPTY, np.int32)
        recent = context.history[:HISTORY]
        histories[0, : len(recent)] = recent
        self.learn_batch(
            context.p[None].copy(),
            np.zeros(1, np.float32),
            np.zeros(1, np.int32),
            histories,
            np.array([row], np.int32),
            admitted[places],
            len(admitted),
            self.seed,
        )
