"""A graph index (HNSW) over item factors, for the videos with the largest `b + q . z`.

Flows in: rows whose vectors changed. Flows out: rows, best first by their current vectors. Maximum inner product is no metric, so
vectors are lifted to `[q, b, sqrt(M^2 - |q|^2 - b^2)]` and queried with `[z, 1, 0]` (Bachrach et al. 2014): then the order by
inner product is the order by distance, exactly. M is the largest norm with headroom; a vector that outgrows it has a new graph
built beside the old one.

Vectors drift faster than a graph can follow within a modest share of a core. So a search looks in two places, as in a log-structured
store: the graph holds vectors as they were, and the rows that have moved since (`waiting`) are scored one by one. A refresh keeps
these few, the most moved first. Always holds: a removed row is never returned; a row that moved is found wherever it is.
"""

import time
from collections.abc import Iterable, Iterator
from threading import Lock

import hnswlib
import numpy as np

from online_models.linear import dot_rows
from state.types import BoolArray, Float32Array, Int32Array

#: Rows up to which scoring all of them takes no longer than finding candidates first: no graph is needed, none is kept.
EXACT_BELOW = 20_000
#: Graph degree and build effort: updates at 0.3 to 0.9 ms, recall@100 of 0.999 at SEARCH_EFFORT.
DEGREE = 16
BUILD_EFFORT = 100
SEARCH_EFFORT = 200
#: The graph is asked for this many times what is wanted: what moved by less than DRIFT changes places among them.
SPARE = 2
#: A row waits for its update when its vector moved by this share of its length.
DRIFT = 0.05
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
        #: About the vectors as they were written, which rows have one, and which of these may be returned.
        self.held = np.zeros((capacity, k + 1), np.float16)
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
            self._room = min(2 * self._room, self.capacity)
            self._index.resize_index(self._room)
        for row in rows[self.present[rows] & ~self.live[rows]].tolist():
            self._index.unmark_deleted(row)
        lift = np.sqrt(np.maximum(self.norm**2 - (vectors**2).sum(axis=1), 0.0))
        self._index.add_items(np.concatenate([vectors, lift[:, None]], axis=1), rows, num_threads=1)
        with np.errstate(over="ignore"):
            self.held[rows] = vectors
        self.present[rows] = self.live[rows] = True

    def remove(self, row: int) -> None:
        """Return the row no more."""
        if self.live[row]:
            self._index.mark_deleted(row)
            self.live[row] = False
            self._live_count -= 1

    def moved(self, rows: Int32Array, vectors: Float32Array) -> Float32Array:
        """How far `vectors` are from those held, in lengths of the latter; infinite where there is none. float32, (m,)."""
        held = self.held[rows].astype(np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            shares: Float32Array = np.sqrt(((vectors - held) ** 2).sum(axis=1) / (held**2).sum(axis=1))
        shares[~self.live[rows]] = np.inf
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

    `mark`, `remove` and `search` are called by the loop, `refresh` by one thread. Memory: 74 bytes a row for vectors as written
    and flags, about 300 in the graph; twice that while a new graph is built.

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
        self._look(self._graph, q, b)
        self._set_apart()
        if self._next is None and self._largest > self._graph.norm:
            self._next = _Graph(self.k, self._largest * HEADROOM, self.capacity)
            self._queue = np.flatnonzero(self._graph.live).astype(np.int32)
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

    def _look(self, graph: _Graph, q: Float32Array, b: Float32Array) -> None:
        """See how far each marked row has moved from what the graph holds."""
        looked = np.flatnonzero(self._marked[: len(b)]).astype(np.int32)
        self._marked[looked] = False
        for first in range(0, len(looked), 4096):
            rows = looked[first : first + 4096]
            vectors = _vectors(q, b, rows)
            moved = graph.moved(rows, vectors)
            # A vector that is not finite is returned by no path.
            norms = np.sqrt((vectors**2).sum(axis=1))
            sound = np.isfinite(norms)
            self._largest = max(self._largest, float(norms[sound].max(initial=0.0)))
            self._moved[rows] = np.where(sound & ~(moved <= DRIFT), np.nan_to_num(moved, nan=np.inf), 0)

    def _set_apart(self) -> None:
        flags = (self._moved > 0) & ~self._removed
        self._apart = np.flatnonzero(flags).astype(np.int32), flags

    def _most_moved(self) -> Iterator[Int32Array]:
        """Rows that wait, a few at a time, some of the most moved first."""
        waiting = self._apart[0]
        moved = self._moved[waiting]
        if len(waiting) > MOST:
            best = np.argpartition(-moved, MOST)[:MOST]
            waiting, moved = waiting[best], moved[best]
        ordered = waiting[np.argsort(-moved, kind="stable")]
        return (ordered[first : first + SLICE] for first in range(0, len(ordered), SLICE))

    def _build(self, graph: _Graph, q: Float32Array, b: Float32Array, until: float) -> int:
        """Go on with the next graph; nobody else sees it until it is whole."""
        written = 0
        while len(self._queue) and time.perf_counter() < until:
            rows, self._queue = self._queue[:SLICE], self._queue[SLICE:]
            written += _write_sound(graph, rows[~self._removed[rows]], q, b)
        if not len(self._queue):
            # What it holds of a row is another vector than the old one did.
            self._marked |= (graph.present | self._graph.live | (self._moved > 0)) & ~self._removed
            self._look(graph, q, b)
            with self._lock:
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


def _write_sound(graph: _Graph, rows: Int32Array, q: Float32Array, b: Float32Array) -> int:
    """Write those whose vectors have a place in the graph; returns how many."""
    vectors = _vectors(q, b, rows)
    # False for a vector that is not finite. One that has outgrown the graph in this moment is marked, and looked at again.
    sound = (vectors**2).sum(axis=1) <= graph.norm**2
    if sound.any():
        graph.write(rows[sound], vectors[sound])
    return int(sound.sum())
