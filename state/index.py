"""A graph index (HNSW) over item factors, for the videos with the largest `b + q . z`.

Flows in: rows whose vectors changed. Flows out: rows, best first by their current vectors. Maximum inner product is no metric, so
vectors are lifted to `[q, b, sqrt(M^2 - |q|^2 - b^2)]` and queried with `[z, 1, 0]` (Bachrach et al. 2014): then the order by
inner product is the order by distance, exactly. M is the largest norm with headroom; a vector that outgrows it has a new graph
built beside the old one.

Vectors drift faster than a graph can follow within a modest share of a core. So a search looks in two places, as in a log-structured
store: the graph holds vectors as they were, and the rows that have moved far since are scored one by one; a refresh keeps these
few, the most moved first. So are the rows of the largest bias: they compete in every list, and a walk that begins in a user's taste
may end there (2% of lists were seen to lose their popular half). Always holds: a removed row is never returned.
"""

import time
from collections.abc import Iterable, Iterator
from threading import Lock

import hnswlib
import numpy as np

from online_models.linear import dot_rows
from state.growth import grown_size
from state.types import BoolArray, Float32Array, Int32Array

#: Rows up to which scoring all of them takes no longer than finding candidates first: no graph is needed, none is kept.
EXACT_BELOW = 20_000
#: Graph degree and build effort: updates at 0.3 to 0.9 ms, recall@100 of 0.999 at SEARCH_EFFORT.
DEGREE = 12
BUILD_EFFORT = 100
SEARCH_EFFORT = 200
#: The graph is asked for this many times what is wanted: what moved by less than DRIFT changes places among them.
SPARE = 2
#: A row waits for its update when its vector moved by this share of its length, and is scored by itself when by that.
DRIFT = 0.05
FAR = 0.25
#: Rows scored in every search, beside the graph: of the largest bias, and of those that moved far or are new, the most moved.
POPULAR = 256
APART = 4096
#: Marked rows looked at a refresh: all new ones, and so many of the others in turn.
LOOKED = 2048
#: M over the largest norm when the graph was begun.
HEADROOM = 1.5
#: Rows written while searches wait, about a millisecond.
SLICE = 2
#: Rows chosen a refresh: more than a budget lets write.
MOST = 256


class _Graph:
    """An HNSW graph of vectors whose norm is at most `norm`."""

    def __init__(self, k: int, norm: float, capacity: int) -> None:
        self.norm = norm
        self.capacity = capacity
        #: Which rows have a vector, and which of these may be returned.
        self.present: BoolArray = np.zeros(capacity, np.bool_)
        self.live: BoolArray = np.zeros(capacity, np.bool_)
        self._count = 0
        self._live_count = 0
        self._room = min(1024, capacity)
        self._index = hnswlib.Index(space="ip", dim=k + 2)
        self._index.init_index(
            max_elements=self._room, M=DEGREE, ef_construction=BUILD_EFFORT, random_seed=1, allow_replace_deleted=False
        )
        self._index.set_num_threads(1)

    def __len__(self) -> int:
        return self._live_count

    def write(self, rows: Int32Array, vectors: Float32Array) -> None:
        """Put rows in, or in another place; int32 (m,) and float32 (m, k + 1), no row twice."""
        self._count += int((~self.present[rows]).sum())
        self._live_count += int((~self.live[rows]).sum())
        while self._count > self._room:
            self._room = min(grown_size(self._room), self.capacity)
            self._index.resize_index(self._room)
        for row in rows[self.present[rows] & ~self.live[rows]].tolist():
            self._index.unmark_deleted(row)
        lift = np.sqrt(np.maximum(self.norm**2 - (vectors**2).sum(axis=1), 0.0))
        self._index.add_items(np.concatenate([vectors, lift[:, None]], axis=1), rows, num_threads=1)
        self.present[rows] = self.live[rows] = True

    def remove(self, row: int) -> None:
        """Return the row no more."""
        if self.live[row]:
            self._index.mark_deleted(row)
            self.live[row] = False
            self._live_count -= 1

    def moved(self, rows: Int32Array, vectors: Float32Array) -> Float32Array:
        """How far `vectors` are from those written, in lengths of the latter; infinite where there is none. float32, (m,)."""
        shares = np.full(len(rows), np.inf, np.float32)
        live = self.live[rows]
        if live.any():
            held = np.asarray(self._index.get_items(rows[live], return_type="numpy"))[:, :-1]
            shares[live] = np.sqrt(((vectors[live] - held) ** 2).sum(axis=1) / np.maximum((held**2).sum(axis=1), 1e-12))
        return shares

    def nearest(self, query: Float32Array, n: int) -> Int32Array:
        """About the `n` nearest rows, best first; fewer where there are fewer, or where the graph falls into parts."""
        n = min(n, len(self))
        while n > 0:
            self._index.set_ef(max(SEARCH_EFFORT, n))
            try:
                found, _ = self._index.knn_query(query, k=n, num_threads=1)
                return np.asarray(found[0], np.int32)
            except RuntimeError:
                # Among ties a walk may reach fewer than `n`: hnswlib then gives none.
                n //= 2
        return np.empty(0, np.int32)


class ItemIndex:
    """The graph, the rows that moved since they were written to it, and the graph that is to replace it.

    `mark`, `remove` and `search` are called by the loop, `refresh` by one thread. Memory: about 420 bytes a row in the
    graph; twice that while a new graph is built.

    Parameters
    ----------
    k : width of the factors
    capacity : the largest number of rows
    """

    def __init__(self, k: int, capacity: int) -> None:
        self.k = k
        self.capacity = capacity
        #: Held while the graph is written or searched.
        self._lock = Lock()
        self._graph = _Graph(k, 0.0, capacity)
        self._next: _Graph | None = None
        self._queue: Int32Array = np.empty(0, np.int32)
        self._largest = 0.0
        self._looked_to = 0
        self._popular: Int32Array = np.empty(0, np.int32)
        #: (capacity,) changed and not looked at; not to be returned; how far it moved if it waits, else 0.
        self._marked: BoolArray = np.zeros(capacity, np.bool_)
        self._removed: BoolArray = np.zeros(capacity, np.bool_)
        self._moved: Float32Array = np.zeros(capacity, np.float32)
        #: Rows that are scored one by one, and the same as flags; replaced together, never changed.
        self._apart: tuple[Int32Array, BoolArray] = (np.empty(0, np.int32), np.zeros(capacity, np.bool_))

    def __len__(self) -> int:
        """Rows in the graph that a search can return."""
        return len(self._graph)

    @property
    def waiting(self) -> int:
        """Rows whose change is not in the graph yet."""
        return int(np.count_nonzero((self._marked | (self._moved > 0)) & ~self._removed)) + len(self._queue)

    @property
    def apart(self) -> int:
        """Rows that a search scores one by one, beside the graph."""
        return len(self._apart[0])

    def mark(self, rows: Int32Array) -> None:
        """These rows (int32, (m,)) changed or are new; `refresh` will look at them."""
        self._removed[rows] = False
        self._marked[rows] = True

    def remove(self, rows: Iterable[int]) -> None:
        """These rows may not be returned any more; at once."""
        removed = np.fromiter(rows, np.int32)
        if not len(removed):
            return
        self._removed[removed] = True
        self._marked[removed] = False
        with self._lock:
            for row in removed.tolist():
                self._graph.remove(row)

    def refresh(self, q: Float32Array, b: Float32Array, budget_s: float = 0.05) -> int:
        """Look at the marked rows, then write to the graph, the most moved first, until `budget_s` seconds are over.

        Parameters
        ----------
        q, b : float32, shapes (n, k) and (n,); the factors by row

        Returns
        -------
        How many rows were written to a graph.
        """
        until = time.perf_counter() + budget_s
        self._look(q, b)
        self._popular = _largest(b)
        self._set_apart()
        if self._next is None and self._largest > self._graph.norm:
            self._next = _Graph(self.k, self._largest * HEADROOM, self.capacity)
            self._queue = np.flatnonzero(self._graph.live.copy()).astype(np.int32)
        if self._next is not None:
            return self._build(self._next, q, b, until)
        written = 0
        for rows in self._most_moved():
            with self._lock:
                kept = rows[~self._removed[rows]]
                written += _write_sound(self._graph, kept, q, b)
                self._moved[rows] = 0
            if time.perf_counter() > until:
                break
        self._set_apart()
        return written

    def _look(self, q: Float32Array, b: Float32Array) -> None:
        """See how far some of the marked rows have moved from what the graph holds, going on where the last look ended."""
        # Of a copy: numpy counts before it fills, and a mark in between would leave it numbers that nobody has written.
        marked = np.flatnonzero(self._marked[: len(b)].copy()).astype(np.int32)
        held = self._graph.live[marked]
        rows = marked[held]
        if len(rows) > LOOKED:
            rows = np.roll(rows, -int(np.searchsorted(rows, self._looked_to)))[:LOOKED]
            self._looked_to = int(rows[-1]) + 1
        rows = np.concatenate([marked[~held], rows])
        self._marked[rows] = False
        vectors = _vectors(q, b, rows)
        with self._lock:
            # A row that is removed between two looks at it is one that the graph no longer gives.
            moved = self._graph.moved(rows, vectors)
        # A vector that is not finite is returned by no path.
        norms = np.sqrt((vectors**2).sum(axis=1))
        sound = np.isfinite(norms)
        self._largest = max(self._largest, float(norms[sound].max(initial=0.0)))
        self._moved[rows] = np.where(sound & (moved > DRIFT), moved, 0)

    def _set_apart(self) -> None:
        far = _most(self._moved, FAR, self._removed, APART)
        flags = np.zeros(self.capacity, np.bool_)
        flags[far] = True
        popular = self._popular[~self._removed[self._popular]]
        flags[popular] |= self._graph.live[popular] | (self._moved[popular] > 0)
        self._apart = np.flatnonzero(flags).astype(np.int32), flags

    def _most_moved(self) -> Iterator[Int32Array]:
        """Rows that wait, a few at a time, the most moved first."""
        rows = _most(self._moved, 0, self._removed, MOST)
        rows = rows[np.argsort(-self._moved[rows], kind="stable")]
        return (rows[first : first + SLICE] for first in range(0, len(rows), SLICE))

    def _build(self, graph: _Graph, q: Float32Array, b: Float32Array, until: float) -> int:
        """Go on with the next graph; nobody else sees it until it is whole."""
        written = 0
        while len(self._queue) and time.perf_counter() < until:
            rows, self._queue = self._queue[:SLICE], self._queue[SLICE:]
            written += _write_sound(graph, rows[~self._removed[rows]], q, b)
        if not len(self._queue):
            # How far rows moved from what this graph holds is to be seen, in turn; those that it lacks cannot wait.
            lacking = (self._graph.live | (self._moved > 0)) & ~graph.live
            with self._lock:
                self._moved = np.where(lacking, np.float32(np.inf), np.float32(0))
                self._marked |= graph.live & ~self._removed
                self._graph, self._next = graph, None
                for row in np.flatnonzero(self._removed & graph.live).tolist():
                    graph.remove(row)
                self._set_apart()
        return written

    def search(self, z: Float32Array, n: int, q: Float32Array, b: Float32Array) -> Int32Array:
        """Rows with about the largest `b + q . z`, best first; fewer than `n` where fewer are known.

        Parameters
        ----------
        z : float32, shape (k,)
        q, b : float32, shapes (rows, k) and (rows,); the factors as they are now

        Returns
        -------
        int32, shape (at most n,)
        """
        query = np.concatenate([z, [1.0, 0.0]]).astype(np.float32)
        if not np.isfinite(query).all():
            return np.empty(0, np.int32)
        with self._lock:
            apart, is_apart = self._apart
            found = self._graph.nearest(query, SPARE * n)
        rows = np.concatenate([found[~is_apart[found]], apart])
        rows = rows[~self._removed[rows]]
        scores = np.empty(len(rows), np.float32)
        dot_rows(q, z, scores, rows)
        scores += b[rows]
        scores[np.isnan(scores)] = -np.inf
        if len(rows) > n:
            chosen = np.argpartition(-scores, n - 1)[:n]
            rows, scores = rows[chosen], scores[chosen]
        ordered: Int32Array = rows[np.argsort(-scores, kind="stable")]
        return ordered


def _vectors(q: Float32Array, b: Float32Array, rows: Int32Array) -> Float32Array:
    return np.concatenate([np.asarray(q[rows]), np.asarray(b[rows])[:, None]], axis=1)


def _most(moved: Float32Array, least: float, removed: BoolArray, n: int) -> Int32Array:
    """Up to `n` rows that moved by more than `least`, the most moved of them, in no order; int32."""
    rows = np.flatnonzero((moved > least) & ~removed).astype(np.int32)
    if len(rows) > n:
        rows = rows[np.argpartition(-moved[rows], n - 1)[:n]]
    return rows


def _largest(b: Float32Array) -> Int32Array:
    """Rows of the largest biases; int32, at most POPULAR, in no order."""
    finite = np.where(np.isfinite(b), b, -np.inf)
    return (
        np.argpartition(-finite, min(POPULAR, len(b)) - 1)[:POPULAR].astype(np.int32)
        if len(b)
        else np.empty(0, np.int32)
    )


def _write_sound(graph: _Graph, rows: Int32Array, q: Float32Array, b: Float32Array) -> int:
    """Write those whose vectors have a place in the graph; returns how many."""
    vectors = _vectors(q, b, rows)
    # False for a vector that is not finite. One that has outgrown the graph in this moment is marked, and looked at again.
    sound = (vectors**2).sum(axis=1) <= graph.norm**2
    if sound.any():
        graph.write(rows[sound], vectors[sound])
    return int(sound.sum())
